"""LiSSA: the stochastic recursion of influence functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.solvers.cg import Preconditioner
from explain.influence.solvers.low_rank import LowRank
from explain.influence.solvers.nystrom import nystrom
from explain.influence.solvers.principal import principal
from explain.influence.solvers.recursion import Recursion
from explain.influence.solvers.solution import Solution, residuals
from explain.influence.spectrum import Indefinite, Spectrum, largest_eigenvalue
from explain.progress import in_sight

WHOLE = 2048  # examples up to which every step sees all of them: a cached product costs less than new batches
BATCH = 128
MARGIN = 1.1  # of the scale over the largest eigenvalue measured
DEEPEST = 10_000
RANK = 64  # of the preconditioner that is made by itself
EASY = 10.0  # a condition up to which none is


class Diverged(RuntimeError):
    """The recursion grows instead of settling; the message has the scale and the damping that would do."""


@dataclass(frozen=True)
class Lissa:
    """``x <- x + M^-1 (v - A_batch x) / scale``, mean over the repeats (Agarwal, Bullins and Hazan 2017).

    With ``M = I`` and ``x = h / scale`` this is the published ``h <- v + h - A_batch h / scale``. It settles where the
    eigenvalues of ``M^-1 A / scale`` are in (0, 1], after about ``scale / lambda_min`` steps, with momentum (Polyak
    1964) after about the square root of that; ``M``, a Nyström approximation of ``A`` (`nystrom`), makes that ratio
    small. After each such cycle the true residual ``b - A x`` of the whole training set is measured and becomes the
    next ``v``, so the noise of the batches shrinks with it and a wrong answer is seen. Damping is part of ``A``.

    Args:
        depth: the most steps of a repeat, over all cycles; when None ``(scale / lambda_min) ln(1 / tolerance)`` and
            at most 10,000. It stops sooner at the tolerance, or where two cycles in a row gain nothing.
        scale: measured when None: a tenth above the largest eigenvalue of ``M^-1 A`` and of sampled batches, and
            doubled where the batches still make it grow.
        repeats: independent recursions, whose mean and spread are taken.
        batch_size: examples a step, drawn with replacement; when None all up to 2,048 (one recursion, nothing
            sampled), else 128.
        tolerance: stops once ``|A x - b| <= tolerance |b|``.
        momentum: whether it may be used; given up where the batches are too noisy for it.
        rank: of ``M``, as many products; 0 for the published recursion. When None, and the condition of ``A`` asks for
            it and no scale is given, the rows of `principal` where there are such, else 64 where that is fewer than
            the recursion takes by itself.

    Raises:
        ValueError: a setting that is not positive.
    """

    depth: int | None = None
    scale: float | None = None
    repeats: int = 8
    batch_size: int | None = None
    tolerance: float = 1e-4
    momentum: bool = True
    rank: int | None = None

    name = "lissa"

    def __post_init__(self) -> None:
        given = {"depth": self.depth, "scale": self.scale, "repeats": self.repeats}
        for name, value in {**given, "batch_size": self.batch_size, "tolerance": self.tolerance}.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"Lissa's {name} must be above 0 and finite, got {value}")
        if self.rank is not None and self.rank < 0:
            raise ValueError(f"Lissa's rank must be 0 or more, got {self.rank}")

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``A^-1 b``.

        Raises:
            Diverged: the scale is too small.
            Indefinite: ``A`` is not positive definite.
        """
        if not spectrum.positive:
            raise Indefinite(A, spectrum)
        total = A.objective.size
        size = min(self.batch_size or (total if total <= WHOLE else BATCH), total)
        repeats = 1 if size == total else self.repeats
        M = self._preconditioner(A, b, spectrum, size == total, generator)
        smallest, largest = _ends(A, M, spectrum, generator)
        sampled = largest if size == total else _batch_largest(A, M, size, largest, generator)
        scale = self.scale or MARGIN * sampled
        if scale <= largest / 2:  # then 1 - largest / scale is below -1
            raise Diverged(_remedy(scale, sampled, spectrum))
        depth = self.depth or min(DEEPEST, max(50, math.ceil(scale / smallest * math.log(1 / self.tolerance))))
        run = Recursion(
            A, b, smallest, scale, size, repeats, self.momentum, self.scale is None, generator, M, self.tolerance
        )
        with in_sight(total=depth, desc="lissa", progress=progress) as bar:
            while run.steps < depth and run.residual > self.tolerance and not run.finished:
                bar.update(run.cycle(depth - run.steps))
        if run.residual >= 1 and b.any():
            raise Diverged(_remedy(run.scale, sampled, spectrum))
        checks = {
            "scale": run.scale,
            "depth": depth,
            "repeats": repeats,
            "batch_size": size,
            "momentum": run.momentum,
            "rank": 0 if M is None else len(M.values),
            "condition": run.scale / smallest,
            "largest_eigenvalue_of_batches": sampled,
            "converged": run.residual <= self.tolerance,
        }
        samples = run.samples if repeats > 1 else None
        each = residuals(run.left, run.b)
        return Solution(run.x, run.residual, run.steps, samples, run.remaining, each, checks)

    def _preconditioner(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, whole: bool, generator: torch.Generator
    ) -> LowRank | None:
        rank = self.rank
        if rank is None:
            asks = self.scale is None and A.size > 2 * RANK and spectrum.largest > EASY * spectrum.smallest
            if asks and (found := principal(A)) is not None:
                return found
            rank = RANK if asks and not (whole and self._products(b, spectrum) < RANK) else 0
        return nystrom(A, rank, spectrum, generator) if rank else None

    def _products(self, b: Tensor, spectrum: Spectrum) -> float:
        """About how many products of the whole curvature the recursion with momentum takes by itself."""
        steps = math.sqrt(spectrum.largest / spectrum.smallest) * math.log(2 / self.tolerance)
        return steps * (b.size(1) if b.dim() > 1 else 1)


def _ends(A: Curvature, M: LowRank | None, spectrum: Spectrum, generator: torch.Generator) -> tuple[float, float]:
    """The smallest eigenvalue of ``M^-1 A``, or a lower bound, and the largest.

    That is 1 where ``M`` is never above ``A``. Else ``M`` is at most ``A + shift I``, so ``M^-1 A`` is at least
    ``lambda_min / (lambda_min + shift)``.
    """
    if M is None:
        return spectrum.smallest, spectrum.largest
    if M.below:
        return 1.0, _largest(A, M, generator)
    return spectrum.smallest / (spectrum.smallest + M.shift), _largest(A, M, generator)


def _largest(A: Curvature, M: Preconditioner | None, generator: torch.Generator, steps: int = 12) -> float:
    """The largest eigenvalue of ``M^-1 A``, whose eigenvectors are orthogonal in ``A``: by power iterations there."""
    if M is None:
        return largest_eigenvalue(A, generator, tolerance=1e-2)[0]
    v = torch.randn(A.size, generator=generator, dtype=torch.float64).to(A.theta.device)
    found = 0.0
    for _ in range(steps):
        Av = A @ v
        MAv = M(Av)
        before, found = found, float(Av @ MAv / (Av @ v))  # the Rayleigh quotient in the product of A
        if found < 1.02 * before:
            break
        v = MAv / MAv.norm()
    return found


def _batch_largest(
    A: Curvature, M: Preconditioner | None, size: int, largest: float, generator: torch.Generator, batches: int = 4
) -> float:
    """The largest eigenvalue of a few sampled batches, at least that of the whole."""
    draws = torch.randint(A.objective.size, (batches, size), generator=generator).to(A.theta.device)
    return max(largest, *(_largest(A.on(batch), M, generator) for batch in draws))


def _remedy(scale: float, largest: float, spectrum: Spectrum) -> str:
    return (
        f"LiSSA diverges with scale {scale:.4g}: the largest eigenvalue of the curvature is {spectrum.largest:.4g} "
        f"({largest:.4g} on sampled batches), the smallest {spectrum.smallest:.3g}. Use "
        f"scale={2 * MARGIN * largest:.4g} or scale=None, which measures it; if it still diverges, a larger batch_size "
        f"or damping={0.1 * spectrum.largest:.2g}"
    )
