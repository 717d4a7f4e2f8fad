"""Representatives that classify whole graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_dense_adj

import explain
from explain.types import Players
from models import pooling
from models.matrix.case import Case, Training
from models.matrix.graphs import FEATURES, Asked, Weighed, absences, by_messages, masked, outputs_at, slopes, stirred

GRAPHS = 6
RING = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
"""Nobody has one neighbour alone, which is where a mean over neighbours bends."""


def _graphs() -> list[Data]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(GRAPHS, 4, FEATURES, generator=generator, dtype=torch.float64)
    return [Data(x=x, edge_index=RING, y=torch.tensor([i % 2])) for i, x in enumerate(drawn)]


def _asked(net: nn.Module, data: Data) -> Tensor:
    """Of a graph in a batch with the first one: that has nodes, where the graph has none."""
    both = Batch.from_data_list([Data(x=data.x, edge_index=data.edge_index), _graphs()[0]])
    return net(both.x, both.edge_index, both.batch)


def on_graphs(net: nn.Module, weighed: Weighed | None = None) -> Case:
    """``net(x, edge_index, batch) -> [graphs, classes]``, asked about the first of some."""
    return _on_graph(net, weighed, 0, more=True)


def _on_graph(net: nn.Module, weighed: Weighed | None, number: int, more: bool) -> Case:
    graphs = _graphs()
    asked = Asked(net, _asked, weighed or by_messages(_asked), graphs[number])
    with torch.no_grad():
        label = int(asked.of(asked.data).argmax())

    def nodes(players: Players, there: Tensor) -> Tensor:
        stay = torch.ones(len(asked.data.x), dtype=torch.bool).index_fill(0, players.index[~there], False)
        return asked.of(asked.data.subgraph(stay))

    target = explain.wrap(net, graphs, task="graph", weight_decay=0.1).graph(number, label=label)
    return Case(
        target,
        {"nodes": torch.no_grad()(nodes), **absences(asked, ("edges", "features"))},
        slopes(asked, label),
        masked(asked),
        training=_training(net, graphs, number, label),
        others=tuple(_on_graph(net, weighed, i, more=False) for i in range(GRAPHS)) * 2 if more else (),
        label=label,
    )


def _training(net: nn.Module, graphs: list[Data], number: int, label: int) -> Training:
    each = [outputs_at(net, _asked, data) for data in graphs]

    def losses(theta: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(torch.stack([outputs(theta)[0] for _, outputs in each]), labels, reduction="none")

    labels = torch.cat([data.y for data in graphs])
    return Training(
        each[0][0],
        lambda theta: losses(theta, labels),
        lambda theta: each[number][1](theta)[0, label],
        weight_decay=0.1,
        relabelled=lambda theta: losses(theta, torch.zeros_like(labels)),
    )


def diffpool() -> Case:
    """Clusters of clusters, by a dense adjacency."""

    def weighed(net: Any, data: Data, weights: Tensor) -> Tensor:
        A = to_dense_adj(data.edge_index, edge_attr=weights)[0]
        z = _mean_of_neighbours(net.embed[0], data.x, A).relu()
        S = _mean_of_neighbours(net.assign, data.x, A).softmax(1)
        second = _mean_of_neighbours(net.embed[1], S.T @ z, S.T @ A @ S).relu()
        return net.out(torch.cat([z.mean(0), second.mean(0)]))[None]

    return on_graphs(stirred(pooling.DiffPool(FEATURES, 2, hidden=3, clusters=2), seed=8), weighed)


def _mean_of_neighbours(layer: Any, x: Tensor, A: Tensor) -> Tensor:
    heard = A @ x / A.sum(1, keepdim=True).clamp(min=1)
    return heard @ layer.lin_rel.weight.T + x @ layer.lin_root.weight.T + layer.lin_root.bias


GRAPH_LEVEL: dict[str, Callable[[], Case]] = {
    "GIN": lambda: on_graphs(stirred(pooling.GIN(FEATURES, 2, hidden=3, layers=2), seed=19)),
    "DiffPool": diffpool,
    "SAGPool": lambda: on_graphs(stirred(pooling.SAGPool(FEATURES, 2, hidden=3, layers=2))),
}
