"""The small all-convolutional network of Koh and Liang 2017, section 4.2."""

from __future__ import annotations

import copy
import math
import os
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from explain.guard import random_states_kept
from models import checkpoints

LR, BATCH = 3e-3, 100


class AllCNN(nn.Module):
    """Five 3 x 3 convolutions of 8 channels, strides 1, 2, 1, 2, 1, a 1 x 1 convolution to 10, their mean, linear.

    ``tanh`` after each convolution, no padding: 28 x 28 images and 2,616 parameters (Koh and Liang 2017, section 4.2;
    all convolutions as in Springenberg et al. 2015).

    >>> import torch
    >>> net = AllCNN()
    >>> net(torch.zeros(3, 1, 28, 28)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([3, 10]), 2616)
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, stride in zip((1, 8, 8, 8, 8), (1, 2, 1, 2, 1), strict=True):
            layers += [nn.Conv2d(channels, 8, 3, stride), nn.Tanh()]
        self.features = nn.Sequential(*layers, nn.Conv2d(8, 10, 1), nn.Tanh())
        self.head = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, 1, 28, 28]`` to logits ``[n, 10]``."""
        return self.head(self.embedded(x))

    def below(self, layers: int) -> nn.Sequential:
        """A frozen float64 copy of the first layers, flattened: images to ``[n, d]``."""
        lower = nn.Sequential(*copy.deepcopy(list(self.features)[:layers]), nn.Flatten()).double()
        return lower.requires_grad_(False)

    def embedded(self, x: Tensor) -> Tensor:
        """What the last layer sees, ``[n, 10]``."""
        return self.features(x).mean((2, 3))


def load_or_train(
    x: Tensor,
    y: Tensor,
    *,
    weight_decay: float = 1e-3,
    steps: int = 3000,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = False,
) -> AllCNN:
    """A network trained on ``x [n, 1, 28, 28]`` and ``y [n]`` by Adam, not to convergence, or the same from the cache.

    The trained loss is the mean cross-entropy ``+ weight_decay/2 |theta|^2``; the step size falls to zero.

    Args:
        x: float32 images.
        y: their classes.
        weight_decay: as in ``torch.optim.SGD``.
        steps: batches of 100.
        seed: of weights and batches.
        folder: the cache, see `models.checkpoints.trained`.
        fresh: trains in any case.
        progress: shows tqdm.
    """
    code = [sys.modules[__name__]]
    config = checkpoints.origin("AllCNN", code, (x, y), weight_decay=weight_decay, steps=steps, seed=seed)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        with random_states_kept():
            torch.manual_seed(seed)
            net.load_state_dict(AllCNN().state_dict())
            _train(net, x, y, weight_decay, steps, progress)
        return net.state_dict(), {}

    with random_states_kept():
        net = AllCNN()
    net.load_state_dict(checkpoints.kept("AllCNN", config, make, folder=folder, fresh=fresh).state)
    return net.eval()


def _train(net: AllCNN, x: Tensor, y: Tensor, weight_decay: float, steps: int, progress: bool) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    batches: list[Tensor] = []
    for step in tqdm(range(steps), desc="training all-cnn", disable=not progress):
        batches = batches or list(torch.randperm(len(x)).split(BATCH))
        batch = batches.pop()
        optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        penalty = weight_decay / 2 * sum(p.square().sum() for p in net.parameters())
        (F.cross_entropy(net(x[batch]), y[batch]) + penalty).backward()
        optimizer.step()
    optimizer.zero_grad()
