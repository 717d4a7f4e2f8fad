"""What the data says is right for its nodes, pairs or graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData

from explain.graph.tensors.data_object import pair_store


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
