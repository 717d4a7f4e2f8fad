"""A judge of generated digits: a small classifier that never saw the images that the generator learned from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from explain.guard import evaluating, random_states_kept
from models import checkpoints
from models.checkpoints import Trained
from models.datasets import Images, images


class Judge(nn.Module):
    """Digits ``[n, 1, size, size]`` to logits ``[n, 10]``: two convolutions, two linear layers, dropout.

    >>> Judge(8)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * (size // 2) ** 2, 64),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(64, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.layers(x)


def load_or_train(
    data: str = "digits",
    *,
    epochs: int = 60,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Trained:
    """A judge trained on the part of ``data`` held out from generators, from the cache where it was trained before.

    ``facts["accuracy"]`` is its own on the other part, which it never saw.

    Args:
        data: "digits", "mnist" or "worded".
        epochs: passes over the held-out images.
        seed: of weights, batches and dropout.
        folder: the cache, see `models.checkpoints.trained`.
        fresh: trains in any case.
        progress: shows tqdm.

    Raises:
        ValueError: unknown data.
        FileNotFoundError: MNIST is not at hand.
    """
    others, own = images(data)
    net = _built(own.images.size(-1), seed)
    config = checkpoints.origin("Judge", [sys.modules[__name__]], (*others, *own), epochs=epochs, seed=seed)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        train(net, own, epochs, seed=seed, progress=progress)
        return net.state_dict(), {"accuracy": accuracy(net, others)}

    found = checkpoints.kept("Judge", config, make, folder=folder, fresh=fresh)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)


def train(net: Judge, data: Images, epochs: int, *, seed: int = 0, progress: bool = True) -> Judge:
    """Train in place by AdamW on the cross-entropy; global random states are kept."""
    with random_states_kept():
        torch.manual_seed(seed)
        net.train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        for _ in tqdm(range(epochs), desc="training judge", disable=not progress):
            for batch in torch.randperm(len(data.images)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(net(data.images[batch]), data.labels[batch]).backward()
                optimizer.step()
        optimizer.zero_grad()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, data: Images) -> float:
    """Share of these images whose class it names, in eval mode."""
    with evaluating(net):
        return float((net(data.images).argmax(1) == data.labels).double().mean())


@torch.no_grad()
def distance(net: nn.Module, made: Tensor, real: Tensor) -> float:
    """Frechet distance of generated to real digits in the features of the judge's last layer but one.

    ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))``, means and covariances of both (Heusel et al. 2017, in another's).
    """
    assert isinstance(net, Judge)
    with evaluating(net):
        both = [net.layers[:-2](x).double() for x in (made, real)]
    means, spreads = zip(*((x.mean(0), torch.cov(x.T)) for x in both), strict=True)
    roots = torch.linalg.eigvals(spreads[0] @ spreads[1]).real.clamp_min(0).sqrt()
    total = (means[0] - means[1]).square().sum() + spreads[0].trace() + spreads[1].trace() - 2 * roots.sum()
    return float(total)


def log_probability(net: nn.Module, label: int) -> Callable[[Tensor], Tensor]:
    """``samples [n, 1, H, W] -> log p(label | sample) [n]``, a payoff for whole sampling runs and for ``x0_hat``."""

    def payoff(samples: Tensor) -> Tensor:
        with evaluating(net):
            return net(samples).log_softmax(1)[:, label]

    payoff.__name__ = f"log p({label})"
    return payoff


def _built(size: int, seed: int) -> Judge:
    with random_states_kept():
        torch.manual_seed(seed)
        return Judge(size)
