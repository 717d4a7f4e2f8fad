"""Paired KernelSHAP: Shapley values as a constrained weighted regression."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.shapley.complements import Pairs
from explain.shapley.design import Design, design
from explain.shapley.estimate import Estimate
from explain.types import Game, Scores, Values


def kernel_values(game: Game, samples: int, generator: torch.Generator, progress: bool = False) -> Estimate:
    r"""KernelSHAP (Lundberg, Lee 2017) on coalitions paired with their complements (Covert, Lee 2021).

    ``phi = argmin sum over S of k(S) (v(S) - v(empty) - sum over i in S of phi_i)^2``  subject to
    ``sum phi = v(all) - v(empty)``, with the Shapley kernel ``k(S) = (P - 1) / (C(P, |S|) |S| (P - |S|))``.

    With ``S`` and its complement both present the sum of the two residuals does not depend on ``phi``. What is left is
    a regression of ``d = v(S) - v(complement)`` on the signs ``x in {-1, 1}^P`` of membership. Coalitions are drawn by
    leverage score, none twice (Musco, Witter 2025). Small and large sizes are complete where the budget covers them;
    with all ``2^P`` coalitions the values are exact.

    Raises:
        ValueError: fewer than ``6 P`` samples (or ``2^P``, if that is less): too few for honest standard errors.
    """
    fit = regression(game, samples, generator, progress, "kernel")
    error = standard_errors(fit.drawn, fit.residuals) if fit.sampled else None
    return Estimate(fit.scores, error, fit.base, fit.value, fit.checks)


class Fit(NamedTuple):
    """``scores [P]``; of each pair of coalitions ``residuals [pairs]``, what of its difference an additive game leaves,
    and ``sums [pairs]``, both values together.
    """

    drawn: Design
    scores: Scores
    residuals: Tensor
    sums: Tensor
    base: float
    value: float
    checks: dict[str, Any]

    @property
    def sampled(self) -> bool:
        """Whether chance had a part: not every coalition was evaluated."""
        return bool(self.drawn.pairs.unseen.any())


def regression(game: Game, samples: int, generator: torch.Generator, progress: bool, estimator: str) -> Fit:
    """The regression of `kernel_values`, for the estimator of this name.

    Raises:
        ValueError: too few samples.
    """
    players = len(game.players)
    least = min(2**players, 6 * players)
    if samples < least:
        raise ValueError(f"{estimator} needs samples={least} or more for {players} players, got {samples}")
    drawn = design(players, (samples - 2) // 2, generator, progress)
    ends = torch.tensor([[False], [True]]).expand(2, players)
    values = game(torch.cat([ends, drawn.masks]), progress)
    base, value = values[:2].tolist()
    small, large = values[2:].chunk(2)
    differences = small - large
    scores = differences @ drawn.response + drawn.direction * (value - base)
    fitted = drawn.signs @ scores
    checks = {
        "r2": _r2(drawn.pairs, small - base, large - base, fitted, value - base),
        "complete_sizes": _complete_sizes(drawn.pairs, players),
    }
    return Fit(drawn, scores, differences - fitted, small + large, base, value, checks)


def standard_errors(drawn: Design, residuals: Tensor) -> Scores:
    """One standard error of each score, over the draw of the pairs.

    The spread, within each size, of what every pair contributes to the scores: its response times its residual, the
    residual as if the pair had been left out of the fit (the jackknife form of the sandwich, HC3). Sizes taken complete
    add nothing, and others only for the share unseen. A size with a single pair counts with its square.
    """
    sizes, unseen = drawn.pairs.sizes, drawn.pairs.unseen
    shares = drawn.response * (residuals / (1 - drawn.leverage))[:, None]
    counts = torch.bincount(sizes).double()
    means = torch.zeros(len(counts), shares.size(1), dtype=torch.float64).index_add(0, sizes, shares)
    means *= ((counts > 1) / counts.clamp(min=1))[:, None]
    correction = torch.where(counts > 1, counts / (counts - 1).clamp(min=1), 1.0)
    return ((unseen * correction[sizes]) @ (shares - means[sizes]).square()).sqrt()


def _r2(pairs: Pairs, small: Values, large: Values, fitted: Tensor, total: float) -> float | None:
    """Weighted share of the spread of ``v(S) - v(empty)`` that an additive game explains; None for a constant game.

    The scores of a coalition add up to ``(total + fitted) / 2``, those of its complement to ``(total - fitted) / 2``.
    """
    weights, gains = pairs.weights / 2, torch.stack([small, large])
    spread = float(((gains - (gains @ weights).sum()).square() @ weights).sum())
    left = float(((gains - torch.stack([total + fitted, total - fitted]) / 2).square() @ weights).sum())
    return None if spread == 0 else 1 - left / spread


def _complete_sizes(pairs: Pairs, players: int) -> int:
    """How many of the sizes 1 .. P - 1 were enumerated."""
    complete = set(pairs.sizes[pairs.unseen == 0].tolist())
    return len(complete | {players - size for size in complete})
