"""The gradient dot product: no inverse at all, the baseline that others should beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.solvers.solution import Solution, residuals
from explain.influence.spectrum import Spectrum


@dataclass(frozen=True)
class GradientDot:
    """``x = b``: one step of gradient descent in place of retraining, ``score_i = -(1/n) grad f . grad loss_i``.

    Many faster methods return about its ranking. The residual says how far the curvature is from the identity.

    >>> from explain.influence import Hessian
    >>> from explain.training import TrainingObjective
    >>> from explain.types import Players
    >>> x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    >>> objective = TrainingObjective({"w": torch.zeros(1, 1)}, Players("train", torch.arange(2)),
    ...                               lambda p, at: x[at] @ p["w"], y, lambda p: p["w"].sum())
    >>> found = GradientDot().solve(Hessian(objective), torch.ones(1), Spectrum(10, 10, 0, ""), torch.Generator())
    >>> found.x, found.residual  # the Hessian is 2 mean(x^2) = 10
    (tensor([1.], dtype=torch.float64), 9.0)
    """

    name = "dot"
    remedy = "It takes the curvature for the identity: read the order of the scores, not their size, or use solver='cg'"

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``b`` itself."""
        x = b.double()
        each = residuals(x - A @ x, x)
        return Solution(x, float(each.max()), iterations=0, residuals=each)
