"""Players that own several edges: the relations of a graph, and its motifs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx as nx
import torch
from torch import Tensor

from explain.graph.players.naming import node_name
from explain.graph.tensors.structure import EDGE, Fields, Structure
from explain.payoffs import whole_number
from explain.types import Players

_NAMED = 8  # nodes that a motif's name lists


def relation_players(flat: Tensor, graph: Structure, geometry: Fields) -> Players:
    """Relations of a heterogeneous graph by edge type, of a homogeneous one by its field ``edge_type``.

    ``flat``: the edges that matter. A relation owns those of its type; one without any does not play.

    Raises:
        ValueError: edges without types.
    """
    names = ["-".join(kind) for kind in graph.edges]
    if EDGE not in graph.edges:
        firsts = torch.tensor(list(graph.edge_starts.values()))
        relation = torch.searchsorted(firsts, flat, right=True) - 1
    else:
        fields = next(iter(graph.edge_fields.values()))
        if "edge_type" not in fields:
            raise ValueError(
                "relations need typed edges: a HeteroData, or edge_type [edges] in the data, which the model reads"
            )
        relation = fields["edge_type"].reshape(-1).cpu()[flat].long()
        names = [f"relation {i}" for i in range(int(relation.max()) + 1 if len(relation) else 0)]
    index = relation.unique()
    groups = tuple(flat[relation == each] for each in index.tolist())
    return Players("relations", index, tuple(names[i] for i in index.tolist()), groups, _drawn(flat, groups, geometry))


def motif_players(
    flat: Tensor, graph: Structure, geometry: Fields, motifs: Iterable[Iterable[int]] | None = None
) -> Players:
    """Groups of edges that stand or fall together.

    ``flat``: the edges that matter. With ``motifs``, node sets (flat numbers): each owns the edges among its nodes, all
    other edges stay. Without: the blocks of the graph (its biconnected components): ring systems whole, and every
    bridge by itself, so that each edge belongs to exactly one.

    Raises:
        TypeError: motifs that are no sets of whole numbers.
        ValueError: motifs that share an edge, or one without an edge that can reach the explained nodes.
    """
    ends = graph.flat_edges.cpu()[:, flat]
    if motifs is None:
        sets = _blocks(ends)
    else:
        sets = [_node_set(motif, graph.num_nodes) for motif in motifs]
    groups = [flat[_among(ends, nodes)] for nodes in sets]
    if motifs is None:  # a loop lies in every block at its node; it is a block of its own
        loops = ends[0] == ends[1]
        groups = [group[~torch.isin(group, flat[loops])] for group in groups]
        groups += [flat[i : i + 1] for i in loops.nonzero().view(-1).tolist()]
        sets += [frozenset({int(node)}) for node in ends[0][loops].tolist()]
    for nodes, group in zip(sets, groups, strict=True):
        if not len(group):
            raise ValueError(
                f"motif {sorted(nodes)} has no edge that can reach the explained node: leave it out, or take nodes of "
                'target.players("nodes")'
            )
    if len(groups) and len(torch.cat(groups)) != len(torch.cat(groups).unique()):
        raise ValueError("two motifs share an edge: each edge belongs to one player; join them")
    order = sorted(range(len(groups)), key=lambda i: int(groups[i][0]))
    names = tuple(_name(sets[i], graph) for i in order)
    groups = [groups[i] for i in order]
    return Players("motifs", torch.arange(len(order)), names, tuple(groups), _drawn(flat, groups, geometry))


def _node_set(motif: Iterable[int], count: int) -> frozenset[int]:
    numbers = [whole_number(node) for node in motif] if isinstance(motif, Iterable) else [None]
    nodes = frozenset(number for number in numbers if number is not None)
    if None in numbers:
        raise TypeError(f"motifs must be sets of node numbers, such as [{{0, 1, 2}}, {{2, 3}}]; one is {motif!r}")
    if outside := [node for node in nodes if not 0 <= node < count]:
        raise ValueError(f"motifs must hold node numbers from 0 to {count - 1}, got {sorted(outside)}")
    return nodes


def _name(nodes: frozenset[int], graph: Structure) -> str:
    listed = sorted(nodes)
    few = "–".join(node_name(graph, node) for node in listed[:_NAMED])
    return few if len(listed) <= _NAMED else f"{few}–… ({len(listed)} nodes)"


def _drawn(drawn: Tensor, groups: Sequence[Tensor], geometry: Fields) -> Fields:
    """The geometry with ``owner [C]``: the player of each drawn edge, -1 for none."""
    owner = torch.full_like(drawn, -1)
    for player, group in enumerate(groups):
        owner[torch.isin(drawn, group)] = player
    return {**geometry, "owner": owner}


def _blocks(ends: Tensor) -> list[frozenset[int]]:
    """The node sets of the biconnected components."""
    undirected = nx.Graph()
    undirected.add_edges_from((u, v) for u, v in ends.t().tolist() if u != v)
    return [frozenset(nodes) for nodes in nx.biconnected_components(undirected)]


def _among(ends: Tensor, nodes: frozenset[int]) -> Tensor:
    members = torch.tensor(sorted(nodes), dtype=torch.long)
    return torch.isin(ends[0], members) & torch.isin(ends[1], members)
