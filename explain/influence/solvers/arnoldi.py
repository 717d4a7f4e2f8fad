"""The inverse on the few directions of largest curvature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.solvers.solution import Solution, residuals
from explain.influence.spectrum import Indefinite, Spectrum
from explain.progress import in_sight


@dataclass(frozen=True)
class Arnoldi:
    """``x = sum_k (u_k . b) / lambda_k u_k`` over the ``rank`` largest eigenvalues of ``A`` (Schioppa et al. 2022).

    Eigenpairs by Arnoldi's iteration from a random vector, which for a symmetric ``A`` is Lanczos's, every new vector
    made orthogonal to all before. What ``b`` has outside of these directions is lost: the residual says how much. With
    ``rank`` the number of parameters it is exact.

    Args:
        rank: eigenpairs that are kept.
        iterations: products with ``A``, at least ``rank``; twice as many when None.

    Raises:
        ValueError: a setting that is not positive, or fewer iterations than ``rank``.
    """

    rank: int = 50
    iterations: int | None = None

    name = "arnoldi"
    remedy = "Keep more directions (rank=) or add damping; solver='cg' loses none"

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.iterations is not None and self.iterations < self.rank):
            raise ValueError(f"rank must be at least 1 and iterations at least rank, got {self}")

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``A^-1 b`` within the directions found.

        Raises:
            Indefinite: one of the largest eigenvalues, by absolute value, is not positive.
        """
        steps = min(self.iterations or 2 * self.rank, A.size)
        values, vectors = ritz_pairs(A, steps, generator, progress)
        kept = values.abs().argsort(descending=True)[: self.rank]
        values, vectors = values[kept], vectors[:, kept]
        if not (values > 1e-12 * values.abs().max()).all():
            raise Indefinite(A, Spectrum(float(values.min()), float(values.max()), 0.0, self.name))
        b = b.double()
        inside = vectors.T @ b.reshape(A.size, -1)
        x = (vectors @ (inside / values[:, None])).reshape(b.shape)
        outside = b - (vectors @ inside).reshape(b.shape)
        checks = {
            "rank": len(values),
            "smallest_kept": float(values.min()),
            "outside": float(outside.norm() / b.norm()) if b.any() else 0.0,
        }
        each = residuals(b - A @ x, b)
        return Solution(x, float(each.max()), steps, residuals=each, checks=checks)


def ritz_pairs(A: Curvature, steps: int, generator: torch.Generator, progress: bool = False) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[steps]`` and eigenvectors ``[p, steps]`` of ``A`` within a Krylov space, float64.

    Where that space ends early, as it does for a matrix of few distinct eigenvalues, it goes on from a new random
    vector: nothing is divided by zero, and ``steps = p`` finds them all.
    """
    device = A.theta.device
    basis = torch.zeros(steps, A.size, dtype=torch.float64, device=device)
    projected = torch.zeros(steps, steps, dtype=torch.float64, device=device)
    left = _orthogonal(_random(A, generator), basis[:0])
    largest = 0.0
    for k in in_sight(range(steps), desc="arnoldi", progress=progress):
        basis[k] = left / left.norm()
        product = A @ basis[k]
        projected[: k + 1, k] = basis[: k + 1] @ product
        largest = max(largest, float(product.norm()))
        left = _orthogonal(product, basis[: k + 1])
        if not left.norm() > 1e-10 * largest:
            left = _orthogonal(_random(A, generator), basis[: k + 1])
    upper = projected.triu()
    values, vectors = torch.linalg.eigh(upper + upper.triu(1).T)
    return values, basis.T @ vectors


def _random(A: Curvature, generator: torch.Generator) -> Tensor:
    return torch.randn(A.size, generator=generator, dtype=torch.float64).to(A.theta.device)


def _orthogonal(v: Tensor, basis: Tensor) -> Tensor:
    """What ``v`` has outside of the orthonormal rows of ``basis``; twice, as once leaves rounding (Parlett 1980)."""
    for _ in range(2):
        v = v - basis.T @ (basis @ v)
    return v
