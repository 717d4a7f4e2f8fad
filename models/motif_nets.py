"""Networks trained on the graphs of `models.motifs`, kept on disk."""

from __future__ import annotations

import itertools
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GIN, GraphConv, global_add_pool

from explain.guard import random_states_kept
from models import checkpoints
from models.checkpoints import Trained
from models.motifs import Benchmark


class NodeNet(nn.Module):
    """Three sums over neighbours (GraphConv, Morris et al. 2019), read out from all layers: it can count degrees."""

    def __init__(self, features: int, classes: int, hidden: int = 20) -> None:
        super().__init__()
        sizes = (features, hidden, hidden, hidden)
        self.convs = nn.ModuleList(GraphConv(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(3 * hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        layers = []
        for conv in self.convs:
            x = conv(x, edge_index).relu()
            layers.append(x)
        return self.out(torch.cat(layers, 1))


class GraphNet(nn.Module):
    """Three layers of GIN (Xu et al. 2019), summed over the nodes of each graph."""

    def __init__(self, features: int, classes: int, hidden: int = 32) -> None:
        super().__init__()
        self.gin = GIN(features, hidden, num_layers=3, out_channels=hidden, norm="batch_norm", jk="cat")
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Features, edges and the graph of each node to logits ``[graphs, classes]``."""
        return self.out(global_add_pool(self.gin(x, edge_index), batch))


@dataclass(frozen=True)
class Schedule:
    """``epochs`` of AdamW with step size ``lr``, in batches of graphs."""

    epochs: int
    lr: float = 5e-3
    batch_size: int = 64


NODES, GRAPHS = Schedule(epochs=600, lr=1e-2), Schedule(epochs=60)


def trained(
    benchmark: Benchmark, *, seed: int = 0, schedule: Schedule | None = None, fresh: bool = False, progress: bool = True
) -> Trained:
    """A `NodeNet` or `GraphNet` for these graphs; ``facts["test_accuracy"]`` on the held-out fifth."""
    nodes = benchmark.task == "node"
    schedule = schedule or (NODES if nodes else GRAPHS)
    train, test = _halves(benchmark)
    graphs = [benchmark.data] if isinstance(benchmark.data, Data) else benchmark.data
    classes = 1 + max(int(graph.y.max()) for graph in graphs)
    with random_states_kept():
        torch.manual_seed(seed)
        net = (NodeNet if nodes else GraphNet)(graphs[0].num_features, classes)
    config = checkpoints.origin(
        type(net).__name__,
        code=[sys.modules[__name__]],
        data=[part for graph in graphs for part in (graph.x, graph.edge_index, graph.y)],
        schedule=asdict(schedule),
        seed=seed,
    )

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        fit(net, train, schedule, seed)
        return net.state_dict(), {"test_accuracy": share_right(net, test), "train_accuracy": share_right(net, train)}

    found = checkpoints.kept(f"{type(net).__name__}-{benchmark.name}", config, make, fresh=fresh)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)


def _halves(benchmark: Benchmark) -> tuple[list[Data], list[Data]]:
    """What is trained on, and what is held out: with a mask of the nodes that count, or whole graphs."""
    if isinstance(benchmark.data, Data):
        masks = (benchmark.data.train_mask, benchmark.data.test_mask)
        return tuple([Data(**{**benchmark.data.to_dict(), "counts": mask})] for mask in masks)  # type: ignore[return-value]
    order = torch.randperm(len(benchmark.data), generator=torch.Generator().manual_seed(0)).tolist()
    kept = round(0.8 * len(order))
    return [benchmark.data[i] for i in order[:kept]], [benchmark.data[i] for i in order[kept:]]


def fit(net: nn.Module, graphs: list[Data], schedule: Schedule, seed: int) -> None:
    """Train in place: cross-entropy, and what the network's paper adds to it (its ``regulariser()``) where it does."""
    regulariser = getattr(net, "regulariser", None)
    with random_states_kept():
        torch.manual_seed(seed)
        net.train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=schedule.lr)
        for _ in range(schedule.epochs):
            for batch in DataLoader(graphs, schedule.batch_size, shuffle=True):
                optimizer.zero_grad()
                outputs, labels = _answers(net, batch)
                loss = F.cross_entropy(outputs, labels)
                (loss if regulariser is None else loss + regulariser()).backward()
                optimizer.step()
        optimizer.zero_grad()
        net.eval()


@torch.no_grad()
def share_right(net: nn.Module, graphs: list[Data]) -> float:
    """Of the nodes that count, or of the graphs, those whose predicted class is the true one."""
    net.eval()
    outputs, labels = _answers(net, Batch.from_data_list(graphs))
    return float((outputs.argmax(1) == labels).double().mean())


def _answers(net: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """Outputs and labels of the nodes that count, or of the graphs."""
    if isinstance(net, NodeNet):
        return net(batch.x, batch.edge_index)[batch.counts], batch.y[batch.counts]
    return net(batch.x, batch.edge_index, batch.batch), batch.y
