"""Gaussian conditional expectation: absent features drawn given the present ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from explain.doubts import doubt


@dataclass(frozen=True, eq=False)
class Conditional:
    """Absent atoms are drawn given the present ones, ``v(S) = E[f(x) | x_S]``, with ``x ~ N(mu, Sigma)``.

    This is the value function that SHAP is named for (Lundberg & Lee 2017, Aas et al. 2021). ``mu`` and ``Sigma`` are
    those of the background ``[m, *shape]``. The draws ``w ~ N(mu, Sigma)`` are scrambled Sobol normals in antithetic
    pairs, shared by all coalitions, each conditioned by its path (Matheron's rule, Wilson et al. 2020)::

        x | x_S  =  w + Sigma[:, S] Sigma[S, S]^-1 (x_S - w_S)

    Each pair's mean is exactly ``E[x | x_S]``, so the value is exact wherever the number is affine in the absent atoms.
    A covariance whose correlation matrix has its smallest eigenvalue below ``ridge`` (constant or repeated features,
    fewer rows than features) is lifted to it by a multiple of the identity: warned about, and in ``checks``.

    Raises:
        ValueError: fewer than two background rows, an odd or too small number of samples, a ridge that is not positive.

    >>> pair = Conditional(torch.tensor([[-1.0, -2.0], [1.0, 2.0], [-1.0, 1.0], [1.0, -1.0]]), samples=2)
    >>> filled = pair.fill(torch.tensor([3.0, 0.0]), torch.tensor([[True, False]]))  # E[x_1 | x_0] = x_0 / 2
    >>> filled.shape, filled.mean((0, 1))
    (torch.Size([1, 2, 2]), tensor([3.0000, 1.5000]))
    """

    rows: Tensor
    samples: int = 512
    seed: int = 0
    ridge: float = 1e-6
    name: ClassVar[str] = "conditional"
    removal: ClassVar[str] = "conditional"
    formula: ClassVar[str] = "v(S) = E[f(x) | x_S], x Gaussian"
    scale: Tensor = field(init=False, repr=False)
    correlation: Tensor = field(init=False, repr=False)
    standard: Tensor = field(init=False, repr=False)  # the draws w in units of `scale`, [samples, atoms]
    lift: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.rows) < 2:
            raise ValueError(f"a covariance needs at least 2 background rows, got {len(self.rows)}")
        if self.samples < 2 or self.samples % 2:
            raise ValueError(f"samples must be even, antithetic pairs, and at least 2, got {self.samples}")
        if not self.ridge > 0:
            raise ValueError(f"ridge must be positive, got {self.ridge}")
        centred = (self.rows - self.reference).flatten(1).double()
        spread = centred.square().sum(0).div(len(centred) - 1).sqrt()
        scale = torch.where(spread > 0, spread, 1.0)
        correlation = (centred / scale).T @ (centred / scale) / (len(centred) - 1)
        eigenvalues, axes = torch.linalg.eigh(correlation)
        lift = max(0.0, self.ridge - float(eigenvalues[0]))
        if lift > 0:
            doubt(
                f"the background's covariance is singular ({len(self.rows)} rows, {len(scale)} features): its "
                f"correlation matrix was lifted by {lift:.1g}; give more rows, or drop repeated features"
            )
        root = axes * (eigenvalues + lift).clamp(min=0).sqrt()
        normals = _antithetic_normals(self.samples, len(scale), self.seed).to(root)
        correlation = correlation + lift * torch.eye(len(scale)).to(correlation)
        for name, found in (("scale", scale), ("correlation", correlation), ("standard", normals @ root.T)):
            object.__setattr__(self, name, found)
        object.__setattr__(self, "lift", lift)

    @property
    def shape(self) -> torch.Size:
        """The shape of one example."""
        return self.rows.shape[1:]

    @property
    def draws(self) -> int:
        """The samples."""
        return self.samples

    @property
    def reference(self) -> Tensor:
        """The Gaussian's mean."""
        return self.rows.mean(0)

    def fill(self, x: Tensor, present: Tensor) -> Tensor:
        """``[coalitions, samples, *shape]``."""
        known = present.flatten(1).double()
        # the identity on the absent block lets one batched solve serve coalitions of every size
        block = known[:, :, None] * self.correlation * known[:, None, :] + torch.diag_embed(1 - known)
        example = (x - self.reference).flatten().double() / self.scale
        gap = known[:, None, :] * (example - self.standard)
        solved = torch.cholesky_solve(gap.mT, torch.linalg.cholesky(block))
        drawn = self.standard + (self.correlation @ solved).mT
        drawn = (drawn * self.scale).to(x).unflatten(2, x.shape) + self.reference
        return torch.where(present[:, None], x, drawn)

    def checks(self, number: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """How the expectation was taken, and the standard error of ``v(empty)`` over antithetic pairs.

        Sobol points do better than this error says; it is zero up to rounding where the number is affine.
        """
        nothing = torch.zeros(1, *self.shape, dtype=torch.bool, device=self.rows.device)
        first, mirrored = number(self.fill(self.reference, nothing)[0]).double().view(2, -1)
        pairs = (first + mirrored) / 2
        error = float(pairs.std() / len(pairs) ** 0.5) if len(pairs) > 1 else None
        return {
            "background": len(self.rows),
            "conditional_samples": self.samples,
            "conditional_standard_error": error,
            "covariance_ridge": self.lift,
        }


def _antithetic_normals(samples: int, dimensions: int, seed: int) -> Tensor:
    """float64 ``[samples, dimensions]``: scrambled Sobol points as normals, then the same points mirrored."""
    points = SobolEngine(dimensions, scramble=True, seed=seed).draw(samples // 2, dtype=torch.float64)
    half = torch.special.ndtri(points + 2.0**-31)  # the middle of each of 2^30 cells: never 0 or 1
    return torch.cat([half, -half])
