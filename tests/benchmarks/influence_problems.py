"""What the influence benchmark is measured on: three trained models with their training sets and questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import explain
from explain.influence.solvers.choice import CURVATURES
from explain.influence.spectrum import largest_eigenvalue
from explain.types import Target


@dataclass(frozen=True, eq=False)
class Problem:
    """A trained module, how ours is asked, and the plain tensors that peers take.

    ``inputs [n, ...]``, ``labels [n]`` are the training examples, ``asked [q, ...]``, ``asked_labels [q]`` what the
    questions are about: the loss of each. Of a graph both inputs are node numbers, and ``module`` takes those.
    """

    name: str
    module: nn.Module
    inputs: Tensor
    labels: Tensor
    asked: Tensor
    asked_labels: Tensor
    targets: list[Target]
    train: object
    weight_decay: float
    curvature: str
    damping: float
    recursions: tuple[tuple[int | None, int], ...]  # batch sizes and depths that peers' LiSSA is tried with

    @cached_property
    def largest(self) -> float:
        """The largest eigenvalue of the problem's matrix."""
        A = CURVATURES[self.curvature](self.targets[0].objective(self.train), self.damping)
        return largest_eigenvalue(A, torch.Generator().manual_seed(0), tolerance=1e-3)[0]

    @property
    def ridge(self) -> float:
        """What is on the diagonal beside the loss."""
        return self.weight_decay + self.damping


LONG = ((64, 1000), (256, 1000), (None, 300))
SHORT = ((64, 300), (None, 20))  # where they are far from an answer after any time that can be waited for


class Transductive(nn.Module):
    """A graph network as a function of node numbers, ``[nodes] -> [nodes, classes]``, as i.i.d. tools take it."""

    def __init__(self, net: nn.Module, x: Tensor, edge_index: Tensor) -> None:
        super().__init__()
        self.net = net
        self.x, self.edge_index = x, edge_index

    def forward(self, nodes: Tensor) -> Tensor:
        return self.net(self.x, self.edge_index)[nodes]


def logistic(questions: int = 50, train: int = 1437) -> Problem:
    """L2 logistic regression on sklearn's digits at its minimum: 650 parameters, weight decay 0.01."""
    x, y = _digits()
    net = nn.Linear(64, 10)
    nn.init.zeros_(net.weight), nn.init.zeros_(net.bias)
    _minimised(net, x[:train], y[:train], 0.01, steps=200)
    return _supervised("logistic regression", net, x, y, train, questions, 0.01, "hessian", 0.0, LONG)


def convolutional(questions: int = 50, train: int = 1437, width: int = 16, epochs: int = 300) -> Problem:
    """A convolution net on digits: 21,594 parameters, weight decay 0.001, Gauss-Newton matrix damped by 0.01."""
    torch.manual_seed(0)
    x, y = _digits()
    x = x.reshape(-1, 1, 8, 8)
    net = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(32 * width, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )
    _trained(net, x[:train], y[:train], 1e-3, epochs)
    return _supervised("convolution net", net, x, y, train, questions, 1e-3, "ggn", 1e-2, SHORT)


def graph(questions: int = 50) -> Problem:
    """The two-layer GCN of the paper on Cora: 23,063 parameters, 140 training nodes, weight decay 0.0005."""
    from models.datasets import cora
    from models.gcn import GCN, PAPER
    from models.training import train as fitted

    data = cora()
    net = GCN(data.num_features, 7)
    fitted(net, data, PAPER, seed=0, progress=False)
    wrapped = explain.wrap(net, data, weight_decay=PAPER.weight_decay)
    nodes = data.test_mask.nonzero().view(-1)[:questions]
    targets = [wrapped.node(int(i), label=int(data.y[i]), payoff="loss") for i in nodes]
    seen = data.train_mask.nonzero().view(-1)
    module = Transductive(net, data.x, data.edge_index)
    return Problem(
        "GCN on Cora",
        module,
        seen,
        data.y[seen],
        nodes,
        data.y[nodes],
        targets,
        None,
        PAPER.weight_decay,
        "ggn",
        1e-2,
        ((None, 60),),
    )


def unet(questions: int = 5, images: int = 12) -> Problem:
    """A class-conditional UNet of diffusers with attention, 45,321 parameters at their first values, and 12 images."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    net = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=11,
        **blocks,
    ).eval()
    x, y = _digits()
    x = 2 * x.reshape(-1, 1, 8, 8) - 1
    model = explain.wrap(net, scheduler=DDPMScheduler(100), null=10)
    pair, asked = (x[:images], y[:images]), slice(images, images + questions)
    targets = [model.step(a, t=20, label=int(b), seed=0) for a, b in zip(x[asked], y[asked], strict=True)]
    return Problem("UNet", net, *pair, x[asked], y[asked], list(targets), pair, 0.0, "ggn", 1e-2, ())


def _supervised(
    name: str,
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    train: int,
    questions: int,
    decay: float,
    curvature: str,
    damping: float,
    recursions: tuple[tuple[int | None, int], ...],
) -> Problem:
    pair = (x[:train], y[:train])
    wrapped = explain.wrap(net, task="classification", train=pair, weight_decay=decay)
    asked = slice(1437, 1437 + questions)
    targets = [wrapped.example(a, label=int(b), payoff="loss") for a, b in zip(x[asked], y[asked], strict=True)]
    return Problem(name, net, *pair, x[asked], y[asked], targets, pair, decay, curvature, damping, recursions)


def _digits() -> tuple[Tensor, Tensor]:
    data, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]


def _penalised(net: nn.Module, x: Tensor, y: Tensor, decay: float) -> Tensor:
    return F.cross_entropy(net(x), y) + decay / 2 * sum(p.square().sum() for p in net.parameters())


def _minimised(net: nn.Module, x: Tensor, y: Tensor, decay: float, steps: int) -> None:
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=steps, tolerance_grad=1e-7, line_search_fn="strong_wolfe")
    optimiser.step(_closure(net, x, y, decay, optimiser))


def _closure(
    net: nn.Module, x: Tensor, y: Tensor, decay: float, optimiser: torch.optim.Optimizer
) -> Callable[[], float]:
    def closure() -> float:
        optimiser.zero_grad()
        loss = _penalised(net, x, y, decay)
        loss.backward()
        return float(loss.detach())

    return closure


def _trained(net: nn.Module, x: Tensor, y: Tensor, decay: float, epochs: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        optimiser.zero_grad()
        _penalised(net, x, y, decay).backward()
        optimiser.step()
    _minimised(net, x, y, decay, steps=20)


PROBLEMS = {"logistic": logistic, "cnn": convolutional, "gcn": graph, "unet": unet}
