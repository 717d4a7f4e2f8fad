"""LiSSA: the stochastic recursion of influence functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from explain.influence.curvature import Curvature
from explain.influence.solution import Solution, relative
from explain.influence.spectrum import Indefinite, Spectrum, largest_eigenvalue

WHOLE = 2048  # examples up to which every step sees all of them: a cached product costs less than new batches
BATCH = 128
MARGIN = 1.1  # of the scale over the largest eigenvalue measured
DOUBLINGS = 10
DEEPEST = 10_000


class Diverged(RuntimeError):
    """The recursion grows instead of settling; the message has the scale and the damping that would do."""


@dataclass(frozen=True)
class Lissa:
    """``h <- v + h - A_batch h / scale``, started from ``v``; ``x = h / scale``, mean over the repeats (Agarwal 2017).

    Settles where the eigenvalues of ``A / scale`` are in (0, 1], after about ``scale / lambda_min`` steps. After each
    such cycle the true residual ``b - A x`` of the whole training set is measured and becomes the next ``v``, so the
    noise of the batches shrinks with it and a wrong answer is seen. Damping is part of ``A``.

    Args:
        depth: steps of each repeat over all cycles; when None ``(scale / lambda_min) ln(1 / tolerance)``, at most
            10,000.
        scale: measured when None: a tenth above the largest eigenvalue of ``A`` and of sampled batches, and doubled
            where the batches still make it grow.
        repeats: independent recursions, whose mean and spread are taken.
        batch_size: examples a step, drawn with replacement; when None all up to 2,048 (one recursion, nothing
            sampled), else 128.
        tolerance: stops once ``|A x - b| <= tolerance |b|``.

    Raises:
        ValueError: a setting that is not positive.
    """

    depth: int | None = None
    scale: float | None = None
    repeats: int = 8
    batch_size: int | None = None
    tolerance: float = 1e-4

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
        repeats = 1 if size == total else self.repeats
        depth = self.depth or min(DEEPEST, math.ceil(scale / spectrum.smallest * math.log(1 / self.tolerance)))
        columns = b.double().reshape(A.size, -1)
        found = self._cycles(A, columns, _Recursion(A, size, repeats, generator), scale, depth, spectrum, progress)
        samples = None if repeats == 1 else found.samples.reshape(repeats, *b.shape)
        checks = {
            "scale": found.scale,
            "depth": depth,
            "repeats": repeats,
            "batch_size": size,
            "largest_eigenvalue_of_batches": largest,
            "converged": found.residual <= self.tolerance,
        }
        x, remaining = found.x.reshape(b.shape), found.remaining.reshape(b.shape)
        return Solution(x, found.residual, found.steps, samples, remaining, checks)

    def _cycles(
        self,
        A: Curvature,
        b: Tensor,
        recursion: _Recursion,
        scale: float,
        depth: int,
        spectrum: Spectrum,
        progress: bool,
    ) -> _State:
        nothing = torch.zeros_like(b)
        state = _State(nothing, nothing.expand(recursion.repeats, *b.shape), nothing, relative(b, b), 0, scale)
        r, stalled, doublings = b, 0, 0
        bar = tqdm(total=depth, desc="lissa", disable=not progress, leave=False)
        while state.steps < depth and state.residual > self.tolerance and stalled < 2:
            scale = state.scale
            steps = min(max(10, math.ceil(scale / spectrum.smallest)), 500, depth - state.steps)
            samples = state.x + recursion(r, scale, steps, spectrum)
            x = samples.mean(0)
            bar.update(steps)
            after = b - A @ x if x.isfinite().all() else torch.full_like(b, torch.inf)
            reached = relative(after, b)
            if reached < state.residual:
                stalled = stalled + 1 if reached > 0.99 * state.residual else 0
                remaining = (x - state.x) * reached / (state.residual - reached)  # as of a geometric series
                state, r = _State(x, samples, remaining, reached, state.steps + steps, scale), after
                continue
            if self.scale is None and doublings < DOUBLINGS:
                doublings += 1
                state = state._replace(scale=2 * scale, steps=state.steps + steps)
                continue
            if state.residual >= 1:
                raise _diverged(scale, spectrum.largest, spectrum)
            break  # the noise of the batches lets it come no closer
        bar.close()
        return state


class _State(NamedTuple):
    x: Tensor
    samples: Tensor
    remaining: Tensor
    residual: float
    steps: int
    scale: float


class _Recursion(NamedTuple):
    """The recursion itself, for every repeat at once: ``v [p, k] -> h / scale [repeats, p, k]``."""

    A: Curvature
    batch_size: int
    repeats: int
    generator: torch.Generator

    def __call__(self, v: Tensor, scale: float, steps: int, spectrum: Spectrum) -> Tensor:
        bound = 10 * scale / spectrum.smallest * v.norm()  # no settled recursion is above it
        h = v.expand(self.repeats, *v.shape).clone()
        for _ in range(steps - 1):
            h = v + h - self.product(h) / scale
            if not h.norm() <= bound * math.sqrt(self.repeats):
                return torch.full_like(h, torch.inf)
        return h / scale

    def product(self, h: Tensor) -> Tensor:
        """``A_batch h`` with its own batch for each repeat."""
        total = self.A.objective.size
        if self.batch_size == total:
            return (self.A @ h[0])[None]
        batches = torch.randint(total, (self.repeats, self.batch_size), generator=self.generator)
        return self.A.sampled(batches.to(h.device), h)


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
