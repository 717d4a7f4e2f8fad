"""The border: from a torch_geometric data object to the arguments of forward, and from its output to rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from explain.graph.structure import EDGE, NODE, Copies, Fields, Structure
from explain.guard import recordable
from explain.types import NonFinite

DENSE = ("adj", "adjacency", "A")  # forward parameters that mean a dense [nodes, nodes] matrix
_INDEX = ("edge_index", "adj_t")
_LOGITS = ("logits", "out", "output", "pred", "y_hat")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Which tensors the module's forward takes: ``sources`` maps its parameters to what is given for them.

    A source is "edge_index", "adj" (dense), "batch", "edge_label_index", "data" (the whole object), or the name of a
    node, edge or graph field of the data object; with ``typed``, dictionaries of these by type.
    """

    sources: Mapping[str, str]
    typed: bool = False
    positional: bool = False

    @property
    def dense(self) -> bool:
        """Whether the graph enters as a dense adjacency matrix."""
        return "adj" in self.sources.values()

    def arguments(self, copies: Copies, pairs: Tensor | None = None) -> dict[str, Any]:
        """The forward's arguments, by parameter name, for copies of a graph."""
        return {name: self._source(source, copies, pairs) for name, source in self.sources.items()}

    def _source(self, source: str, copies: Copies, pairs: Tensor | None) -> Any:
        graph = copies.structure
        if source == "edge_label_index":
            return pairs
        if source == "data":
            return _as_data(copies, self.typed)
        if self.typed:
            return {kind: value for kind, value in self._by_type(source, copies).items() if value is not None}
        if source == "adj":
            return _dense(graph)
        if source in graph.shared:
            return graph.shared[source]
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


def infer_inputs(
    module: nn.Module, data: Data | HeteroData, given: Mapping[str, str] | None, forward: Callable[..., Any]
) -> Inputs:
    """Read the signature of ``forward`` (the module's, or its encoder's) and find a source for each parameter.

    Raises:
        TypeError: a required parameter has no source; the message names it and the remedy, ``inputs={...}``.
    """
    typed = isinstance(data, HeteroData)
    names, optional, positional = _parameters(module, forward)
    known = _known_sources(data)
    sources: dict[str, str] = {}
    for name in names:
        source = (given or {}).get(name) or _guess(name, known, typed)
        if source is not None and (source in known or source in ("adj", "batch", "data", "edge_label_index")):
            sources[name] = source
        elif given and name in given:
            raise TypeError(f"inputs names {given[name]!r} for {name!r}, but the data holds {', '.join(sorted(known))}")
        elif name not in optional:
            raise TypeError(
                f"{type(module).__name__}.forward needs {name!r}, and the data holds {', '.join(sorted(known))}: "
                f"name its source, explain.wrap(model, data, inputs={{{name!r}: ...}})"
            )
    if unknown := set(given or ()) - set(names):
        raise TypeError(f"inputs names {sorted(unknown)}, but forward takes {', '.join(names)}")
    return Inputs(sources, typed, positional)


def structure_of(data: Data | HeteroData, inputs: Inputs) -> Structure:
    """The data object's tensors, checked.

    Raises:
        TypeError: edges that are no whole numbers.
        ValueError: no nodes, an edge that points outside, or edge fields of another length.
    """
    stores = data.node_stores if isinstance(data, HeteroData) else [data]
    counts, nodes = {}, {}
    whole = "data" in inputs.sources.values()
    wanted = set(inputs.sources.values()) | {"x"}
    for store in stores:
        kind = store._key if isinstance(data, HeteroData) else NODE
        counts[kind] = int(store.num_nodes or 0)
        nodes[kind] = {
            name: recordable(value)
            for name, value in store.items()
            if isinstance(value, Tensor) and store.is_node_attr(name) and (whole or name in wanted) and name != "y"
        }
    if not sum(counts.values()):
        raise ValueError("the graph is empty: it has no nodes to explain")
    edges, edge_fields = _edges_of(data, whole, wanted)
    shared = {
        name: recordable(value)
        for name, value in (data.items() if isinstance(data, Data) else ())
        if isinstance(value, Tensor)
        and name in wanted
        and name not in nodes.get(NODE, {})
        and name != "adj"
        and name not in edge_fields.get(EDGE, {})
        and name not in (*_INDEX, "batch", "edge_label_index")
    }
    found = Structure(counts, nodes, edges, edge_fields, shared)
    _check_edges(found)
    return found


def _edges_of(data: Data | HeteroData, whole: bool, wanted: set[str]) -> tuple[dict[Any, Tensor], dict[Any, Fields]]:
    if isinstance(data, Data) and isinstance(data.get("adj"), Tensor):
        index = data.adj.nonzero().t().contiguous()
        return {EDGE: index}, {EDGE: {"edge_weight": data.adj[index[0], index[1]]}}
    edges, edge_fields = {}, {}
    for store in data.edge_stores if isinstance(data, HeteroData) else [data]:
        kind = store._key if isinstance(data, HeteroData) else EDGE
        index = store.get("edge_index")
        if not isinstance(index, Tensor):
            raise ValueError(
                "the data has no edge_index [2, edges] (sparse adj_t is not read: keep edge_index beside it)"
            )
        if index.is_floating_point() or index.dtype == torch.bool:
            raise TypeError(f"edge_index must hold node numbers, int64, got {index.dtype}: use edge_index.long()")
        for name in {"edge_weight", "edge_attr", "edge_type"} & wanted:
            if isinstance(store.get(name), Tensor) and len(store[name]) != index.size(-1):
                raise ValueError(f"{name} must have one row an edge, {index.size(-1)}, got {len(store[name])}")
        edges[kind] = recordable(index.long())
        edge_fields[kind] = {
            name: recordable(value)
            for name, value in store.items()
            if isinstance(value, Tensor)
            and store.is_edge_attr(name)
            and not store.is_node_attr(name)
            and name not in _INDEX
            and (whole or name in wanted)
        }
    return edges, edge_fields


def _check_edges(graph: Structure) -> None:
    for kind, index in graph.edges.items():
        sizes = (graph.counts[kind[0]], graph.counts[kind[2]])
        if index.dim() != 2 or index.size(0) != 2:
            raise ValueError(f"edge_index must be [2, edges], got {list(index.shape)}")
        for row, size in zip(index, sizes, strict=True):
            if row.numel() and not 0 <= int(row.min()) <= int(row.max()) < size:
                raise ValueError(
                    f"edge_index points to nodes {int(row.min())} to {int(row.max())}, the graph has {size}"
                )


def output_rows(output: Any, node_type: str | None = None) -> Tensor:
    """The logits ``[rows, outputs]`` in whatever the forward returned: a tensor, a tuple, a dictionary.

    Raises:
        TypeError: no tensor of rows in it.
    """
    if isinstance(output, Mapping):
        keys = [key for key in ((node_type,) if node_type else ()) + _LOGITS if key in output]
        if not keys and len(output) != 1:
            raise TypeError(f"forward returned a dictionary with {list(output)}: expected one of {', '.join(_LOGITS)}")
        return output_rows(output[keys[0]] if keys else next(iter(output.values())), node_type)
    if isinstance(output, (tuple, list)):
        if not output:
            raise TypeError("forward returned an empty tuple: expected the logits first")
        return output_rows(output[0], node_type)
    if hasattr(output, "logits"):
        return output_rows(output.logits)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise TypeError(f"forward must return floating-point logits [rows, outputs], got {type(output).__name__}")
    if output.dim() == 3 and output.size(0) == 1:  # dense layers keep a batch dimension of one graph
        output = output[0]
    return output.unsqueeze(1) if output.dim() == 1 else output


def _parameters(module: nn.Module, forward: Callable[..., Any]) -> tuple[list[str], set[str], bool]:
    """Names of the forward's parameters, which of them are optional, and whether they go by position."""
    declared = getattr(getattr(module, "signature", None), "param_dict", None)  # torch_geometric.nn.Sequential
    if declared is not None:
        return list(declared), set(), True
    parameters = [
        p
        for p in inspect.signature(forward).parameters.values()
        if p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    return [p.name for p in parameters], {p.name for p in parameters if p.default is not p.empty}, False


def _known_sources(data: Data | HeteroData) -> set[str]:
    names = {name for store in data.stores for name, value in store.items() if isinstance(value, Tensor)}
    return (names | {"edge_index"}) - {"y", "train_mask", "val_mask", "test_mask", "edge_label", "adj"}


def _guess(name: str, known: set[str], typed: bool) -> str | None:
    if typed and name.endswith("_dict"):
        return _guess(name.removesuffix("_dict"), known, False)
    if name in ("data", "batch_data", "graph"):
        return "data"
    if name in DENSE:
        return "adj"
    if name in _INDEX:
        return "edge_index"
    if name in ("batch", "edge_label_index"):
        return name
    if name in ("features", "feat", "feats", "h", "node_features", "inputs") and name not in known:
        return "x" if "x" in known else None
    return name if name in known else None


def _dense(graph: Structure) -> Tensor:
    """``A[source, target]`` = edge weight or 1, as `torch_geometric.utils.to_dense_adj` builds it."""
    index = graph.edges[EDGE]
    weight = graph.edge_fields[EDGE].get("edge_weight")
    x = graph.nodes[NODE].get("x")
    dtype = x.dtype if x is not None else torch.get_default_dtype()
    values = torch.ones(index.size(1), device=index.device) if weight is None else weight
    adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=dtype, device=index.device)
    return adjacency.index_put((index[0], index[1]), values.to(dtype), accumulate=True)


def _as_data(copies: Copies, typed: bool) -> Data | HeteroData:
    graph = copies.structure
    if not typed:
        return Data(
            **graph.nodes[NODE],
            **graph.edge_fields[EDGE],
            **graph.shared,
            edge_index=graph.edges[EDGE],
            batch=copies.batch[NODE],
            num_nodes=graph.num_nodes,
        )
    data = HeteroData()
    for kind, fields in graph.nodes.items():
        for name, value in {**fields, "batch": copies.batch[kind]}.items():
            data[kind][name] = value
        data[kind].num_nodes = graph.counts[kind]
    for edge, index in graph.edges.items():
        for name, value in {**graph.edge_fields[edge], "edge_index": index}.items():
            data[edge][name] = value
    return data


def check_values(module: nn.Module, graph: Structure) -> None:
    """Check that features and parameters can meet, and that the numbers are numbers.

    Raises:
        TypeError: another floating-point type, or another device; with the remedy.
        NonFinite: NaN or infinity in a field that the model reads.
    """
    parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
    for fields in (*graph.nodes.values(), *graph.edge_fields.values()):
        for name, value in fields.items():
            if parameter is not None and value.device != parameter.device:
                raise TypeError(f"{name} is on {value.device}, the model on {parameter.device}: move one with .to(...)")
            if parameter is not None and name == "x" and value.is_floating_point() and value.dtype != parameter.dtype:
                raise TypeError(f"x is {value.dtype}, the model's parameters {parameter.dtype}: convert one of them")
            if value.is_floating_point() and not value.isfinite().all():
                raise NonFinite(f"{name} holds NaN or infinity: clean the data before it is explained")
