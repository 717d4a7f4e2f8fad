"""Conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from explain.influence.curvature import Curvature
from explain.influence.solution import Solution, relative, residual
from explain.influence.spectrum import Indefinite, Spectrum


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradients (Hestenes and Stiefel 1952), all columns of ``b`` in one product a step.

    Args:
        tolerance: stops once ``|A x - b| <= tolerance |b|`` for every column; no finer than the model's own precision.
        max_iterations: the most steps; the residual then says how far it came.

    Raises:
        ValueError: a setting that is not positive.
    """

    tolerance: float = 1e-6
    max_iterations: int = 1000

    name = "cg"

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.max_iterations < 1:
            raise ValueError(f"tolerance and max_iterations must be above 0, got {self}")

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``A^-1 b``.

        Raises:
            Indefinite: a direction of negative curvature was met.
        """
        b = b.double()
        tolerance = max(self.tolerance, torch.finfo(A.theta.dtype).eps)
        x, r, d = torch.zeros_like(b), b.clone(), b.clone()
        rr, steps = (r * r).sum(0), 0
        for _ in tqdm(range(self.max_iterations), desc="cg", disable=not progress, leave=False):
            active = rr > tolerance**2 * (b * b).sum(0)
            if not active.any():
                break
            Ad = A @ d
            curvature = (d * Ad).sum(0)
            if (curvature[active] <= 0).any() if b.dim() > 1 else curvature <= 0:
                found = float((curvature / (d * d).sum(0)).where(active, torch.inf).min())
                raise Indefinite(A.name, spectrum._replace(smallest=min(found, spectrum.smallest)))
            step = (rr / curvature).where(active, 0.0)
            x, r = x + step * d, r - step * Ad
            before, rr = rr, (r * r).sum(0)
            d = torch.where(active, r + rr / before * d, d)
            steps += 1
        true = residual(A, x, b)
        return Solution(x, true, steps, checks={"converged": relative(r, b) <= tolerance})
