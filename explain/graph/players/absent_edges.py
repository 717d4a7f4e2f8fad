"""Edges that a graph does not have, as players of what would be if it had them."""

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
        ValueError: a node or field that is not there, an edge that is, or one that is given twice.
    """
    if len(graph.edges) != 1 or len(graph.counts) != 1:
        raise Unsupported("edges are added to graphs of one type of nodes and one of edges: this one has more")
    groups = _groups(ends, graph.num_nodes)
    both = _both_ways(graph) if undirected is None else undirected
    given, owner = torch.cat(groups, 1), torch.arange(len(groups)).repeat_interleave(_sizes(groups))
    rows = torch.arange(given.size(1))
    added = given
    if both:
        twins = given[0] != given[1]  # a loop has no other direction
        added = torch.cat([given, given[:, twins].flip(0)], 1)
        owner, rows = torch.cat([owner, owner[twins]]), torch.cat([rows, rows[twins]])
    _check_new(graph, added)
    told = {f"added_{name}": value[rows] for name, value in _fields(graph, fields, given.size(1)).items()}
    first = torch.stack([group[:, 0] for group in groups], 1)
    arrow = "–" if both else "→"
    names = tuple(
        " + ".join(arrow.join(node_name(graph, node) for node in pair) for pair in group.T.tolist()) for group in groups
    )
    geometry = {"edge_index": first, "ends": first, "added": added, "owner": owner, **told}
    return Players(ABSENT_EDGES, torch.arange(len(groups)), names, None, geometry)


def with_absent_edges(graph: Structure, players: Players) -> Structure:
    """The graph with the edges of all players, behind its own."""
    (kind, own), added = next(iter(graph.edges.items())), players.geometry
    fields = {
        name: torch.cat([field, added[f"added_{name}"].to(field)]) for name, field in graph.edge_fields[kind].items()
    }
    names = Names(graph.names.nodes, {}, graph.names.features)
    edges = {kind: torch.cat([own, added["added"].to(own)], 1)}
    return replace(graph, edges=edges, edge_fields={kind: fields}, names=names)


def _groups(ends: Any, nodes: int) -> list[Tensor]:
    several = isinstance(ends, Sequence) and all(isinstance(group, Tensor) and group.dim() == 2 for group in ends)
    groups = [torch.as_tensor(group).cpu() for group in (ends if several else [ends])]
    for group in groups:
        if group.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"edges to add must be whole numbers, [2, edges], got {group.dtype} {list(group.shape)}")
        if group.dim() != 2 or len(group) != 2 or not group.size(1):
            raise ValueError(
                f"edges to add must be [2, edges], at least one, or a list of such groups, got {list(group.shape)}"
            )
        if not 0 <= int(group.min()) <= int(group.max()) < nodes:
            span = f"{int(group.min())} to {int(group.max())}"
            raise ValueError(f"edges to add must be between nodes from 0 to {nodes - 1}, got {span}")
    if not groups:
        raise ValueError("edges to add: none were given")
    return [group.long() for group in (groups if several else groups[0].split(1, 1))]


def _sizes(groups: list[Tensor]) -> Tensor:
    return torch.tensor([group.size(1) for group in groups])


def _codes(graph: Structure, edges: Tensor) -> Tensor:
    return edges[0] * graph.num_nodes + edges[1]


def _both_ways(graph: Structure) -> bool:
    edges = graph.flat_edges.cpu()
    return torch.equal(_codes(graph, edges).unique(), _codes(graph, edges.flip(0)).unique())


def _check_new(graph: Structure, added: Tensor) -> None:
    """Check that none is there and none is given twice.

    Raises:
        ValueError: one is.
    """
    codes, here = _codes(graph, added), _codes(graph, graph.flat_edges.cpu())
    there = torch.isin(codes, here)
    if there.any():
        u, v = added[:, there][:, 0].tolist()
        raise ValueError(f"edge {u}→{v} is in the graph: ask what it is worth with remove=")
    if len(codes.unique()) < len(codes):
        found, times = codes.unique(return_counts=True)
        u, v = divmod(int(found[times > 1][0]), graph.num_nodes)
        raise ValueError(f"edge {u}→{v} is added twice: each belongs to one player (undirected=False: one direction)")


def _fields(graph: Structure, given: Mapping[str, Any], edges: int) -> Fields:
    """What each given edge has of each field of the graph's edges.

    Raises:
        ValueError: a field is missing, not known, or has another shape.
    """
    (known,) = graph.edge_fields.values()
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
