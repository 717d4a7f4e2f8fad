"""How labels become noise and come back: Gaussian noise on one-hot labels, and classes drawn anew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from explain.diffusion.categorical import Categorical, drawn
from explain.diffusion.process import Gaussian


class LabelProcess(Protocol):
    """What a run needs of the noise on labels ``[rows, C]``; ``noise`` is a draw of `draw`, ``before`` None the end."""

    @property
    def temperature(self) -> float:
        """What the noise is scaled by."""

    @property
    def times(self) -> list[int]:
        """Every step, from the noisiest on."""

    def draw(self, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """The noise that `start`, `step` and `noised` take, float64."""

    def start(self, noise: Tensor) -> Tensor:
        """The state that a run begins with."""

    def unseen(self, like: Tensor) -> Tensor:
        """What is foreseen before anybody has looked."""

    def foreseen(self, y: Tensor, prediction: Tensor, t: int) -> Tensor:
        """The clean labels in the network's answer."""

    def step(self, y: Tensor, foreseen: Tensor, t: int, before: int | None, noise: Tensor) -> Tensor:
        """The state at step ``before``, or at the end."""

    def noised(self, labels: Tensor, t: int | None, noise: Tensor) -> Tensor:
        """Labels ``[rows, C]``, one-hot or shares, as they are at step ``t``."""

    def absent(self, t: int, noise: Tensor, other: Tensor) -> Tensor:
        """What stands at step ``t`` where a label is taken away; ``other`` is noise that nothing else is made of."""

    def read(self, y: Tensor) -> Tensor:
        """A clean state with 1 for the class that it is in and 0 for the others."""


@dataclass(frozen=True, eq=False)
class GaussianLabels:
    """``y_t = a_t Y + s_t e``, ``Y`` one-hot between ``low`` and ``high``; ancestral steps.

    With ``r = a_t^2 / a_s^2``, ``e_hat = (y - a_t y0_hat) / s_t`` and the temperature ``tau``, which scales all noise,
    ``y_s = (y - (1 - r) / s_t e_hat) / sqrt(r) + tau sqrt(1 - r) z``; nothing is added in the last step.

    Args:
        process: the noise, with what the network predicts.
        low: of classes that a node is not in.
        high: of its class.
        temperature: ``tau``.
    """

    process: Gaussian
    low: float = 0.0
    high: float = 1.0
    temperature: float = 1.0

    @property
    def times(self) -> list[int]:
        """``T - 1`` to 0."""
        return list(range(self.process.steps - 1, -1, -1))

    def draw(self, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Normal."""
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def start(self, noise: Tensor) -> Tensor:
        """``tau e``."""
        return self.temperature * noise

    def unseen(self, like: Tensor) -> Tensor:
        """Every class alike."""
        share = 1 / like.size(-1)
        return torch.full_like(like, self.low + (self.high - self.low) * share)

    @cached_property
    def _table(self) -> list[tuple[float, float]]:
        """``a_t`` and ``s_t`` of each step."""
        steps, like = torch.arange(self.process.steps), torch.zeros((), dtype=torch.float64)
        a, s = self.process.levels(steps, like)
        return list(zip(a.tolist(), s.tolist(), strict=True))

    def _levels(self, t: int | None) -> tuple[float, float]:
        return (1.0, 0.0) if t is None else self._table[t]

    def foreseen(self, y: Tensor, prediction: Tensor, t: int) -> Tensor:
        """As the process reads it."""
        return self.process.clean(y, prediction, torch.tensor(t))

    def step(self, y: Tensor, foreseen: Tensor, t: int, before: int | None, noise: Tensor) -> Tensor:
        """See above."""
        (a, s), (a_before, _) = self._levels(t), self._levels(before)
        r = (a / a_before) ** 2
        mean = (y - (1 - r) / s**2 * (y - a * foreseen)) / math.sqrt(r)
        return mean if before is None else mean + self.temperature * math.sqrt(1 - r) * noise

    def noised(self, labels: Tensor, t: int | None, noise: Tensor) -> Tensor:
        """``a_t Y + s_t tau z``."""
        a, s = self._levels(t)
        return a * (self.low + (self.high - self.low) * labels) + s * self.temperature * noise

    def absent(self, t: int, noise: Tensor, other: Tensor) -> Tensor:
        """Every class alike, with the same noise: what is left out is the label, not the noise level."""
        return self.noised(torch.full_like(noise, 1 / noise.size(-1)), t, noise)

    def read(self, y: Tensor) -> Tensor:
        """Between ``low`` and ``high``, on a scale from 0 to 1."""
        return (y - self.low) / (self.high - self.low)


@dataclass(frozen=True, eq=False)
class CategoricalLabels:
    """Classes that are kept or drawn anew; the network answers logits of ``p(Y | y_t)``. See `Categorical`.

    Args:
        process: the noise.
        rule: "mixture", the reverse step of DiGress, or "joint", that of D3PM.
    """

    process: Categorical
    rule: str = "mixture"

    @property
    def temperature(self) -> float:
        """Classes are drawn as they come."""
        return 1.0

    @property
    def times(self) -> list[int]:
        """``T`` to 1."""
        return list(range(self.process.steps, 0, -1))

    def draw(self, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform."""
        return torch.rand(size, generator=generator, dtype=torch.float64)

    def start(self, noise: Tensor) -> Tensor:
        """A draw of the limit."""
        return self.process.absent(noise)

    def unseen(self, like: Tensor) -> Tensor:
        """The limit itself."""
        return self.process.limit.to(like).expand_as(like)

    def foreseen(self, y: Tensor, prediction: Tensor, t: int) -> Tensor:
        """``p(Y | y_t)``."""
        return prediction.softmax(-1)

    def step(self, y: Tensor, foreseen: Tensor, t: int, before: int | None, noise: Tensor) -> Tensor:
        """A draw of the reverse step."""
        turn = self.process.posterior if self.rule == "joint" else self.process.reverse
        return drawn(turn(y, foreseen, t, before or 0), noise)

    def noised(self, labels: Tensor, t: int | None, noise: Tensor) -> Tensor:
        """A draw of ``q(y_t | Y)``."""
        return self.process.noised(labels, noise, t or 0)

    def absent(self, t: int, noise: Tensor, other: Tensor) -> Tensor:
        """A draw of the limit."""
        return self.process.absent(other)

    def read(self, y: Tensor) -> Tensor:
        """As it is."""
        return y
