"""Conjugate gradients after a randomised look at the large end of the curvature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.solvers.cg import block_cg
from explain.influence.solvers.low_rank import LowRank
from explain.influence.solvers.solution import Solution
from explain.influence.spectrum import Indefinite, Spectrum


def nystrom(A: Curvature, rank: int, spectrum: Spectrum, generator: torch.Generator) -> LowRank:
    """The preconditioner of Frangella, Tropp and Udell (2023) out of ``A @ Omega``, ``Omega [p, rank]`` Gaussian.

    ``U`` and ``values`` are the eigenpairs of ``(A Omega) (Omega^T A Omega)^-1 (A Omega)^T``, which is never above
    ``A``; ``shift``, their smallest, stands for all that was not looked at.

    Raises:
        Indefinite: ``A`` is not positive definite along ``Omega``.
    """
    draws = torch.randn(A.size, min(rank, A.size), generator=generator, dtype=torch.float64).to(A.theta.device)
    omega = torch.linalg.qr(draws).Q
    Y = A @ omega
    nu = torch.finfo(A.theta.dtype).eps * float(Y.norm())  # keeps the factorisation clear of rounding
    Y = Y + nu * omega
    inner = omega.T @ Y
    factor, failed = torch.linalg.cholesky_ex((inner + inner.T) / 2)
    if failed:
        raise Indefinite(A, spectrum)
    B = torch.linalg.solve_triangular(factor, Y.T, upper=False)  # [rank, p], A is about B^T B
    values, vectors = torch.linalg.eigh(B @ B.T)
    kept = values > 1e-12 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    U = B.T @ vectors / values.sqrt()
    values = (values - nu).clamp_min(nu)
    return LowRank(U, values, max(float(values.min()), 1e-300))


@dataclass(frozen=True)
class NystromCG:
    """Block conjugate gradients on ``M^-1 A``, ``M`` a Nyström approximation of ``A`` (Frangella, Tropp, Udell 2023).

    ``rank`` products buy a system whose condition is about ``lambda_rank / lambda_min`` instead of ``lambda_max /
    lambda_min``: worth it for few right-hand sides and a curvature with few large eigenvalues. Many right-hand sides
    find those by themselves, in the Krylov space that they share.

    Args:
        rank: columns of the sketch.
        tolerance: as of `ConjugateGradient`.
        max_iterations: as of `ConjugateGradient`.

    Raises:
        ValueError: a setting that is not positive.
    """

    rank: int = 64
    tolerance: float = 1e-6
    max_iterations: int = 1000

    name = "nystrom"

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.tolerance > 0 or self.max_iterations < 1:
            raise ValueError(f"rank, tolerance and max_iterations must be above 0, got {self}")

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``A^-1 b``.

        Raises:
            Indefinite: a direction of negative curvature was met.
        """
        M = nystrom(A, self.rank, spectrum, generator)
        found = block_cg(A, b, spectrum, self.tolerance, self.max_iterations, M, progress, "nystrom cg")
        found.checks.update(rank=len(M.values), smallest_kept=float(M.values.min()))
        return found
