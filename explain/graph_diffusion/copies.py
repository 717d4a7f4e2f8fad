"""Edited copies of one graph, side by side as one: who is known, which edges are there, what the features are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data


@dataclass(frozen=True, eq=False)
class Copies:
    """``B`` edits of one graph of ``n`` nodes and ``E`` edges; None where nothing of the kind is edited.

    Args:
        known: bool ``[B, n]``, whose label is known.
        edges: bool ``[B, E]``, which edges are there.
        x: node features ``[B, n, F]``.
        labels: what is known, ``[B, n, C]``, in place of the one-hot labels.
        looks: bool ``[B, steps]``, at which steps of a run the network is asked.
        corrected: bool ``[B, steps]``, at which steps the known labels correct the run.

    A node that is taken away keeps its place, without edges, label and features: the noise of the others stays theirs.
    """

    known: Tensor
    edges: Tensor | None = None
    x: Tensor | None = None
    labels: Tensor | None = None
    looks: Tensor | None = None
    corrected: Tensor | None = None

    def __len__(self) -> int:
        return len(self.known)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Copies:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(part) for name, part in given.items() if part is not None})

    def repeated(self, draws: int) -> Copies:
        """Each of them ``draws`` times, one after the other."""
        return self._each(lambda part: part.repeat_interleave(draws, 0))

    def one(self, row: int) -> Copies:
        """One of them."""
        return self._each(lambda part: part[row : row + 1])


def union(graph: Data, copies: Copies, classes: Tensor, label: str = "y") -> Data:
    """The copies as one graph without edges between them; ``batch`` says whose each node is.

    Every field of nodes is repeated, every field of edges follows its edges. The labels, field ``label``, are those
    that are known, -1 elsewhere, and ``train_mask`` says where they are known: the others are in no field.

    Args:
        graph: the whole graph.
        copies: the edits.
        classes: int64 ``[n]``, the label of each node.
        label: the field that holds the labels.
    """
    count, n, edges = len(copies), int(graph.num_nodes), graph.edge_index
    shift = (torch.arange(count, device=edges.device) * n)[:, None]
    kept = None if copies.edges is None else copies.edges.reshape(-1)
    found = Data(num_nodes=count * n)
    for name, value in graph.to_dict().items():
        if name in (label, "edge_index", "num_nodes", "train_mask", "val_mask", "test_mask", "batch", "ptr"):
            continue
        if graph.is_edge_attr(name) and isinstance(value, Tensor):
            value = value.repeat(count, *[1] * (value.dim() - 1))
            found[name] = value if kept is None else value[kept]
        elif graph.is_node_attr(name) and isinstance(value, Tensor):
            found[name] = value.repeat(count, *[1] * (value.dim() - 1))
        else:
            found[name] = value
    if copies.x is not None:
        found.x = copies.x.flatten(0, 1)
    joined = (edges[:, None] + shift).flatten(1)
    found.edge_index = joined if kept is None else joined[:, kept]
    found.batch = torch.arange(count, device=edges.device).repeat_interleave(n)
    found[label] = torch.where(copies.known, classes, -1).reshape(-1)
    found.train_mask = copies.known.reshape(-1)
    return found


def checked_graph(graph: Any, label: str) -> Data:
    """The graph, where it is one of the kind that can be asked about.

    Raises:
        TypeError: no single homogeneous torch_geometric graph with ``edge_index``.
        ValueError: it has no features and no number of nodes.
    """
    if not isinstance(graph, Data) or graph.get("edge_index") is None:
        got = type(graph).__name__ + ("" if not isinstance(graph, Data) else " without edge_index")
        raise TypeError(
            f"labels are denoised on one torch_geometric Data with edge_index, got {got}: of several graphs give each "
            "by itself, of an adjacency matrix its edge_index"
        )
    if label in graph and graph[label].dim() != 1:
        raise ValueError(
            f"labels must be one class a node, graph.{label} int64 [n], got {list(graph[label].shape)}: of one-hot "
            f"labels give graph.{label}.argmax(1)"
        )
    return graph
