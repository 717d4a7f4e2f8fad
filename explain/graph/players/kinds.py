"""Who plays on a graph, and which atoms of it each player owns: nodes, edges, or entries of their features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from explain.graph.players.absent_features import (
    absent_edge_features,
    absent_features,
    edge_matrix,
    feature_matrix,
    real_rows,
)
from explain.graph.players.edge_groups import motif_players, relation_players
from explain.graph.players.naming import edge_name, feature_name, node_name
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import Fields, Structure
from explain.spelling import came
from explain.types import Players

KINDS = ("edges", "nodes", "features", "node_features", "edge_features", "relations", "motifs")
ATOMS = {"relations": "edges", "motifs": "edges"}  # what players own, where it is not called as they are
AFFORDABLE = 256  # players that the default budget of 2,048 coalitions serves, eight for each
_OPTIONS: dict[str, set[str]] = {
    "nodes": {"all"},
    "edges": {"undirected", "degrees", "all"},
    "features": {"all", "size"},
    "node_features": {"all", "size"},
    "relations": {"all"},
    "motifs": {"motifs", "all"},
}


def players_of(place: Place, graph: Structure, kind: str, options: dict[str, Any], baseline: str | Tensor) -> Players:
    """The players of a kind in a computation graph; ``graph`` is the whole graph.

    Raises:
        ValueError: an unknown kind or option.
    """
    if kind not in KINDS:
        raise ValueError(f"graph players are {', '.join(KINDS)}; {came(kind, KINDS)}")
    allowed = _OPTIONS.get(kind, set())
    if unknown := set(options) - allowed:
        raise ValueError(f"players({kind!r}) takes {sorted(allowed) or 'no options'}, {came(min(unknown), allowed)}")
    edges = place.edges[_playing(place, kind, options)].sort().values.cpu()
    if kind == "motifs" or options.get("undirected"):
        edges = _with_twins(edges, place, graph)
    geometry = {
        "edge_index": graph.flat_edges.cpu()[:, edges],
        "focus": place.nodes[place.flat_focus().to(place.nodes.device)].cpu(),
    }
    if kind == "nodes":
        return _node_players(place, graph, geometry)
    if kind == "edges":
        return _edge_players(edges, graph, geometry, bool(options.get("undirected", False)))
    if kind == "relations":
        return relation_players(edges, graph, geometry)
    if kind == "motifs":
        return motif_players(edges, graph, geometry, options.get("motifs"))
    if kind == "edge_features":
        return _edge_feature_players(place, graph, baseline)
    if kind == "node_features":
        found = _node_feature_players(place, graph, geometry, baseline)
    else:
        found = _feature_players(place, graph, baseline, bool(options.get("all", False)))
    return found if options.get("size") is None else _windows(found, options["size"])


def _windows(players: Players, size: Any) -> Players:
    """Players of columns as players of ``size`` adjacent columns each, such as the lags of a series.

    Raises:
        ValueError: no whole number of columns.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be how many adjacent columns are one player, from 1 on, got {size!r}")
    rows = players.index if players.index.dim() > 1 else players.index[:, None]
    keys = torch.cat([rows[:, :-1], rows[:, -1:] // size], 1)
    _, owner = torch.unique(keys, dim=0, return_inverse=True)
    firsts = [int((owner == player).nonzero()[0]) for player in range(int(owner.max()) + 1)] if len(owner) else []
    order = sorted(range(len(firsts)), key=lambda player: firsts[player])
    groups = tuple(players.index[owner == player] for player in order)
    names = tuple(_window_name(players, (owner == player).nonzero().view(-1)) for player in order)
    kept = torch.tensor([firsts[player] for player in order], dtype=torch.long)
    geometry = dict(players.geometry)
    if "node" in geometry:
        geometry["node"] = geometry["node"][kept]
    return Players(players.kind, players.index[kept], names, groups, geometry)


def _window_name(players: Players, members: Tensor) -> str:
    """The name of the first column, up to the last where there are several: "lag 3–1" of "lag 3" and "lag 1"."""
    first, last = players.names[int(members[0])], players.names[int(members[-1])]
    if len(members) == 1:
        return first
    words = last.split(" ")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first.split(" "), words, strict=False)))
    return f"{first}–{' '.join(words[min(shared, len(words) - 1) :])}"


def _playing(place: Place, kind: str, options: dict[str, Any]) -> Tensor:
    """The edges of a place that play, or are shown with nodes and features; bool ``[e]``.

    Those that only count in a degree are edges whose removal changes the number: they play wherever that adds no
    player, and as players of their own as long as the default budget of coalitions serves all.
    """
    if kind in ("relations", "motifs") and not (kind == "motifs" and options.get("motifs") is None):
        return place.matters
    if kind not in ("edges", "motifs"):
        return place.reachable
    degrees = options.get("degrees")
    return place.matters if degrees or (degrees is None and not crowded(place)) else place.reachable


def crowded(place: Place) -> bool:
    """Whether edges that only count in a degree are too many to be players of their own by default."""
    return place.degrees is not None and bool(place.degrees.any()) and int(place.matters.sum()) > AFFORDABLE


def _node_players(place: Place, graph: Structure, geometry: Fields) -> Players:
    flat = place.nodes[place.nodes >= 0].cpu()
    flat = flat[~torch.isin(flat, geometry["focus"])].sort().values
    names = tuple(node_name(graph, node) for node in flat.tolist())
    index = flat if len(graph.counts) == 1 else _typed(flat, graph.node_starts)
    return Players("nodes", index, names, geometry={**geometry, "node": flat})


def _edge_players(flat: Tensor, graph: Structure, geometry: Fields, undirected: bool) -> Players:
    ends = graph.flat_edges.cpu()[:, flat]
    arrow, groups = "→", None
    if undirected:
        pairs, owner = torch.unique(ends.sort(0).values, dim=1, return_inverse=True)
        groups = tuple(flat[owner == pair] for pair in range(pairs.size(1)))
        flat, ends, arrow = torch.stack([group[0] for group in groups]) if groups else flat, pairs, "–"
    pairs = zip(flat.tolist(), ends.t().tolist(), strict=True)
    names = tuple(
        edge_name(graph, edge) or f"{node_name(graph, u)}{arrow}{node_name(graph, v)}" for edge, (u, v) in pairs
    )
    index = flat if len(graph.edges) == 1 else _typed(flat, graph.edge_starts)
    return Players(
        "edges",
        index,
        names,
        groups,
        {**geometry, "edge_index": ends if undirected else geometry["edge_index"], "ends": ends},
    )


def _with_twins(flat: Tensor, place: Place, graph: Structure) -> Tensor:
    """These edges, and those between the same nodes whose removal changes the number as well."""
    every = place.edges[place.matters].sort().values.cpu()
    low, high = graph.flat_edges.cpu().sort(0).values
    pair = low * graph.num_nodes + high
    return every[torch.isin(pair[every], pair[flat])]


def _feature_players(place: Place, graph: Structure, baseline: str | Tensor, everything: bool) -> Players:
    """Columns of ``x``; those that nowhere near differ from their absence are left out: they cannot matter."""
    columns = []
    absent = absent_features(graph, place, baseline)
    for number, kind in enumerate(graph.counts):
        x = feature_matrix(place.graph, kind)[real_rows(place, kind)]
        moves = (x != absent[kind][:, real_rows(place, kind)]).any(0).any(0)
        kept = torch.arange(x.size(1)) if everything else moves.nonzero().view(-1).cpu()
        columns += [[number, column] for column in kept.tolist()]
    index = torch.tensor(columns, dtype=torch.long).reshape(-1, 2)
    kinds = list(graph.counts)
    names = tuple(f"{kinds[t]} {feature_name(graph, kinds[t], c)}".strip() for t, c in columns)
    return Players("features", index[:, 1] if len(kinds) == 1 else index, names)


def _node_feature_players(place: Place, graph: Structure, geometry: Fields, baseline: str | Tensor) -> Players:
    """Entries ``x[node, column]`` that differ from their absence, the explained nodes' own among them."""
    rows, absent = [], absent_features(graph, place, baseline)
    for number, kind in enumerate(graph.counts):
        real, start = real_rows(place, kind), place.graph.node_starts[kind]
        moves = (feature_matrix(place.graph, kind)[real] != absent[kind][:, real]).any(0)
        here, column = moves.nonzero().cpu().unbind(1)
        node = place.nodes[start + real].cpu()[here]
        rows.append(torch.stack([torch.full_like(node, number), node - graph.node_starts[kind], column, node], 1))
    index = torch.cat(rows)
    index = index[index[:, 3].argsort(stable=True)]
    kinds = list(graph.counts)
    names = tuple(
        f"{node_name(graph, node)} {feature_name(graph, kinds[number], column)}"
        for number, _, column, node in index.tolist()
    )
    short = index[:, 1:3] if len(graph.counts) == 1 else index[:, :3]
    return Players("node_features", short, names, geometry={**geometry, "node": index[:, 3]})


def _edge_feature_players(place: Place, graph: Structure, baseline: str | Tensor) -> Players:
    """Columns of ``edge_attr`` that differ from their absence on an edge that reaches the explained nodes.

    Raises:
        ValueError: the model reads no floating-point edge features.
    """
    columns, absent = [], absent_edge_features(graph, place, baseline)
    for number, kind in enumerate(graph.edges):
        start = place.graph.edge_starts[kind]
        reaches = place.reachable[start : start + place.graph.edges[kind].size(1)]
        moves = (edge_matrix(place.graph, kind)[reaches] != absent[kind][:, reaches]).any(0).any(0)
        columns += [[number, column] for column in moves.nonzero().view(-1).tolist()]
    if not sum(edge_matrix(graph, kind).size(1) for kind in graph.edges):
        raise ValueError("the model reads no floating-point edge_attr or edge_weight: there are no edge features")
    index = torch.tensor(columns, dtype=torch.long).reshape(-1, 2)
    if len(graph.edges) == 1:
        return Players("edge_features", index[:, 1])
    kinds = ["-".join(kind) for kind in graph.edges]
    return Players("edge_features", index, tuple(f"{kinds[t]} feature {c}" for t, c in columns))


def _typed(flat: Tensor, starts: dict[Any, int]) -> Tensor:
    """Flat numbers as rows (type, number within the type)."""
    firsts = torch.tensor(list(starts.values()))
    kind = torch.searchsorted(firsts, flat, right=True) - 1
    return torch.stack([kind, flat - firsts[kind]], 1)


def _flat(index: Tensor, starts: Sequence[int]) -> Tensor:
    return index if index.dim() == 1 else torch.tensor(starts)[index[:, 0]] + index[:, 1]


def owners(players: Players, place: Place, graph: Structure) -> Tensor:
    """For each edge, node or feature column of a place, the player that owns it; ``P`` for none.

    Raises:
        ValueError: an atom that is not in the computation graph, or that two players own.
    """
    known = _known(players.kind, place, graph)
    flat = _flat_atoms(players, graph)
    atoms = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.long)
    owner = torch.repeat_interleave(
        torch.arange(len(flat)), torch.tensor([len(group) for group in flat], dtype=torch.long)
    )
    if len(atoms.unique()) != len(atoms):
        raise ValueError(f"two players own the same one of the {players.kind}: each belongs to one player")
    order = known.argsort()
    place_of = torch.searchsorted(known[order], atoms).clamp(max=max(len(known) - 1, 0))
    outside = atoms if not len(known) else atoms[known[order][place_of] != atoms]
    if len(outside):
        raise ValueError(
            f"{players.kind} {outside[:5].tolist()} are outside this target's computation graph: "
            f"take target.players({players.kind!r})"
        )
    found = torch.full((len(known),), len(players), dtype=torch.long)
    found[order[place_of]] = owner
    return found.to(place.nodes.device)


def _known(kind: str, place: Place, graph: Structure) -> Tensor:
    """The flat number, in the whole graph, of each atom of the place, -1 where none may own it; int64, on the CPU."""
    atoms = ATOMS.get(kind, kind)
    if atoms == "edges":
        return place.edges.cpu()
    if atoms == "nodes":  # the explained nodes always stay
        return place.nodes.cpu().index_fill(0, place.flat_focus(), -1)
    if atoms == "node_features":
        return known_entries(place, graph)
    return torch.arange(sum(_widths(kind, graph)))


def known_entries(place: Place, graph: Structure) -> Tensor:
    """The flat number of each entry of the place's feature matrices, type by type and row by row, -1 in stand-ins."""
    found, first = [], 0
    for kind, size in graph.counts.items():
        width, start = feature_matrix(graph, kind).size(1), place.graph.node_starts[kind]
        node = place.nodes[start : start + place.graph.counts[kind]].cpu()[:, None]
        entry = first + (node - graph.node_starts[kind]) * width + torch.arange(width)
        found.append(torch.where(node >= 0, entry, -1).reshape(-1))
        first += size * width
    return torch.cat(found)


def _flat_atoms(players: Players, graph: Structure) -> list[Tensor]:
    """The atoms of each player by their flat numbers."""
    groups = players.groups or players.index.split(1)
    atoms = ATOMS.get(players.kind, players.kind)
    if atoms == "node_features":
        return [_flat_entry(group, graph) for group in groups]
    if atoms in ("edges", "nodes"):
        starts = list((graph.edge_starts if atoms == "edges" else graph.node_starts).values())
    else:
        starts = [0, *torch.tensor(_widths(players.kind, graph)).cumsum(0).tolist()[:-1]]
    return [_flat(group if group.dim() else group[None], starts) for group in groups]


def _flat_entry(index: Tensor, graph: Structure) -> Tensor:
    """Rows (node, column), or (type, node, column), as one number."""
    typed = index if index.size(1) == 3 else torch.cat([torch.zeros_like(index[:, :1]), index], 1)
    widths = torch.tensor([feature_matrix(graph, kind).size(1) for kind in graph.counts])
    starts = torch.cat([widths.new_zeros(1), (widths * torch.tensor(list(graph.counts.values()))).cumsum(0)[:-1]])
    return starts[typed[:, 0]] + typed[:, 1] * widths[typed[:, 0]] + typed[:, 2]


def _widths(kind: str, graph: Structure) -> list[int]:
    """Columns of the feature matrix of each type of nodes, or edges."""
    if kind == "edge_features":
        return [edge_matrix(graph, each).size(1) for each in graph.edges]
    return [feature_matrix(graph, each).size(1) for each in graph.counts]
