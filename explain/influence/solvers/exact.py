"""The direct solver: the whole matrix, factorised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.solvers.solution import Solution, residuals
from explain.influence.spectrum import Indefinite, Spectrum


@dataclass(frozen=True)
class Exact:
    """``x = A^-1 b`` by the Cholesky factor of ``A [p, p]``, made of ``p`` products. ``O(p^2)`` memory, float64."""

    name = "exact"

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """Exact up to rounding.

        Raises:
            Indefinite: ``A`` is not positive definite.
        """
        factor, failed = torch.linalg.cholesky_ex(A.dense(progress))
        if failed:
            raise Indefinite(A, spectrum)
        columns = b.double().reshape(A.size, -1)
        x = torch.cholesky_solve(columns, factor).reshape(b.shape)
        each = residuals(b - A @ x, b)
        return Solution(x, float(each.max()), iterations=0, residuals=each)
