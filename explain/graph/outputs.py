"""What a graph network's outputs mean, read off its answers on the whole data and the labels there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData

from explain.graph.computation import whole
from explain.graph.data_object import pair_store
from explain.graph.structure import copies
from explain.guard import evaluating, random_states_kept, usual_modes
from explain.outputs import LastOperation, Meaning, meaning_of, redrawn, unsettled

if TYPE_CHECKING:
    from explain.graph.model import GraphModel
    from explain.graph.targets import GraphTarget

MORE = 64  # graphs, or pairs, that are asked about where one leaves it open


def labels_of(data: Any, task: str, kind: str | None = None) -> Tensor | None:
    """What the data says is right, ``[n, ...]``: a row a node (of this type), pair or graph; None where it does not."""
    if task == "graph":
        graphs = [data] if isinstance(data, BaseData) else [data[i] for i in range(min(len(data), 1024))]
        return _graph_labels(graphs, [graph.get("y") for graph in graphs])
    if not isinstance(data, BaseData):  # nodes of many graphs
        graphs = [data[i] for i in range(min(len(data), 1024))]
        each = [part for graph in graphs if (part := labels_of(graph, task, kind)) is not None]
        return torch.cat(each) if len(each) == len(graphs) else None
    found: Any
    if task == "edge":
        found = pair_store(data).get("edge_label")
    else:
        typed = isinstance(data, HeteroData)
        store = (data[kind] if kind in data.node_types else data.node_stores[0]) if typed else data
        mask, found = store.get("train_mask"), store.get("y")
        if isinstance(found, Tensor) and isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.any():
            found = found[mask if mask.dim() == 1 else mask.any(1)] if len(mask) == len(found) else found
    return found if isinstance(found, Tensor) else None


def _graph_labels(graphs: list[Any], found: list[Any]) -> Tensor | None:
    """One row a graph; None where some have no labels, or as many as they have nodes: those are the nodes'."""
    if not all(isinstance(y, Tensor) and y.numel() for y in found) or len({y.numel() for y in found}) > 1:
        return None
    rows = [len(y) if y.dim() else 1 for y in found]
    if all(count == graph.num_nodes != 1 for count, graph in zip(rows, graphs, strict=True)):
        return None
    return torch.stack([y.reshape(-1) for y in found])


def meaning_of_model(model: GraphModel, target: GraphTarget) -> Meaning:
    """See `meaning_of`: nodes are all asked in one pass, of pairs and graphs several where that leaves it open."""
    kind = target.focus[0][0] if target.focus else None
    with usual_modes(), torch.no_grad(), random_states_kept(), LastOperation() as last:
        rows = target.everyone()
        operation = last.of(rows)
    if unsettled(rows) and model.given_outputs is None:
        rows = torch.cat([rows, *_others(model, target)])
    labels = labels_of(model.data, model.task, kind)

    def elsewhere() -> Tensor | None:
        params = {name: p.detach() for name, p in model.net.named_parameters()}
        with usual_modes(), torch.no_grad(), random_states_kept():
            return redrawn(params, target.everyone)

    return meaning_of(rows, operation, labels, given=model.given_outputs, loss=model.loss, elsewhere=elsewhere)


def _others(model: GraphModel, target: GraphTarget) -> list[Tensor]:
    """Answers for other pairs of the graph, or other graphs of the data."""
    with usual_modes(), torch.no_grad(), random_states_kept(), evaluating(model.module):
        if model.task == "edge" and len(target.graph.counts) == 1:
            given = pair_store(model.data).get("edge_label_index")
            pairs = given if isinstance(given, Tensor) else target.graph.flat_edges
            return [model.outputs(copies(target.graph, 1), pairs[:, :MORE])] if pairs.numel() else []
        if model.task == "graph" and not model.single:
            graphs = [model.structure(i) for i in range(min(len(model.data), MORE))]
            return [model.outputs(copies(whole(graph, ()).graph, 1)) for graph in graphs]
    return []
