"""What every solver of ``A x = b`` answers with, and the proof of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class Solution:
    """``x ~= A^-1 b`` and how good it is.

    Args:
        x: float64, the shape of ``b``.
        residual: the true ``|A x - b| / |b|``, the worst of the columns, measured with products of the whole operator.
        iterations: steps taken.
        samples: ``[repeats, *b.shape]`` independent estimates whose mean ``x`` is, for a solver that samples.
        remaining: about what more steps would add to ``x``, for a solver that can tell.
        residuals: the residual of each column, ``[k]``, for a solver that tells them apart.
        checks: what else the solver says about its work, as plain JSON values.
    """

    x: Tensor
    residual: float
    iterations: int
    samples: Tensor | None = None
    remaining: Tensor | None = None
    residuals: Tensor | None = None
    checks: dict[str, Any] = field(default_factory=dict)

    def column(self, k: int) -> Solution:
        """The solution of column ``k`` of ``b [p, k]``."""
        return replace(
            self,
            x=self.x[:, k],
            residual=self.residual if self.residuals is None else float(self.residuals[k]),
            residuals=None,
            samples=None if self.samples is None else self.samples[..., k],
            remaining=None if self.remaining is None else self.remaining[:, k],
        )


class Solver(Protocol):
    """A way to solve ``A x = b``. A new one is one file with a frozen dataclass of settings and this method."""

    @property
    def name(self) -> str:
        """As it is asked for and written into ``checks``."""

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``A^-1 b`` for ``b [p]`` or ``[p, k]``; ``spectrum`` is that of ``A``."""


def residual(A: Curvature, x: Tensor, b: Tensor) -> float:
    """``|A x - b| / |b|``, the worst of the columns; 0 for a column that asks for nothing.

    >>> relative(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 10.0]))
    0.5
    """
    return relative(b - A @ x, b)


def relative(r: Tensor, b: Tensor) -> float:
    """``|r| / |b|``, the worst of the columns."""
    return float(residuals(r, b).max())


def residuals(r: Tensor, b: Tensor) -> Tensor:
    """``|r| / |b|`` of each column, ``[p, k] -> [k]``, or ``[p] -> [1]``."""
    size = norms(b.double().reshape(len(b), -1))
    found = norms(r.double().reshape(len(r), -1)) / size.clamp_min(torch.finfo(torch.float64).tiny)
    return found.where(size > 0, 0.0)


def norms(columns: Tensor) -> Tensor:
    """``|column|`` of each, ``[p, k] -> [k]``; far cheaper than ``norm(dim=0)`` where columns are long and few."""
    return columns.square().sum(0).sqrt()
