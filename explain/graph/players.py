"""Who plays on a graph: nodes, edges and features of a computation graph, and which atoms each player owns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from explain.graph.absence import absent_features, feature_matrix, real_rows
from explain.graph.computation import Place
from explain.graph.structure import Fields, Structure
from explain.types import Players

KINDS = ("nodes", "edges", "features")


def players_of(place: Place, graph: Structure, kind: str, options: dict[str, Any], baseline: str) -> Players:
    """The players of a kind in a computation graph; ``graph`` is the whole graph.

    Raises:
        ValueError: an unknown kind or option.
    """
    allowed = {"nodes": {"all"}, "edges": {"undirected", "all"}, "features": {"all"}}
    if kind not in allowed:
        raise ValueError(f"graph players are {', '.join(KINDS)}; got {kind!r}")
    if unknown := set(options) - allowed[kind]:
        raise ValueError(f"players({kind!r}) takes {sorted(allowed[kind]) or 'no options'}, got {sorted(unknown)}")
    context = graph.flat_edges[:, place.edges[place.reachable]]
    geometry = {"edge_index": context.cpu(), "focus": place.nodes[place.flat_focus().to(place.nodes.device)].cpu()}
    if kind == "nodes":
        return _node_players(place, graph, geometry)
    if kind == "edges":
        return _edge_players(place, graph, geometry, bool(options.get("undirected", False)))
    return _feature_players(place, graph, baseline, bool(options.get("all", False)))


def _node_players(place: Place, graph: Structure, geometry: Fields) -> Players:
    flat = place.nodes[place.nodes >= 0].cpu()
    flat = flat[~torch.isin(flat, geometry["focus"])].sort().values
    names = tuple(node_name(graph, node) for node in flat.tolist())
    index = flat if len(graph.counts) == 1 else _typed(flat, graph.node_starts)
    return Players("nodes", index, names, geometry={**geometry, "node": flat})


def _edge_players(place: Place, graph: Structure, geometry: Fields, undirected: bool) -> Players:
    flat = place.edges[place.reachable].sort().values.cpu()
    ends = graph.flat_edges.cpu()[:, flat]
    arrow, groups = "→", None
    if undirected:
        pairs, owner = torch.unique(ends.sort(0).values, dim=1, return_inverse=True)
        groups = tuple(flat[owner == pair] for pair in range(pairs.size(1)))
        flat, ends, arrow = torch.stack([group[0] for group in groups]) if groups else flat, pairs, "–"
    names = tuple(f"{node_name(graph, u)}{arrow}{node_name(graph, v)}" for u, v in ends.t().tolist())
    index = flat if len(graph.edges) == 1 else _typed(flat, graph.edge_starts)
    return Players(
        "edges",
        index,
        names,
        groups,
        {**geometry, "edge_index": ends if undirected else geometry["edge_index"], "ends": ends},
    )


def _feature_players(place: Place, graph: Structure, baseline: str, everything: bool) -> Players:
    """Columns of ``x``; those that nowhere near differ from their absence are left out: they cannot matter."""
    columns = []
    absent = absent_features(graph, place, baseline)
    for number, kind in enumerate(graph.counts):
        x = feature_matrix(place.graph, kind)[real_rows(place, kind)]
        moves = (x != absent[kind][:, real_rows(place, kind)]).any(0).any(0)
        kept = torch.arange(x.size(1)) if everything else moves.nonzero().view(-1).cpu()
        columns += [[number, column] for column in kept.tolist()]
    index = torch.tensor(columns, dtype=torch.long).reshape(-1, 2)
    if len(graph.counts) == 1:
        return Players("features", index[:, 1])
    kinds = list(graph.counts)
    return Players("features", index, tuple(f"{kinds[t]} feature {c}" for t, c in columns))


def node_name(graph: Structure, flat: int) -> str:
    """A node's number, after its type where there are types."""
    kind = [kind for kind, start in graph.node_starts.items() if start <= flat][-1]
    return f"{kind} {flat - graph.node_starts[kind]}".strip() if len(graph.counts) > 1 else str(flat)


def _typed(flat: Tensor, starts: dict[Any, int]) -> Tensor:
    """Flat numbers as rows (type, number within the type)."""
    firsts = torch.tensor(list(starts.values()))
    kind = torch.searchsorted(firsts, flat, right=True) - 1
    return torch.stack([kind, flat - firsts[kind]], 1)


def _flat(index: Tensor, starts: dict[Any, int]) -> Tensor:
    return index if index.dim() == 1 else torch.tensor(list(starts.values()))[index[:, 0]] + index[:, 1]


def owners(players: Players, place: Place, graph: Structure) -> Tensor:
    """For each edge, node or feature column of a place, the player that owns it; ``P`` for none.

    Raises:
        ValueError: an atom that is not in the computation graph, or that two players own.
    """
    starts, known = _numbering(players.kind, place, graph)
    flat = [_flat(group if group.dim() else group[None], starts) for group in players.groups or players.index.split(1)]
    atoms = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.long)
    owner = torch.repeat_interleave(
        torch.arange(len(flat)), torch.tensor([len(group) for group in flat], dtype=torch.long)
    )
    if len(atoms.unique()) != len(atoms):
        raise ValueError(f"two players own the same one of the {players.kind}: each belongs to one player")
    position = {atom: i for i, atom in enumerate(known.tolist()) if atom >= 0}
    outside = [atom for atom in atoms.tolist() if atom not in position]
    if outside:
        raise ValueError(
            f"{players.kind} {outside[:5]} are outside this target's computation graph: "
            f"take target.players({players.kind!r})"
        )
    found = torch.full((len(known),), len(players), dtype=torch.long)
    found[[position[atom] for atom in atoms.tolist()]] = owner
    return found.to(place.nodes.device)


def _numbering(kind: str, place: Place, graph: Structure) -> tuple[dict[Any, int], Tensor]:
    """Starts of the flat numbers of a kind, and the flat number of each atom of the place, -1 where none may own it."""
    if kind == "edges":
        return dict(graph.edge_starts), place.edges
    if kind == "nodes":  # the explained nodes always stay
        return dict(graph.node_starts), place.nodes.index_fill(0, place.flat_focus().to(place.nodes.device), -1)
    starts, total = {}, 0
    for node_type in graph.counts:
        starts[node_type] = total
        total += feature_matrix(graph, node_type).size(1)
    return starts, torch.arange(total)
