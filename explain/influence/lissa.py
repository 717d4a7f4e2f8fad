"""LiSSA: the stochastic recursion of influence functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from explain.influence.curvature import Curvature
from explain.influence.recursion import Recursion
from explain.influence.solution import Solution, residuals
from explain.influence.spectrum import Indefinite, Spectrum, largest_eigenvalue

WHOLE = 2048  # examples up to which every step sees all of them: a cached product costs less than new batches
BATCH = 128
MARGIN = 1.1  # of the scale over the largest eigenvalue measured
DEEPEST = 10_000


class Diverged(RuntimeError):
    """The recursion grows instead of settling; the message has the scale and the damping that would do."""


@dataclass(frozen=True)
class Lissa:
    """``h <- v + h - A_batch h / scale``, started from ``v``; ``x = h / scale``, mean over the repeats (Agarwal 2017).

    Settles where the eigenvalues of ``A / scale`` are in (0, 1], after about ``scale / lambda_min`` steps, with
    momentum (Polyak 1964) after about the square root of that. After each such cycle the true residual ``b - A x`` of
    the whole training set is measured and becomes the next ``v``, so the noise of the batches shrinks with it and a
    wrong answer is seen. Damping is part of ``A``.

    Args:
        depth: the most steps of a repeat, over all cycles; when None ``(scale / lambda_min) ln(1 / tolerance)`` and
            at most 10,000. It stops sooner at the tolerance, or where two cycles in a row gain nothing.
        scale: measured when None: a tenth above the largest eigenvalue of ``A`` and of sampled batches, and doubled
            where the batches still make it grow.
        repeats: independent recursions, whose mean and spread are taken.
        batch_size: examples a step, drawn with replacement; when None all up to 2,048 (one recursion, nothing
            sampled), else 128.
        tolerance: stops once ``|A x - b| <= tolerance |b|``.
        momentum: whether it may be used; given up where the batches are too noisy for it.

    Raises:
        ValueError: a setting that is not positive.
    """

    depth: int | None = None
    scale: float | None = None
    repeats: int = 8
    batch_size: int | None = None
    tolerance: float = 1e-4
    momentum: bool = True

    name = "lissa"

    def __post_init__(self) -> None:
        given = {"depth": self.depth, "scale": self.scale, "repeats": self.repeats}
        for name, value in {**given, "batch_size": self.batch_size, "tolerance": self.tolerance}.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"Lissa's {name} must be above 0 and finite, got {value}")

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """``A^-1 b``.

        Raises:
            Diverged: the scale is too small.
            Indefinite: ``A`` is not positive definite.
        """
        if not spectrum.positive:
            raise Indefinite(A.name, spectrum)
        total = A.objective.size
        size = min(self.batch_size or (total if total <= WHOLE else BATCH), total)
        largest = spectrum.largest if size == total else _batch_largest(A, size, spectrum, generator)
        scale = self.scale or MARGIN * largest
        if scale <= spectrum.largest / 2:  # then 1 - largest / scale is below -1
            raise _diverged(scale, largest, spectrum)
        depth = self.depth or min(DEEPEST, math.ceil(scale / spectrum.smallest * math.log(1 / self.tolerance)))
        repeats = 1 if size == total else self.repeats
        run = Recursion(A, b, spectrum.smallest, scale, size, repeats, self.momentum, self.scale is None, generator)
        with tqdm(total=depth, desc="lissa", disable=not progress, leave=False) as bar:
            while run.steps < depth and run.residual > self.tolerance and not run.finished:
                bar.update(run.cycle(depth - run.steps))
        if run.residual >= 1 and b.any():
            raise _diverged(run.scale, largest, spectrum)
        checks = {
            "scale": run.scale,
            "depth": depth,
            "repeats": repeats,
            "batch_size": size,
            "momentum": run.momentum,
            "largest_eigenvalue_of_batches": largest,
            "converged": run.residual <= self.tolerance,
        }
        samples = run.samples if repeats > 1 else None
        each = residuals(run.left, run.b)
        return Solution(run.x, run.residual, run.steps, samples, run.remaining, each, checks)


def _batch_largest(A: Curvature, size: int, spectrum: Spectrum, generator: torch.Generator, batches: int = 4) -> float:
    """The largest eigenvalue of a few sampled batches, at least that of the whole."""
    draws = torch.randint(A.objective.size, (batches, size), generator=generator).to(A.theta.device)
    found = [largest_eigenvalue(A.on(batch), generator, tolerance=1e-2)[0] for batch in draws]
    return max(spectrum.largest, *found)


def _diverged(scale: float, largest: float, spectrum: Spectrum) -> Diverged:
    return Diverged(
        f"LiSSA diverges with scale {scale:.4g}: the largest eigenvalue of the curvature is {spectrum.largest:.4g} "
        f"({largest:.4g} on sampled batches), the smallest {spectrum.smallest:.3g}. Use "
        f"scale={2 * MARGIN * largest:.4g} or scale=None, which measures it; if it still diverges, a larger batch_size "
        f"or damping={0.1 * spectrum.largest:.2g}"
    )
