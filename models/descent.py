"""Descent by random batches, as denoisers are trained here, and the moving average of weights that did best."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm.auto import tqdm


def descend(
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    iterations: int,
    *,
    then: Callable[[int], None] = lambda _: None,
    name: str = "",
    progress: bool = False,
) -> None:
    """Take ``iterations`` steps down ``loss()``, which draws its batch anew.

    The learning rate is warmed up over the first twentieth, then a half cosine to zero.

    Args:
        loss: of a batch, a scalar.
        optimizer: of what it hangs on.
        iterations: steps.
        then: called with the number of steps taken, after each.
        name: of what is trained.
        progress: shows tqdm.

    >>> w = torch.ones(1, requires_grad=True)
    >>> descend(lambda: (w - 3).square().sum(), torch.optim.SGD([w], lr=0.1), 100)
    >>> round(w.item(), 3)
    3.0
    """
    schedule = get_cosine_schedule_with_warmup(optimizer, iterations // 20, iterations)
    bar = tqdm(range(1, iterations + 1), desc=f"training {name}", disable=not progress)
    for iteration in bar:
        optimizer.zero_grad()
        now = loss()
        now.backward()
        optimizer.step()
        schedule.step()
        then(iteration)
        bar.set_postfix(loss=f"{now.item():.3f}", refresh=False)
    optimizer.zero_grad()


class BestAverage:
    """The exponential moving average of weights, as it was when it did best on what is not trained on.

    Args:
        parts: what is trained.
        decay: of the average.
        measure: asked while the parts hold the average: less is better.
        iterations: of the training.
        looks: how often it is asked in them.
    """

    def __init__(
        self, parts: nn.Module, decay: float, measure: Callable[[], float], iterations: int, looks: int
    ) -> None:
        self.parts, self.measure = parts, measure
        self.average = EMAModel(parts.parameters(), decay=decay)
        self.last, self.every = iterations, math.ceil(iterations / looks)
        self.loss, self.weights = float("inf"), parts.state_dict()

    def step(self, iteration: int) -> None:
        """Take in the weights of now."""
        self.average.step(self.parts.parameters())
        if iteration % self.every == 0 or iteration == self.last:
            self._look()

    @torch.no_grad()
    def _look(self) -> None:
        self.average.store(self.parts.parameters())
        self.average.copy_to(self.parts.parameters())
        loss = self.measure()
        if loss < self.loss:
            self.loss, self.weights = loss, copy.deepcopy(self.parts.state_dict())
        self.average.restore(self.parts.parameters())
