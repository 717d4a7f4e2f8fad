"""Small trainings of each family, in float64: a table, pictures, nodes of a graph, graphs in batches, a denoiser."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from reference.training import descend, retrained, slopes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv, global_mean_pool

import explain
from explain.types import Target

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3, weight_decay=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.1, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95), weight_decay=0.05),
}


class Case(NamedTuple):
    """A network before its training, ``losses(net, at) -> [k]``, how many examples, and the question of a network."""

    net: nn.Module
    losses: object
    size: int
    asked: object  # net -> Target
    train: object = None

    def batches(self, steps: int, count: int | None = None) -> list[Tensor]:
        """Positions of each step, all where no count is given."""
        generator = torch.Generator().manual_seed(5)
        return [torch.randperm(self.size, generator=generator)[:count] for _ in range(steps)]

    def number(self, net: nn.Module) -> float:
        """The number in question, of another network."""
        return self.asked(net).value()


def table(dropout: float = 0.3) -> Case:
    torch.manual_seed(0)
    x, y = torch.randn(8, 3).double(), torch.randint(3, (8,))
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 3)).double()

    def asked(net: nn.Module) -> Target:
        return explain.wrap(net, task="classification", train=(x, y)).example(x[0] + 0.5, payoff=lambda out: out[:, 1])

    return Case(net, lambda net, at: cross_entropy(net(x[at]), y[at], reduction="none"), len(x), asked, (x, y))


def pictures() -> Case:
    """A small convolutional network, with pooling and a norm of groups, on pictures."""
    torch.manual_seed(0)
    x, y = torch.rand(7, 1, 6, 6).double(), torch.randint(3, (7,))
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.GroupNorm(2, 4),
        nn.SiLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).double()

    def asked(net: nn.Module) -> Target:
        return explain.wrap(net, task="classification", train=(x, y)).example(x[0].flip(1), label=1)

    return Case(net, lambda net, at: cross_entropy(net(x[at]), y[at], reduction="none"), len(x), asked, (x, y))


class Gcn(nn.Module):
    """Two layers of a GCN with dropout between, for nodes or whole graphs."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.first, self.second, self.pooled = GCNConv(3, 4), GCNConv(4, 2), pooled
        self.drop = nn.Dropout(0.25)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        out = self.second(self.drop(self.first(x, edge_index).tanh()), edge_index)
        return global_mean_pool(out, batch) if self.pooled else out


def ring(nodes: int, seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    at = torch.arange(nodes)
    edges = torch.stack([at, (at + 1) % nodes])
    x = torch.randn(nodes, 3, generator=generator).double()
    return Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1), y=torch.randint(2, (nodes,), generator=generator))


def nodes() -> Case:
    torch.manual_seed(0)
    data = ring(9, 0)
    data.train_mask = torch.arange(9) < 6
    net = Gcn(pooled=False).double()

    def losses(net: nn.Module, at: Tensor) -> Tensor:
        return cross_entropy(net(data.x, data.edge_index)[at], data.y[at], reduction="none")

    return Case(net, losses, 6, lambda net: explain.wrap(net, data, task="node").node(7, label=1))


def graphs() -> Case:
    torch.manual_seed(0)
    several = [ring(4 + i % 3, i) for i in range(6)]
    for i, graph in enumerate(several):
        graph.y = torch.tensor([i % 2])
    net = Gcn(pooled=True).double()

    def losses(net: nn.Module, at: Tensor) -> Tensor:
        batch = Batch.from_data_list([several[i] for i in at.tolist()])
        return cross_entropy(net(batch.x, batch.edge_index, batch.batch), batch.y, reduction="none")

    return Case(net, losses, 6, lambda net: explain.wrap(net, several, task="graph").graph(2, label=1))


class Eps(nn.Module):
    """Noise in a 1 x 2 x 2 picture, from it and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.outer(self.inner(torch.cat([x.flatten(1), t[:, None].to(x) / 20], 1)).tanh()).view_as(x)


def denoiser() -> Case:
    """Steps and noise are drawn from the global generator as it trains."""
    torch.manual_seed(0)
    images, betas = torch.rand(6, 1, 2, 2).double(), torch.linspace(1e-3, 0.2, 20).double()
    kept = (1 - betas).cumprod(0)

    def losses(net: nn.Module, at: Tensor) -> Tensor:
        t, noise = torch.randint(20, (len(at),)), torch.randn(len(at), 1, 2, 2, dtype=torch.float64)
        a = kept[t].view(-1, 1, 1, 1)
        return (net(a.sqrt() * images[at] + (1 - a).sqrt() * noise, t) - noise).square().flatten(1).mean(1)

    def asked(net: nn.Module) -> Target:
        model = explain.wrap(net, time="step", betas=betas, shape=(1, 2, 2), draws=3)
        return model.step(images[0], t=8, seed=0)

    return Case(Eps().double(), losses, 6, asked, images)


CASES = {"table": table, "pictures": pictures, "nodes": nodes, "graphs": graphs, "denoiser": denoiser}


def close(found, expected):
    return float((found - expected).abs().max()) <= 1e-6 * max(1.0, float(expected.abs().max()))


def recorded_run(case, make, batches, **options):
    """A network after a loop of the case, and what was recorded."""
    net = copy.deepcopy(case.net)
    optimizer = OPTIMIZERS[make](net.parameters())
    schedule = options.pop("schedule", lambda optimizer: None)(optimizer)
    with explain.recorded(optimizer, net) as run:
        descend(
            net.train(), optimizer, batches, case.losses, torch.ones(case.size), run=run, schedule=schedule, **options
        )
    return net.eval(), run


def differences(case, make, batches, schedule=lambda optimizer: None, **options):
    """Central differences of torch's own trainings, by the weight of each example."""

    def train(net, weights):
        optimizer = OPTIMIZERS[make](net.parameters())
        descend(net.train(), optimizer, batches, case.losses, weights, schedule=schedule(optimizer), **options)

    return slopes(lambda weights: case.number(retrained(case.net, train, weights)), case.size)
