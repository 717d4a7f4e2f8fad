"""Representatives that read one vector or picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import explain
from explain.types import Players
from models.matrix.case import Case, Smooth, Training
from models.matrix.graphs import flat, outputs_at, stirred


def table() -> Case:
    """A perceptron of four columns, absent ones zero."""
    net = stirred(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    x = torch.tensor([0.5, -1.0, 2.0, 0.3]).double()
    with torch.no_grad():
        label = int(net(x[None])[0].argmax())

    def features(players: Players, there: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x.index_fill(0, players.index[~there], 0.0)[None])[0]

    def smooth(players: Players) -> Smooth:
        owner = torch.full((4,), -1).index_copy(0, players.index, torch.arange(len(players)))
        return Smooth(x, torch.zeros_like(x), owner, lambda row: net(row[None])[0, label])

    target = explain.wrap(net, task="classification", weight_decay=0.1).example(x, label, baseline="zeros")
    return Case(target, {"features": features}, {"features": smooth}, training=_fitted(net, x, label), label=label)


def picture() -> Case:
    """Two convolutions over two channels, absent patches and pixels zero."""
    layers = nn.Conv2d(2, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
    net, x = stirred(nn.Sequential(*layers)), torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        label = int(net(x[None])[0].argmax())

    def patches(players: Players, there: Tensor) -> Tensor:
        seen = torch.isin(players.geometry["labels"], there.nonzero()[:, 0])
        with torch.no_grad():
            return net(torch.where(seen, x, 0.0)[None])[0]

    def smooth(players: Players) -> Smooth:
        owner = players.geometry["labels"].expand(x.shape)
        return Smooth(x, torch.zeros_like(x), owner, lambda image: net(image[None])[0, label])

    return Case(
        explain.wrap(net, task="classification", weight_decay=0.1).example(x, label, baseline="zeros"),
        {"patches": patches},
        {"patches": smooth},
        training=_fitted(net, x, label),
        options={"patches": {"size": 2}},
        label=label,
    )


def _fitted(net: nn.Module, x: Tensor, label: int) -> Training:
    """Eight examples that it was fitted to."""
    rows = torch.randn(8, *x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    theta, outputs = outputs_at(net, lambda net, rows: net(rows), rows)
    _, one = outputs_at(net, lambda net, rows: net(rows), x[None])
    _, back = flat(net)

    def losses_of(theta: Tensor, first: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(net, back(theta), (first[None],)), classes[:1])

    return Training(
        theta,
        lambda theta: F.cross_entropy(outputs(theta), classes, reduction="none"),
        lambda theta: one(theta)[0, label],
        weight_decay=0.1,
        train=(rows, classes),
        relabelled=lambda theta: F.cross_entropy(outputs(theta), torch.zeros_like(classes), reduction="none"),
        inputs=rows,
        losses_of=losses_of,
        sizes=lambda theta: outputs(theta).square().mean(1),
        size=lambda theta: -one(theta).square().mean(),  # who helps pushes the loss down
    )


VECTORS = {"table": table, "CNN": picture}
