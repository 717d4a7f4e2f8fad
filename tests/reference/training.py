"""Trainings as torch itself does them, with a weight for every example, and central differences of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def descend(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Tensor],
    losses: Callable[[nn.Module, Tensor], Tensor],
    weights: Tensor,
    *,
    clip: float | None = None,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    run=None,
    seed: int = 1,
) -> None:
    """``sum_i w_i loss_i / k`` of each batch, or, where a ``run`` is given, the same recorded, with weights 1."""
    torch.manual_seed(seed)
    for at in batches:
        optimizer.zero_grad()
        if run is None:
            (weights[at] * losses(net, at)).mean().backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        else:
            run.loss(at, lambda at: losses(net, at)).backward()
            if clip is not None:
                run.clip(clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()


def retrained(start: nn.Module, train: Callable[[nn.Module, Tensor], None], weights: Tensor) -> nn.Module:
    """A copy of the first network, trained with these weights, in eval mode."""
    net = copy.deepcopy(start)
    train(net, weights)
    return net.eval()


def slopes(number: Callable[[Tensor], float], size: int, step: float = 1e-5) -> Tensor:
    """``(f(1 + h e_i) - f(1 - h e_i)) / 2h`` for every weight."""
    found = []
    for i in range(size):
        move = torch.zeros(size, dtype=torch.float64)
        move[i] = step
        found.append((number(1 + move) - number(1 - move)) / (2 * step))
    return torch.tensor(found, dtype=torch.float64)
