"""Conjugate gradients, all right-hand sides in one Krylov space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.solvers.principal import ROWS, principal
from explain.influence.solvers.solution import Solution, norms, relative, residuals
from explain.influence.spectrum import Indefinite, Spectrum
from explain.progress import Bar, in_sight

Preconditioner: TypeAlias = Callable[[Tensor], Tensor]  # M^-1 of a block [p, k], symmetric and positive definite
DEFLATED = 1e-12  # directions whose squared residual is below this share of the largest are dropped
RESTARTS = 4  # from the true residual, where the recurrence has drifted away from it


@dataclass(frozen=True)
class ConjugateGradient:
    """Block conjugate gradients (O'Leary 1980): every column of ``b`` searches the directions of all of them.

    The block is kept orthonormal, and directions that no column needs any more are dropped (Dubrulle 2001), so
    dependent or repeated columns are no trouble. With ``k`` columns it ends after about ``p / k`` products with the
    block, and long before where a few directions carry most of the curvature. Those of a Gauss-Newton matrix are found
    beforehand, in the training examples that the model is least sure of (`principal`).

    Args:
        tolerance: stops once ``|A x - b| <= tolerance |b|`` for every column; no finer than the model's own precision.
        max_iterations: the most steps; the residual then says how far it came.
        rows: the most gradients of single examples that make up the preconditioner, 0 for none.

    Raises:
        ValueError: a setting that is not positive, or rows below 0.
    """

    tolerance: float = 1e-6
    max_iterations: int = 1000
    rows: int = ROWS

    name = "cg"

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.max_iterations < 1 or self.rows < 0:
            raise ValueError(f"tolerance and max_iterations must be above 0 and rows not below, got {self}")

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``A^-1 b``.

        Raises:
            Indefinite: a direction of negative curvature was met.
        """
        M = principal(A, self.rows)
        found = block_cg(A, b, spectrum, self.tolerance, self.max_iterations, M, progress)
        found.checks["rows"] = 0 if M is None else len(M.values)
        return found


def block_cg(
    A: Curvature,
    b: Tensor,
    spectrum: Spectrum,
    tolerance: float,
    max_iterations: int,
    preconditioner: Preconditioner | None = None,
    progress: bool = False,
    desc: str = "cg",
) -> Solution:
    """``A^-1 b`` by block conjugate gradients, preconditioned by ``M^-1``; restarted from the true residual.

    Raises:
        Indefinite: a direction of negative curvature was met.
    """
    tolerance = max(tolerance, torch.finfo(A.theta.dtype).eps)
    columns = b.double().reshape(A.size, -1)
    sizes = norms(columns)
    b1 = columns / torch.where(sizes > 0, sizes, 1.0)
    x, left = torch.zeros_like(b1), b1
    steps, reached = 0, relative(left, b1)
    with in_sight(total=max_iterations, desc=desc, progress=progress) as bar:
        for _ in range(RESTARTS):
            if reached <= tolerance or steps >= max_iterations:
                break
            added, true, taken = _descent(A, left, spectrum, tolerance, max_iterations - steps, preconditioner, bar)
            steps += taken
            before, now = reached, relative(true, b1)
            if not now < before:
                break
            x, left, reached = x + added, true, now
            if now > before / 2:  # the model's own precision allows no more
                break
    checks = {"converged": reached <= tolerance}
    return Solution((x * sizes).reshape(b.shape), reached, steps, residuals=residuals(left, b1), checks=checks)


class _Block(NamedTuple):
    """``R = Q C`` with ``Q^T M^-1 Q = I``, and ``Z = M^-1 Q``: ``Q``, ``Z`` ``[p, r]``, ``C [r, k]``."""

    Q: Tensor
    Z: Tensor
    C: Tensor


def _orthonormal(R: Tensor, M: Preconditioner | None) -> _Block:
    """``R = Q C``; directions that are hardly there are left out."""
    Z = R if M is None else M(R)
    values, vectors = torch.linalg.eigh(_symmetric(R.T @ Z))
    kept = values > DEFLATED * values[-1:].clamp_min(0)
    scale, vectors = values[kept].sqrt(), vectors[:, kept]
    Q = R @ vectors / scale
    return _Block(Q, Q if M is None else Z @ vectors / scale, scale[:, None] * vectors.T)


def _descent(
    A: Curvature,
    b: Tensor,
    spectrum: Spectrum,
    tolerance: float,
    most: int,
    M: Preconditioner | None,
    bar: Bar,
) -> tuple[Tensor, Tensor, int]:
    """``x``, ``b - A x`` and the number of steps, from zero, in Dubrulle's orthonormal form.

    ``T = P^T A P;  x <- x + P T^-1 C;  Q' S = Q - A P T^-1;  P <- M^-1 Q' + P S^T;  C <- S C``. What is left of ``b``
    is summed from the products themselves, not from the recurrence, which drifts away from it.

    Raises:
        Indefinite: ``A`` is not positive definite.
    """
    x, left = torch.zeros_like(b), b
    block = _orthonormal(b, M)
    P, C = block.Z, block.C
    taken = 0
    while taken < most and len(C):
        AP = A @ P
        factor, failed = torch.linalg.cholesky_ex(_symmetric(P.T @ AP))
        if failed:
            raise Indefinite(A, _met(P, AP, spectrum))
        step = torch.cholesky_solve(C, factor)
        x, left = x + P @ step, left - AP @ step
        taken += 1
        bar.update()
        if float(norms(left).max()) <= tolerance:
            break
        block = _orthonormal(block.Q - torch.cholesky_solve(AP.T, factor).T, M)
        C, P = block.C @ C, block.Z + P @ block.C.T
        if len(C) and float(norms(block.Q @ C).max()) <= tolerance / 10:  # the recurrence has nothing more to give
            break
    return x, left, taken


def _met(P: Tensor, AP: Tensor, spectrum: Spectrum) -> Spectrum:
    """The spectrum, with the lowest curvature found within these directions."""
    R = torch.linalg.qr(P, mode="r")[1]
    inverse = torch.linalg.pinv(R)
    lowest = float(torch.linalg.eigvalsh(_symmetric(inverse.T @ (P.T @ AP) @ inverse))[0])
    return spectrum._replace(smallest=min(lowest, spectrum.smallest))


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2
