"""Edges that a graph does not have, and edits that add such edges and take others out, as players of what would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from explain.graph.players.naming import node_name
from explain.graph.tensors.structure import Fields, Names, Structure
from explain.types import Players, Unsupported

ABSENT_EDGES = "absent_edges"
EDGE_EDITS = "edge_edits"


def absent_edges(graph: Structure, ends: Any, undirected: bool | None = None, **fields: Any) -> Players:
    """A player for each edge, or for each group of edges, that could be added to a graph.

    Args:
        graph: of one type of nodes and of edges.
        ends: int64 ``[2, k]``, from and to, a player each; or a list of such, each a group that is one player.
        undirected: whether both directions of each are added; None: where the graph has both of all its edges.
        fields: what the new edges have of the fields that the graph's edges have, ``[edges, ...]`` in their order.

    Raises:
        Unsupported: a graph with types.
        TypeError: ends that are not whole numbers.
        ValueError: a node or field that is not there, an edge that is, or one that a player has twice.
    """
    return replace(edge_edits(graph, ends, None, undirected, **fields), kind=ABSENT_EDGES)


def edge_edits(
    graph: Structure, add: Any = None, remove: Any = None, undirected: bool | None = None, **fields: Any
) -> Players:
    """A player for each edit of a graph, which adds edges, takes some out, or both; edits may share edges.

    Args:
        graph: of one type of nodes and of edges.
        add: int64 ``[2, k]``, from and to, an edit each; or a list of such, all of an edit; None: nothing is added.
        remove: edges that are there, likewise, in as many edits; None: nothing is taken out.
        undirected: whether both directions of each are meant; None: where the graph has both of all its edges.
        fields: what the new edges have of the fields that the graph's edges have, ``[edges, ...]`` in their order.

    Raises:
        Unsupported: a graph with types.
        TypeError: ends that are not whole numbers.
        ValueError: a node or field that is not there, an edge to add that is or to remove that is not, one that an edit
            has twice, or unlike numbers of edits.
    """
    if len(graph.edges) != 1 or len(graph.counts) != 1:
        raise Unsupported("edges are added to graphs of one type of nodes and one of edges: this one has more")
    asked = {
        what: _groups(ends, graph.num_nodes, what)
        for what, ends in (("add", add), ("remove", remove))
        if ends is not None
    }
    if not asked:
        raise ValueError("edits of edges: none were given, neither to add nor to remove")
    if len({len(groups) for groups in asked.values()}) > 1:
        raise ValueError(
            f"edits that add and remove need as many of each, got {len(asked['add'])} and {len(asked['remove'])}"
        )
    both = _both_ways(graph) if undirected is None else undirected
    new, owner, rows = _directed(asked.get("add", []), both)
    gone, gone_owner, _ = _directed(asked.get("remove", []), both)
    _check_new(graph, new, owner)
    told = {
        f"added_{name}": value[rows]
        for name, value in _fields(graph, fields, sum(_sizes(asked.get("add", [])))).items()
    }
    names = tuple(
        " ".join(words)
        for words in zip(
            *(_words(graph, what, groups, both, len(asked) > 1 or what == "remove") for what, groups in asked.items()),
            strict=True,
        )
    )
    first = torch.stack([group[:, 0] for group in next(iter(asked.values()))], 1)
    edges, players = _found(graph, gone, gone_owner)
    geometry = {
        "edge_index": first,
        "ends": first,
        "added": new,
        "owner": owner,
        "gone": edges,
        "gone_owner": players,
        **told,
    }
    return Players(EDGE_EDITS, torch.arange(first.size(1)), names, None, geometry)


def with_absent_edges(graph: Structure, players: Players) -> Structure:
    """The graph with the edges that all players add, behind its own; an edge that two add is there twice."""
    (kind, own), added = next(iter(graph.edges.items())), players.geometry
    fields = {
        name: torch.cat([field, added[f"added_{name}"].to(field)]) if added["added"].numel() else field
        for name, field in graph.edge_fields[kind].items()
    }
    names = Names(graph.names.nodes, {}, graph.names.features)
    edges = {kind: torch.cat([own, added["added"].to(own)], 1)}
    return replace(graph, edges=edges, edge_fields={kind: fields}, names=names)


def _directed(groups: list[Tensor], both: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Each edge ``[2, m]`` with its other direction where both are meant; its player, and the one given that it is."""
    given = torch.cat([torch.zeros(2, 0, dtype=torch.long), *groups], 1)
    owner = torch.arange(len(groups)).repeat_interleave(torch.tensor(_sizes(groups), dtype=torch.long))
    rows = torch.arange(given.size(1))
    if not both:
        return given, owner, rows
    twins = given[0] != given[1]  # a loop has no other direction
    return (
        torch.cat([given, given[:, twins].flip(0)], 1),
        torch.cat([owner, owner[twins]]),
        torch.cat([rows, rows[twins]]),
    )


def _words(graph: Structure, what: str, groups: list[Tensor], both: bool, signed: bool) -> list[str]:
    """What each player adds, or takes out: "0–5 + 2–7", or "+ 0–5 − 3–4" where there is both."""
    arrow, sign = "–" if both else "→", "+" if what == "add" else "−"
    each = [[arrow.join(node_name(graph, node) for node in pair) for pair in group.T.tolist()] for group in groups]
    return [f"{sign} " * signed + f" {sign} ".join(names) for names in each]


def _groups(ends: Any, nodes: int, what: str) -> list[Tensor]:
    several = isinstance(ends, Sequence) and all(isinstance(group, Tensor) and group.dim() == 2 for group in ends)
    groups = [torch.as_tensor(group).cpu() for group in (ends if several else [ends])]
    for group in groups:
        if group.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"edges to {what} must be whole numbers, [2, edges], got {group.dtype} {list(group.shape)}")
        if group.dim() != 2 or len(group) != 2 or not group.size(1):
            raise ValueError(
                f"edges to {what} must be [2, edges], at least one, or a list of such groups, got {list(group.shape)}"
            )
        if not 0 <= int(group.min()) <= int(group.max()) < nodes:
            span = f"{int(group.min())} to {int(group.max())}"
            raise ValueError(f"edges to {what} must be between nodes from 0 to {nodes - 1}, got {span}")
    if not groups:
        raise ValueError(f"edges to {what}: none were given")
    return [group.long() for group in (groups if several else groups[0].split(1, 1))]


def _sizes(groups: list[Tensor]) -> list[int]:
    return [group.size(1) for group in groups]


def _codes(graph: Structure, edges: Tensor) -> Tensor:
    return edges[0] * graph.num_nodes + edges[1]


def _both_ways(graph: Structure) -> bool:
    edges = graph.flat_edges.cpu()
    return torch.equal(_codes(graph, edges).unique(), _codes(graph, edges.flip(0)).unique())


def _check_new(graph: Structure, added: Tensor, owner: Tensor) -> None:
    """Check that none is there and that no player has one twice.

    Raises:
        ValueError: one is.
    """
    there = torch.isin(_codes(graph, added), _codes(graph, graph.flat_edges.cpu()))
    if there.any():
        u, v = added[:, there][:, 0].tolist()
        raise ValueError(f"edge {u}→{v} is in the graph: ask what it is worth with remove=")
    _check_once(added, owner, "added")


def _check_once(edges: Tensor, owner: Tensor, what: str) -> None:
    found, times = torch.cat([edges, owner[None]]).unique(dim=1, return_counts=True)
    if (times > 1).any():
        u, v, _ = found[:, times > 1][:, 0].tolist()
        raise ValueError(f"edge {u}→{v} is {what} twice by one player (undirected=False: one direction)")


def _found(graph: Structure, gone: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Every edge of the graph between these ends ``[2, m]``, and the player that takes it out.

    Raises:
        ValueError: an edge that is not there, or twice of one player.
    """
    _check_once(gone, owner, "removed")
    codes, here = _codes(graph, gone), _codes(graph, graph.flat_edges.cpu())
    known, order = here.sort(stable=True)
    first, last = torch.searchsorted(known, codes), torch.searchsorted(known, codes, right=True)
    if (first == last).any():
        u, v = gone[:, first == last][:, 0].tolist()
        raise ValueError(f"edge {u}→{v} is not in the graph: ask what it would be worth with add=")
    counts = last - first  # parallel edges go together
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[first.repeat_interleave(counts) + within], owner.repeat_interleave(counts)


def _fields(graph: Structure, given: Mapping[str, Any], edges: int) -> Fields:
    """What each given edge has of each field of the graph's edges.

    Raises:
        ValueError: a field is missing, not known, or has another shape.
    """
    (known,) = graph.edge_fields.values()
    if not edges and not given:
        return {}
    if set(given) != set(known):
        lacking, strange = sorted(set(known) - set(given)), sorted(set(given) - set(known))
        what = f"edges of this graph have {', '.join(lacking)}" if lacking else f"no edge here has {strange[0]}"
        told = ", ".join(f"{name}=..." for name in sorted(known))
        raise ValueError(f'{what}: give target.players("{ABSENT_EDGES}", ends=...{", " + told if told else ""})')
    made = {name: torch.as_tensor(value).cpu() for name, value in given.items()}
    for name, value in made.items():
        shape = [edges, *known[name].shape[1:]]
        if list(value.shape) != shape:
            raise ValueError(f"{name} of {edges} edges must be {shape}, got {list(value.shape)}")
    return made
