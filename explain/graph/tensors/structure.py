"""A graph as plain tensors, typed or not, and many edited copies of it side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from explain.graph.tensors.incidence import Incidence, incidence

Fields: TypeAlias = dict[str, Tensor]
EdgeType: TypeAlias = tuple[str, str, str]

NODE = ""  # the only node type and edge type of a homogeneous graph
EDGE = (NODE, "", NODE)
BESIDE = 32  # numbers that an edge, or a node beside its fields, is counted for where memory is shared out
EDGE_FIELDS = ("edge_attr", "edge_weight")  # what features of an edge are called; the first that is there


@dataclass(frozen=True)
class Names:
    """What nodes, edges and columns of ``x`` are called, by type; what is not there goes by its number."""

    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    edges: Mapping[EdgeType, tuple[str, ...]] = field(default_factory=dict)
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Structure:
    """Nodes and edges by type; features are the node field ``x [nodes, features]``.

    ``counts``: nodes of each type. ``nodes``, ``edge_fields``: tensors with one row a node or edge. ``edges``: int64
    ``[2, edges]``, numbered within their types. ``shared``: one row a graph. *Flat* numbers count through all types in
    order; in a homogeneous graph they are the usual ones. ``graphs``: how many were batched into this one, where nodes
    have a field ``batch`` that says which of them they are of. ``plain``: what is read beside tensors, and no edit
    changes. ``names``: of the whole graph's nodes, edges and features, which copies and cuts do not carry.
    """

    counts: dict[str, int]
    nodes: dict[str, Fields]
    edges: dict[EdgeType, Tensor]
    edge_fields: dict[EdgeType, Fields]
    shared: Fields
    graphs: int = 1
    plain: Mapping[str, Any] = field(default_factory=dict)
    names: Names = field(default_factory=Names)

    @cached_property
    def node_starts(self) -> dict[str, int]:
        """Flat number of each type's first node."""
        return _starts(self.counts)

    @cached_property
    def edge_starts(self) -> dict[EdgeType, int]:
        """Flat number of each type's first edge."""
        return _starts({kind: edges.size(1) for kind, edges in self.edges.items()})

    @property
    def num_nodes(self) -> int:
        """Nodes of all types."""
        return sum(self.counts.values())

    @property
    def num_edges(self) -> int:
        """Edges of all types."""
        return sum(edges.size(1) for edges in self.edges.values())

    @property
    def footprint(self) -> int:
        """About how many numbers a forward pass on it holds at once: so many copies are made as memory has room for."""
        fields = sum(field.numel() for fields in self.nodes.values() for field in fields.values())
        return fields + BESIDE * (self.num_nodes + self.num_edges)

    @cached_property
    def flat_edges(self) -> Tensor:
        """All edges in flat node numbers, int64 ``[2, E]``."""
        if len(self.edges) == 1 and not any(self.node_starts.values()):
            return next(iter(self.edges.values()))
        parts = [
            edges + torch.tensor([[self.node_starts[kind[0]]], [self.node_starts[kind[2]]]], device=edges.device)
            for kind, edges in self.edges.items()
        ]
        return torch.cat(parts, 1) if parts else torch.zeros(2, 0, dtype=torch.long)

    @cached_property
    def into(self) -> Incidence:
        """Edges by the node that they lead to, flat numbers."""
        return incidence(self.flat_edges[1], self.num_nodes)

    @cached_property
    def out_of(self) -> Incidence:
        """Edges by the node that they come from, flat numbers."""
        return incidence(self.flat_edges[0], self.num_nodes)

    def edge_field(self, kind: EdgeType) -> str | None:
        """The name of the floating-point field that an edge type's features are, if it has one."""
        fields = self.edge_fields[kind]
        return next((name for name in EDGE_FIELDS if name in fields and fields[name].is_floating_point()), None)

    def with_features(self, features: Fields) -> Structure:
        """The same graph with other ``x``, given by node type."""
        return replace(self, nodes={kind: {**fields, **_named(features, kind)} for kind, fields in self.nodes.items()})


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of one graph as one block-diagonal graph; ``owner [nodes]`` says which copy a node belongs to."""

    structure: Structure
    owner: dict[str, Tensor]
    count: int
    numbers: Fields = field(
        default_factory=dict
    )  # by node type, where nodes were taken out: new number of each old row

    @property
    def num_graphs(self) -> int:
        """Graphs of all copies: of each as many as were batched into it."""
        return self.count * self.structure.graphs

    @property
    def batch(self) -> dict[str, Tensor]:
        """By type, the graph that each node is of: the data's own ``batch``, counted on from copy to copy."""
        return {kind: self._graph_of(kind, owner) for kind, owner in self.owner.items()}

    def _graph_of(self, kind: str, owner: Tensor) -> Tensor:
        own = self.structure.nodes[kind].get("batch")
        if own is None:
            return owner if self.structure.graphs == 1 else owner * self.structure.graphs
        return owner * self.structure.graphs + own if self.count > 1 and says_graphs(own) else own

    @property
    def starts(self) -> dict[str, Tensor]:
        """By type, where each graph's nodes begin, and where the last one's end, int64 ``[num_graphs + 1]``."""
        numbered = {kind: batch if says_graphs(batch) else self.owner[kind] for kind, batch in self.batch.items()}
        sizes = {kind: torch.bincount(batch, minlength=self.num_graphs) for kind, batch in numbered.items()}
        return {kind: torch.cat([each.new_zeros(1), each.cumsum(0)]) for kind, each in sizes.items()}

    def rows(self, kind: str, node: int, size: int) -> Tensor:
        """The row in each copy of a node, of which a complete copy has ``size``; int64 ``[count]``."""
        rows = node + size * torch.arange(self.count, device=self.owner[kind].device)
        return self.numbers[kind][rows] if kind in self.numbers else rows


def copies(
    graph: Structure,
    count: int,
    *,
    edge_keep: Tensor | None = None,
    node_keep: Tensor | None = None,
    features: Fields | None = None,
    edge_features: dict[EdgeType, Tensor] | None = None,
) -> Copies:
    """``count`` copies side by side, each with its own missing edges, missing nodes and features.

    Args:
        graph: the graph to copy.
        count: how many.
        edge_keep: bool ``[count, E]`` by flat edge number; False takes the edge out.
        node_keep: bool ``[count, N]`` by flat node number; False takes the row out, with its edges.
        features: by node type, ``[count, nodes, features]`` in place of ``x``.
        edge_features: by edge type, ``[count, edges, columns]`` in place of ``edge_attr`` or ``edge_weight``.
    """
    if node_keep is not None:
        ends = node_keep[:, graph.flat_edges[0]] & node_keep[:, graph.flat_edges[1]]
        edge_keep = ends if edge_keep is None else edge_keep & ends
    device = graph.flat_edges.device
    nodes, owners, counts = {}, {}, {}
    numbers: Fields = {}
    for kind, size in graph.counts.items():
        start = graph.node_starts[kind]
        owner, chosen = _chosen(None if node_keep is None else node_keep[:, start : start + size], count, size, device)
        fields = {name: _take(field, chosen, count) for name, field in graph.nodes[kind].items()}
        if features is not None and kind in features:
            shape = fields["x"].shape[1:] if "x" in fields else features[kind].shape[2:]
            fields["x"] = features[kind].reshape(count * size, *shape)
        if chosen is not None:
            rows = owner * size + chosen
            numbers[kind] = torch.empty(count * size, dtype=torch.long, device=device)
            numbers[kind][rows] = torch.arange(len(rows), device=device)
            if features is not None and kind in features:
                fields["x"] = fields["x"][rows]
        nodes[kind], owners[kind], counts[kind] = fields, owner, len(owner)
    edges: dict[EdgeType, Tensor] = {}
    edge_fields: dict[EdgeType, Fields] = {}
    for edge, index in graph.edges.items():
        start, size = graph.edge_starts[edge], index.size(1)
        owner, chosen = _chosen(None if edge_keep is None else edge_keep[:, start : start + size], count, size, device)
        edges[edge] = _offset(index, owner, chosen, (graph.counts[edge[0]], graph.counts[edge[2]]))
        edge_fields[edge] = {name: _take(field, chosen, count) for name, field in graph.edge_fields[edge].items()}
        name = graph.edge_field(edge)
        if edge_features is not None and edge in edge_features and name is not None:
            given = edge_features[edge].reshape(count * size, *graph.edge_fields[edge][name].shape[1:])
            edge_fields[edge][name] = given if chosen is None else given[owner * size + chosen]
        if numbers:
            edges[edge] = torch.stack([numbers[edge[0]][edges[edge][0]], numbers[edge[2]][edges[edge][1]]])
    shared = {name: _take(field, None, count) for name, field in graph.shared.items()}
    made = replace(graph, counts=counts, nodes=nodes, edges=edges, edge_fields=edge_fields, shared=shared)
    return Copies(made, owners, count, numbers)


def says_graphs(batch: Tensor) -> bool:
    """Whether a field ``batch`` of the nodes numbers graphs."""
    return batch.dim() == 1 and not (batch.is_floating_point() or batch.is_complex() or batch.dtype == torch.bool)


def _chosen(keep: Tensor | None, count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The copy of each kept atom, and its number in the graph; None where all are kept."""
    if keep is None:
        return torch.arange(count, device=device).repeat_interleave(size), None
    owner, chosen = keep.nonzero(as_tuple=True)
    return owner, chosen


def _take(field: Tensor, chosen: Tensor | None, count: int) -> Tensor:
    if chosen is not None:
        return field.index_select(0, chosen)
    return field if count == 1 else field.repeat(count, *[1] * (field.dim() - 1))


def _offset(index: Tensor, owner: Tensor, chosen: Tensor | None, sizes: tuple[int, int]) -> Tensor:
    """Edges of all copies: the nodes of copy ``c`` are moved by ``c`` times the nodes of a copy."""
    if chosen is not None:
        index = index.index_select(1, chosen)
    elif len(owner) == index.size(1):  # one copy
        return index
    else:
        index = index.repeat(1, len(owner) // max(index.size(1), 1))
    return index + owner * torch.tensor(sizes, device=index.device)[:, None]


def _starts(sizes: dict) -> dict:
    starts, total = {}, 0
    for kind, size in sizes.items():
        starts[kind] = total
        total += size
    return starts


def _named(features: Fields, kind: str) -> Fields:
    return {"x": features[kind]} if kind in features else {}
