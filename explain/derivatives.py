"""Whether torch's derivative is the number's own: behind a detach, a straight-through, equal eigenvalues it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_WAYS = 2  # directions
_ROUNDING = 16  # units in the last place, by which rounding alone moves the number


class _Precision(NamedTuple):
    """``steps`` of the inputs' size, the first tried first; a ``far`` gap is another derivative than the number's."""

    steps: tuple[float, ...]
    far: float


_DOUBLE = _Precision((1e-5, 1e-6, 1e-4, 1e-7), 1e-3)
_SINGLE = _Precision((3e-3, 1e-3, 1e-2, 3e-4), 0.03)


class Derivative(NamedTuple):
    """How torch's derivative stands to the number's own small steps.

    ``gap``: how far it lies outside the slopes of the steps either way, and further than a kink parts these, as a part
    of the larger of both; ``jumps``: whether the number changes as much however small they are; ``far``: from which gap
    on it is another derivative, and not rounding.
    """

    gap: float
    jumps: bool = False
    far: float = _SINGLE.far

    @property
    def doubt(self) -> str:
        """What is to be said of it; empty where there is nothing."""
        if self.jumps:
            return (
                "the number jumps where it is differentiated, torch's derivative is of nothing there (vectors of equal "
                "eigenvalues, a rounding or a tie inside the model?): use Shapley, Lime or Occlusion"
            )
        if self.gap > self.far:
            return (
                "torch's derivative is not the number's own, small steps of the inputs differ from it by "
                f"{self.gap:.2g} of either (a detach, a straight-through gradient, equal eigenvalues in eigh or svd "
                "inside the model?): credit is of torch's. Shapley, Lime and Occlusion do not differentiate"
            )
        return ""


def derivative(
    f: Callable[[Tensor], Tensor],
    inputs: Tensor,
    value: float,
    gradient: Tensor,
    owned: Tensor,
    generator: torch.Generator,
    batch: int = 2 * _WAYS,
) -> Derivative:
    """``g . d`` against ``(f(x + h d) - f(x)) / h`` and ``(f(x) - f(x - h d)) / h`` along two ``d``: four evaluations.

    ``d`` moves every owned atom, part along ``g``, part at random. More steps ``h`` are tried where these disagree.

    Args:
        f: ``[batch, *atoms] -> [batch]``.
        inputs: ``x``, ``[1, *atoms]``.
        value: ``f(x)``.
        gradient: ``g``, what torch says of f at x, as inputs.
        owned: bool, as inputs: the atoms that move.
        generator: draws ``d``.
        batch: points in one evaluation.
    """
    precision = _DOUBLE if inputs.dtype == torch.float64 else _SINGLE
    if not gradient.isfinite().all():
        return Derivative(1.0, far=precision.far)
    x, g = inputs.detach(), torch.where(owned, gradient, 0).double()
    size = float((x[owned].double() ** 2).mean().sqrt()) if bool(owned.any()) else 0.0
    size = size or 1.0
    ways = torch.randn(_WAYS, *x.shape[1:], generator=generator, dtype=torch.float64).to(x.device)
    ways = torch.where(owned, size * (ways + g / (float(g.norm()) or 1.0)), 0)
    line = _Line(f, x, value, ways, (g * ways).flatten(1).sum(1), size * float(g.norm()), batch)
    first, *others = precision.steps
    moves = {first: line.moves(first)}
    gap, spread = line.outside(moves)
    if gap <= precision.far / 3 and spread <= 0.1:
        return Derivative(gap)
    moves |= {step: line.moves(step) for step in others}
    if line.stands_still(moves):
        return Derivative(1.0, far=precision.far)
    if line.jumps(moves):
        return Derivative(1.0, jumps=True)
    return Derivative(line.outside(moves, line.kink(moves))[0], far=precision.far)


class _Line(NamedTuple):
    """The number along some directions: ``along [ways]`` is what torch says it changes by, ``least`` its usual size."""

    f: Callable[[Tensor], Tensor]
    x: Tensor
    value: float
    ways: Tensor
    along: Tensor
    least: float
    batch: int

    @property
    def rounding(self) -> float:
        return _ROUNDING * torch.finfo(self.x.dtype).eps * abs(self.value)

    def moves(self, step: float) -> Tensor:
        """How far the number moves by a step forwards, and by one backwards, ``[2, ways]``; NaN where it has none."""
        way = step * self.ways
        points = torch.cat([self.x + way, self.x - way]).to(self.x.dtype)
        try:
            with torch.no_grad():
                found = torch.cat([self.f(part) for part in points.split(self.batch)]).double().view(2, -1)
        except Exception:  # whatever a user's forward raises of inputs that it does not know
            return torch.full_like(self.along.expand(2, -1), torch.nan)
        return torch.stack([found[0] - self.value, self.value - found[1]])

    def kink(self, moves: dict[float, Tensor]) -> Tensor:
        """How far the slopes of the smallest step forwards and backwards are apart, ``[ways]``."""
        ahead, behind = moves[min(moves)] / min(moves)
        return (ahead - behind).abs().nan_to_num(0.0)

    def outside(self, moves: dict[float, Tensor], slack: Tensor | float = 0.0) -> tuple[float, float]:
        """How far torch's derivative is outside of all slopes, and how far these are apart, of the larger of both.

        At a kink torch's is one of many, by ``slack`` or less from the slopes.
        """
        slopes = torch.cat([moved / step for step, moved in moves.items()])
        known = slopes.isfinite()  # not where the inputs leave what the number is defined for
        low, high = slopes.where(known, torch.inf).amin(0), slopes.where(known, -torch.inf).amax(0)
        noise = 2 * self.rounding / max(moves)
        most = slopes.abs().where(known, torch.inf).amin(0).maximum(self.along.abs()).clamp(min=self.least or 1e-300)
        outside = ((low - self.along).maximum(self.along - high) - noise - slack).clamp(min=0) / most
        spread = (high - low - 2 * noise).clamp(min=0) / most
        any_known = known.any(0)
        return float(outside.where(any_known, 0).max()), float(spread.where(any_known, 0).max())

    def stands_still(self, moves: dict[float, Tensor]) -> bool:
        """Whether the smallest step does not move the number at all, as behind a rounding, where torch's says more."""
        return not moves[min(moves)].any() and min(moves) * self.least > 10 * self.rounding

    def jumps(self, moves: dict[float, Tensor]) -> bool:
        """Whether the smallest step moves the number by half of what the largest does, or more."""
        sizes = {step: float(moved.abs().max().nan_to_num(0.0)) for step, moved in moves.items()}
        small = min(sizes)
        expected = small * max(float(self.along.abs().max()), self.least)
        return sizes[small] > 0.5 * sizes[max(sizes)] and sizes[small] > 10 * max(expected, self.rounding)
