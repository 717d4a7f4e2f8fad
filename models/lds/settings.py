"""Five small networks, each with its data, its training and its questions: what attributions are judged on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.conv.gcn_conv import gcn_norm

import explain
from explain.diffusion.model import DiffusionModel
from explain.guard import random_states_kept
from explain.types import Target
from models.datasets import Images, cora, digits
from models.gcn import GCN
from models.tiny_denoiser import NULL, STEPS, TinyDenoiser

QUESTIONS = 20  # held-out examples asked about
ASKED = slice(60, 60 + QUESTIONS)  # others than those that trainings were tried on
TIMES = (6, 18, 31, 43, 56, 68, 81, 93)  # a denoiser's error is a mean over these noise levels
DRAWS = 2  # of noise at each
Call = Callable[..., Tensor]  # the network, with whichever parameters
Batch = tuple[Tensor, tuple[Tensor, ...]]  # positions [k] in the training set, and what was drawn for them


@dataclass(frozen=True, eq=False)
class Setting:
    """A network, the training that made it, and the numbers that are asked about.

    Args:
        name: in tables.
        net: first weights by seed.
        size: training examples.
        losses: ``(network, positions, *drawn) -> [k]``.
        batches: by seed, one a step.
        steps: of the optimizer, whose rate falls to zero by half a cosine.
        optimizer: ``parameters -> optimizer``, its penalty included.
        asked: the questions, of a network.
        train: the training set as explainers take it.
        seeds: trainings of each subset.
    """

    name: str
    net: Callable[[int], nn.Module]
    size: int
    losses: Callable[..., Tensor]
    batches: Callable[[int], Iterator[Batch]]
    steps: int
    optimizer: Callable[[Any], torch.optim.Optimizer]
    asked: Callable[[nn.Module], Sequence[Target]]
    train: Any = None
    seeds: int = 3

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Half a cosine, to zero."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: (1 + math.cos(math.pi * i / self.steps)) / 2)


class DigitsMLP(nn.Sequential):
    """64 pixels, 32 tanh units, 10 logits: 2,410 parameters."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


class DigitsCNN(nn.Sequential):
    """Two convolutions with tanh, 8 and 16 channels, and a linear layer: 2,698 parameters."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(144, 10),
        )


class DeepDenoiser(nn.Module):
    """Noise in a digit from its pixels and four waves of the step, by two layers of 64 tanh units: 12,992 parameters.

    >>> net = DeepDenoiser()
    >>> net(torch.zeros(3, 1, 8, 8), torch.tensor([0, 50, 99])).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([3, 1, 8, 8]), 12992)
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(72, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise in ``x [n, 1, 8, 8]`` at steps ``t [n]``."""
        waves = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=x.dtype, device=x.device)
        angle = math.pi / STEPS * t.to(x.dtype)[:, None] * waves
        return self.layers(torch.cat([x.flatten(1), angle.cos(), angle.sin()], 1)).view_as(x)


def classifier(
    name: str, kind: type[nn.Module], size: int = 400, batch: int = 100, steps: int = 200, lr: float = 0.03
) -> Setting:
    """Digits by momentum SGD with a penalty; asked is the log-probability of held-out digits' own classes."""
    learned, others = digits()
    x, y, decay = learned.images[:size], learned.labels[:size], 1e-3
    asked, labels = others.images[ASKED], others.labels[ASKED]

    def losses(net: Call, at: Tensor) -> Tensor:
        return F.cross_entropy(net(x[at]), y[at], reduction="none")

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 + seed)
        while True:
            for at in torch.randperm(size, generator=generator).split(batch):
                yield at, ()

    def targets(net: nn.Module) -> list[Target]:
        model = explain.wrap(net, task="classification", train=(x, y), weight_decay=decay)
        return [
            model.example(image, label=int(label), payoff="log_probability")
            for image, label in zip(asked, labels, strict=True)
        ]

    def optimizer(params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=decay)

    return Setting(name, first(kind), size, losses, batches, steps, optimizer, targets, (x, y))


class ReadyGCN(GCN):
    """`GCN` without dropout, which takes a training's part of the graph with its sums ready too, the same each step.

    >>> net, x, edges = ReadyGCN(3, 2), torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])
    >>> torch.allclose(net(*net.ready(x, edges, torch.tensor([1, 3]))), net.eval()(x, edges)[[1, 3]], atol=1e-6)
    True
    """

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits of the nodes of a graph, or of those that what `ready` gives stands for."""
        if not edge_index.is_floating_point():
            return super().forward(x, edge_index)
        inner, outer = self.conv1, self.conv2
        return edge_index @ (self.activation(x @ inner.lin.weight.T + inner.bias) @ outer.lin.weight.T) + outer.bias

    @staticmethod
    def ready(x: Tensor, edge_index: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """``(A x)[near]`` and ``A[nodes, near]``, with ``near`` the nodes that these have as neighbours or are."""
        (source, target), weight = gcn_norm(edge_index, num_nodes=len(x), dtype=x.dtype)
        mean = x.new_zeros(len(x), len(x)).index_put_((target, source), weight, accumulate=True)
        near = mean[nodes].any(0).nonzero().view(-1)
        return mean[near] @ x, mean[nodes][:, near]


def gcn(steps: int = 200) -> Setting:
    """Two layers on Cora as Kipf and Welling (2017) train them, without dropout: 140 labels, all in every step.

    With ELU for ReLU, and Adam's ``eps`` at the size of a step's gradients: else weights move by the signs of these, of
    which a derivative foretells less (of other questions: .71 where 95 % are kept, .98 as it is here).
    """
    data, decay = cora(), 5e-4
    train = data.train_mask.nonzero().view(-1)
    asked = data.test_mask.nonzero().view(-1)[25::50]
    ready = ReadyGCN.ready(data.x, data.edge_index, train)

    def losses(net: Call, at: Tensor) -> Tensor:
        return F.cross_entropy(net(*ready)[at], data.y[train[at]], reduction="none")

    def batches(seed: int) -> Iterator[Batch]:
        while True:
            yield torch.arange(len(train)), ()

    def targets(net: nn.Module) -> list[Target]:
        model = explain.wrap(net, data, task="node", weight_decay=decay)
        return [model.node(node, label=int(data.y[node]), payoff="log_probability") for node in asked.tolist()]

    def optimizer(params: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=0.01, eps=1e-3, weight_decay=decay)

    net = first(lambda: ReadyGCN(data.num_features, 7, dropout=0.0, smooth=True))
    return Setting("GCN, Cora", net, len(train), losses, batches, steps, optimizer, targets, seeds=2)


def denoiser(name: str, kind: Callable[[], nn.Module], labelled: bool, size: int = 128, steps: int = 300) -> Setting:
    """Digits by Adam, each step of all with a fresh time and fresh noise; asked is minus the error of others."""
    learned, others = digits()
    data = Images(learned.images[:size], learned.labels[:size])
    decay = 1e-4
    betas = torch.linspace(1e-3, 0.1, STEPS)
    kept = (1 - betas).cumprod(0)

    def predicted(net: Call, images: Tensor, labels: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a = kept[t].view(-1, 1, 1, 1)
        noised = a.sqrt() * images + (1 - a).sqrt() * noise
        return net(noised, t, labels) if labelled else net(noised, t)

    def losses(net: Call, at: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        found = predicted(net, data.images[at], data.labels[at], noise, t)
        return (found - noise).square().flatten(1).mean(1)

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 + seed)
        while True:
            noise = torch.randn(data.images.shape, generator=generator)
            yield torch.arange(size), (noise, spread(size, generator))

    def targets(net: nn.Module) -> list[Target]:
        null = NULL if labelled else None
        model = DiffusionModel(net, time="step", betas=betas, null=null, shape=(1, 8, 8), weight_decay=decay, draws=16)
        pairs = zip(others.images[ASKED], others.labels[ASKED].tolist(), strict=True)
        return [model.step(image, TIMES, label if labelled else None, draws=DRAWS) for image, label in pairs]

    def optimizer(params: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=2e-3, weight_decay=decay)

    train = (data.images, data.labels) if labelled else data.images
    return Setting(name, first(kind), size, losses, batches, steps, optimizer, targets, train, seeds=2)


def first(kind: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """First weights by seed, with the random states as before."""

    def made(seed: int) -> nn.Module:
        with random_states_kept():
            torch.manual_seed(seed)
            return kind().float()

    return made


def spread(count: int, generator: torch.Generator) -> Tensor:
    """One step ``t`` an image, spread evenly over the schedule in random order: less noise than independent ones."""
    offset = torch.rand(1, generator=generator)
    even = ((torch.arange(count) + offset) * STEPS / count).long().clamp_max(STEPS - 1)
    return even[torch.randperm(count, generator=generator)]


SETTINGS: dict[str, Callable[[], Setting]] = {
    "mlp": lambda: classifier("MLP, digits", DigitsMLP),
    "cnn": lambda: classifier("CNN, digits", DigitsCNN),
    "gcn": gcn,
    "denoiser": lambda: denoiser("denoiser, 5,248 parameters", lambda: TinyDenoiser(36), labelled=True),
    "deep": lambda: denoiser("denoiser, 12,992 parameters", DeepDenoiser, labelled=False),
}
