"""The border: from a torch_geometric data object to the arguments of forward, and from its output to rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from explain.graph.tensors.adjacency import Matrix, entries, in_the_order_of, is_sparse_matrix
from explain.graph.tensors.data_object import as_data
from explain.graph.tensors.recomputed import Recomputed
from explain.graph.tensors.structure import EDGE, NODE, Copies, EdgeType, Fields, Structure, says_graphs
from explain.guard import recordable
from explain.types import NonFinite

_INDEX = ("edge_index", "adj_t")
_PAIRS = ("edge_label_index", "edge_label")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Which tensors the module's forward takes: ``sources`` maps its parameters to what is given for them.

    A source is "edge_index", "adj" (dense, built from the edges), "batch", "ptr", "num_graphs", "num_nodes",
    "edge_label_index", "data" (the whole object), None, or the name of a field of the data: of nodes, edges or graphs,
    or a matrix of the graph; with ``typed``, dictionaries of these by type.

    Args:
        sources: by parameter.
        typed: whether the data is heterogeneous.
        positional: parameters that go by position.
        matrices: how matrices of the graph are built, by source; for "data" those that the object holds.
        pair_type: the edge type whose pairs are asked about, where forward wants them by type.
        plain: fields of the data that are no tensors, and read as they are.
        own: the data's own names of its features "x" and its edges "edge_index", where it calls them otherwise.
        batched: whether the data object is a batch of graphs, though it may be of one.
        of_edges: fields with a row an edge, where a graph with as many nodes as edges does not tell.
        recomputed: fields that are computed again from each copy.
    """

    sources: Mapping[str, str | None]
    typed: bool = False
    positional: tuple[str, ...] = ()
    matrices: Mapping[str, Matrix] = field(default_factory=dict)
    pair_type: EdgeType | None = None
    plain: frozenset[str] = frozenset()
    own: Mapping[str, str] = field(default_factory=dict)
    batched: bool = True
    of_edges: frozenset[str] = frozenset()
    recomputed: Recomputed | None = None

    @property
    def edges(self) -> str:
        """The field of the data that holds the edges."""
        return self.own.get("edge_index", "edge_index")

    def known(self, name: str) -> str:
        """What a field of the data is called here."""
        return next((ours for ours, own in self.own.items() if own == name), name)

    @property
    def said(self) -> dict[str, str]:
        """The sources of what is passed, by the data's own names."""
        return {name: self.own.get(source, source) for name, source in self.sources.items() if source is not None}

    @property
    def dense(self) -> bool:
        """Whether the graph enters as a dense adjacency matrix."""
        return any(matrix.kind == torch.strided for matrix in self.matrices.values())

    @property
    def whole(self) -> bool:
        """Whether forward is given the data object."""
        return "data" in self.sources.values()

    @property
    def keeps(self) -> bool:
        """Whether fields of the data are kept that no parameter is named after."""
        return self.whole or self.recomputed is not None

    def arguments(self, copies: Copies, pairs: Tensor | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The forward's arguments, by position and by name, for copies of a graph."""
        if self.recomputed is not None:
            copies = self.recomputed.of(copies, self.as_object)
        made = {name: self._source(name, source, copies, pairs) for name, source in self.sources.items()}
        first = tuple(made.pop(name) for name in takewhile(made.__contains__, self.positional))
        return first, made

    def as_object(self, copies: Copies, pairs: Tensor | None = None) -> Data | HeteroData:
        """Copies of a graph as a data object."""
        return as_data(copies, self.typed, pairs, self.matrices, self.pair_type, self.own, self.batched)

    def _source(self, name: str, source: str | None, copies: Copies, pairs: Tensor | None) -> Any:
        graph = copies.structure
        if source is None:
            return None
        if source in graph.plain:
            return graph.plain[source]
        if source in graph.shared:
            return graph.shared[source]
        if source == "edge_label_index":
            by_type = self.typed and name.endswith("_dict") and self.pair_type is not None
            return {self.pair_type: pairs} if by_type else pairs
        if source == "num_nodes":
            return dict(graph.counts) if self.typed else graph.num_nodes
        if source == "num_graphs":
            return copies.num_graphs
        if source == "ptr":
            return dict(copies.starts) if self.typed else copies.starts[NODE]
        if source == "data":
            return self.as_object(copies, pairs)
        if self.typed and source in self.matrices:
            return {kind: self.matrices[source].of(graph, kind) for kind in graph.edges}
        if self.typed:
            return {kind: value for kind, value in self._by_type(source, copies).items() if value is not None}
        if source in self.matrices:
            return self.matrices[source].of(graph)
        return next(iter(self._by_type(source, copies).values()))

    @staticmethod
    def _by_type(source: str, copies: Copies) -> dict[Any, Tensor | None]:
        graph = copies.structure
        if source == "edge_index":
            return dict(graph.edges)
        if source == "batch":
            return dict(copies.batch)
        on_edges = any(source in fields for fields in graph.edge_fields.values())
        by_type: Mapping[Any, Fields] = graph.edge_fields if on_edges else graph.nodes
        return {kind: fields.get(source) for kind, fields in by_type.items()}


def structure_of(data: Data | HeteroData, inputs: Inputs) -> Structure:
    """The data object's tensors, checked.

    Raises:
        TypeError: edges that are no whole numbers, or sparse features.
        ValueError: no nodes, an edge that points outside, or edge fields of another length.
    """
    check_indices(data)
    stores = data.node_stores if isinstance(data, HeteroData) else [data]
    counts, nodes = {}, {}
    wanted = {source for source in inputs.sources.values() if source is not None} | {"x"}
    wanted |= {"batch"} if wanted & {"ptr", "num_graphs"} else set()  # which are read off it
    for store in stores:
        kind = store._key if isinstance(data, HeteroData) else NODE
        counts[kind] = int(store.num_nodes or 0)
        nodes[kind] = {
            inputs.known(name): recordable(value)
            for name, value in store.items()
            if isinstance(value, Tensor)
            and name not in (*inputs.matrices, inputs.edges, *_PAIRS)  # even as many pairs as nodes
            and (inputs.keeps or inputs.known(name) in wanted)
            and name != "ptr"
            and name not in inputs.of_edges
            and not _numbers_nodes(name, value)
            and store.is_node_attr(name)
        }
    for name, value in ((name, value) for fields in nodes.values() for name, value in fields.items()):
        if value.layout != torch.strided:
            raise TypeError(
                f"{name} is sparse ({value.layout}), and features are replaced one by one: give data.{name}.to_dense()"
            )
    if not sum(counts.values()):
        raise ValueError("the graph is empty: it has no nodes to explain")
    edges, edge_fields = _edges_of(data, inputs, wanted)
    shared = {
        name: recordable(value)
        for name, value in (data if isinstance(data, Data) else data.stores[0]).items()
        if isinstance(value, Tensor)
        and (inputs.keeps or name in wanted)
        and inputs.known(name) not in nodes.get(NODE, {})
        and name not in (*inputs.matrices, inputs.edges)
        and name not in edge_fields.get(EDGE, {})
        and name not in (*_INDEX, *_PAIRS, "batch", "ptr")
    }
    plain = {name: value for name, value in data.stores[0].items() if name in inputs.plain}
    found = Structure(counts, nodes, edges, edge_fields, shared, _graphs(stores, nodes), plain)
    _check_edges(found)
    return found


def _graphs(stores: list[Any], nodes: Mapping[str, Fields]) -> int:
    """How many graphs were batched into the data: the last of them may have no nodes of a type, or none at all."""
    kinds = [(kind, fields["batch"]) for kind, fields in nodes.items() if "batch" in fields]
    numbered = [(kind, batch) for kind, batch in kinds if says_graphs(batch) and batch.numel()]
    starts = [store.get("ptr") for store in stores if numbered]
    sizes = [len(ptr) - 1 for ptr in starts if isinstance(ptr, Tensor)]
    return max([1, *sizes, *(int(batch.max()) + 1 for _, batch in numbered)])


def check_indices(data: Data | HeteroData) -> None:
    """Check that ``edge_index`` is a list of edges.

    Raises:
        TypeError: it is a matrix.
    """
    for store in data.edge_stores if isinstance(data, HeteroData) else [data]:
        if is_sparse_matrix(store.get("edge_index")):
            raise TypeError(
                "edge_index must be [2, edges], int64, and the data's is a sparse matrix: keep that as data.adj_t "
                "(rows are targets), which forward's edge_index is then given"
            )


def _edges_of(
    data: Data | HeteroData, inputs: Inputs, wanted: set[str]
) -> tuple[dict[EdgeType, Tensor], dict[EdgeType, Fields]]:
    edges, edge_fields = {}, {}
    for store in data.edge_stores if isinstance(data, HeteroData) else [data]:
        kind = store._key if isinstance(data, HeteroData) else EDGE
        if matrix := next((name for name in inputs.matrices if name in store), None):
            edges[kind], edge_fields[kind] = _matrix_edges(store, inputs, matrix, wanted)
            continue
        index = store.get(inputs.edges)
        if index is None and not {"edge_index", "adj"} & wanted:  # edges are made inside, from positions
            index = torch.zeros(2, 0, dtype=torch.long, device=_device(data))
        if not isinstance(index, Tensor):
            raise ValueError(
                f"the data has no edge_index [2, edges], and forward reads it: it holds {', '.join(store.keys())}"
            )
        if index.is_floating_point() or index.dtype == torch.bool:
            raise TypeError(f"edge_index must hold node numbers, int64, got {index.dtype}: use edge_index.long()")
        for name in {"edge_weight", "edge_attr", "edge_type"} & wanted:
            if isinstance(store.get(name), Tensor) and len(store[name]) != index.size(-1):
                raise ValueError(f"{name} must have one row an edge, {index.size(-1)}, got {len(store[name])}")
        edges[kind] = recordable(_plain(index).long())
        edge_fields[kind] = _edge_fields(store, inputs, wanted, index.size(-1))
    return edges, edge_fields


def _plain(index: Tensor) -> Tensor:
    """Edges as a tensor of no other kind: torch_geometric's ``EdgeIndex`` has no memory of its own to be watched."""
    as_tensor = getattr(index, "as_tensor", None)
    return index if as_tensor is None else as_tensor()


def _numbers_nodes(name: str, value: Tensor) -> bool:
    """Whether these are other edges ``[2, k]``: with as many columns as there are nodes or edges, no rows of these."""
    return "index" in name and value.dim() > 1


def _edge_fields(store: Any, inputs: Inputs, wanted: set[str], count: int) -> Fields:
    def of_edges(name: str, value: Tensor) -> bool:
        if name in inputs.of_edges and value.dim() and len(value) == count:
            return True
        if inputs.edges == "edge_index":
            return store.is_edge_attr(name) and not store.is_node_attr(name)
        return "edge" in name and len(value) == count  # torch_geometric counts the columns of edge_index

    return {
        name: recordable(value)
        for name, value in store.items()
        if isinstance(value, Tensor)
        and name not in (*_INDEX, *_PAIRS, *inputs.matrices, inputs.edges)
        and (inputs.keeps or name in wanted)
        and not _numbers_nodes(name, value)
        and of_edges(name, value)
    }


def _matrix_edges(store: Any, inputs: Inputs, name: str, wanted: set[str]) -> tuple[Tensor, Fields]:
    """The entries of a matrix as edges, those of ``edge_index`` first where it holds them, values as edge weights.

    Raises:
        ValueError: forward reads ``edge_index`` too, or features of its edges, and it holds others.
    """
    index, values = entries(store[name], inputs.matrices[name].transposed)
    index, values = recordable(index), None if values is None else recordable(values)
    stored = store.get("edge_index")
    fields: Fields = {}
    alike = False
    if isinstance(stored, Tensor):
        order = in_the_order_of(index, stored.long())
        index, values = index[:, order], values if values is None else values[order]
        alike = torch.equal(index, stored)
        fields = {
            key: each
            for key, each in _edge_fields(store, inputs, wanted, index.size(1)).items()
            if key != "edge_weight"
        }
    others = {"edge_index", "edge_weight", *fields} & wanted
    if others and not alike:
        raise ValueError(
            f"forward reads {name} and {', '.join(sorted(others))}, and {name} holds other edges than edge_index: "
            f"name one of them, explain.wrap(model, data, inputs={{...}})"
        )
    return index, (fields if alike else {}) | ({} if values is None else {"edge_weight": values})


def _device(data: Data | HeteroData) -> torch.device | None:
    return next((value.device for store in data.stores for value in store.values() if isinstance(value, Tensor)), None)


def _check_edges(graph: Structure) -> None:
    for kind, index in graph.edges.items():
        sizes = (graph.counts[kind[0]], graph.counts[kind[2]])
        if index.dim() != 2 or index.size(0) != 2:
            turned = ": give edge_index.t()" if index.dim() == 2 and index.size(1) == 2 else ""
            raise ValueError(f"edge_index must be [2, edges], got {list(index.shape)}{turned}")
        for row, size in zip(index, sizes, strict=True):
            if row.numel() and not 0 <= int(row.min()) <= int(row.max()) < size:
                low, high = int(row.min()), int(row.max())
                counted = ": counted from 1? give edge_index - 1" if (low, high) == (1, size) else ""
                raise ValueError(
                    f"edge_index points to nodes {low} to {high}, the graph has {size}, 0 to {size - 1}{counted}"
                )


def check_values(module: nn.Module, graph: Structure) -> None:
    """Check that features and parameters can meet, and that the numbers are numbers.

    Raises:
        TypeError: another floating-point type, or another device; with the remedy.
        NonFinite: NaN or infinity in a field that the model reads; labels beside them may be unknown.
    """
    parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
    for fields in (*graph.nodes.values(), *graph.edge_fields.values()):
        for name, value in fields.items():
            if parameter is not None and value.device != parameter.device:
                raise TypeError(f"{name} is on {value.device}, the model on {parameter.device}: move one with .to(...)")
            if parameter is not None and name == "x" and value.is_floating_point() and value.dtype != parameter.dtype:
                raise TypeError(f"x is {value.dtype}, the model's parameters {parameter.dtype}: convert one of them")
            if name != "y" and value.is_floating_point() and not value.isfinite().all():
                raise NonFinite(f"{name} holds NaN or infinity: clean the data before it is explained")
