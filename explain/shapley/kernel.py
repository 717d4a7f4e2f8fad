"""Paired KernelSHAP: Shapley values as a constrained weighted regression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explain.shapley.estimate import Estimate
from explain.shapley.pairs import Pairs, draw_pairs
from explain.types import Game, Scores


def kernel_values(game: Game, samples: int, generator: torch.Generator, progress: bool = False) -> Estimate:
    r"""KernelSHAP (Lundberg, Lee 2017) on coalitions paired with their complements (Covert, Lee 2021).

    ``phi = argmin sum over S of k(S) (v(S) - v(empty) - sum over i in S of phi_i)^2``  subject to
    ``sum phi = v(all) - v(empty)``, with the Shapley kernel ``k(S) = (P - 1) / (C(P, |S|) |S| (P - |S|))``.

    With ``S`` and its complement both present the sum of the two residuals does not depend on ``phi``. What is left is
    a regression of ``d = v(S) - v(complement)`` on the signs ``x in {-1, 1}^P`` of membership. Small and large sizes
    are complete where the budget covers them; with all ``2^P`` coalitions the values are exact.

    Raises:
        ValueError: fewer than ``6 P`` samples (or ``2^P``, if that is less): too few for honest standard errors.
    """
    players = len(game.players)
    least = min(2**players, 6 * players)
    if samples < least:
        raise ValueError(f"kernel needs samples={least} or more for {players} players, got {samples}")
    base, value = game.ends()
    pairs = draw_pairs(players, (samples - 2) // 2, generator)
    small, large = game(torch.cat([pairs.masks, ~pairs.masks]), progress).chunk(2)
    fit = _regression(pairs, small - large, value - base)
    error = standard_errors(pairs, fit) if pairs.unseen.any() else None
    checks = {
        "r2": _r2(pairs, torch.cat([small, large]) - base, fit.scores),
        "complete_sizes": _complete_sizes(pairs, players),
    }
    return Estimate(fit.scores, error, base, value, checks)


class Regression(NamedTuple):
    """``scores [P]``, ``residuals [pairs]``, ``response [pairs, P]`` = d scores / d (difference of a pair), and each
    pair's ``leverage [pairs]``, how much of its own difference the fit follows.
    """

    scores: Scores
    residuals: Tensor
    response: Tensor
    leverage: Tensor


def _regression(pairs: Pairs, differences: Tensor, total: float) -> Regression:
    """Weighted least squares of the differences on the signs, with ``sum scores = total``."""
    signs = 2 * pairs.masks.double() - 1
    weighted = signs * pairs.weights[:, None]
    ones = torch.ones(signs.size(1), dtype=torch.float64)
    # the rank-one term is constant where the constraint holds; it makes the matrix definite for two players too
    gram = signs.T @ weighted + torch.ones(signs.size(1), signs.size(1), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    direction = inverse @ ones / (inverse @ ones).sum()
    projected = inverse - torch.outer(direction, inverse @ ones)
    response = weighted @ projected
    scores = differences @ response + direction * total
    return Regression(scores, differences - signs @ scores, response, (response * signs).sum(1))


def standard_errors(pairs: Pairs, fit: Regression) -> Scores:
    """One standard error of each score, over the draw of the pairs.

    The spread, within each size, of what every pair contributes to the scores: its response times its residual, the
    residual as if the pair had been left out of the fit (the jackknife form of the sandwich, HC3). Sizes taken complete
    add nothing, and others only for the share unseen. A size with a single pair counts with its square.
    """
    shares = fit.response * (fit.residuals / (1 - fit.leverage))[:, None]
    bins = int(pairs.sizes.max()) + 1
    counts = torch.bincount(pairs.sizes, minlength=bins).double()
    means = torch.zeros(bins, shares.size(1), dtype=torch.float64).index_add(0, pairs.sizes, shares)
    means = means / counts.clamp(min=1)[:, None] * (counts > 1)[:, None]
    correction = torch.where(counts > 1, counts / (counts - 1).clamp(min=1), 1.0)
    spread = (pairs.unseen * correction[pairs.sizes])[:, None] * (shares - means[pairs.sizes]).square()
    return spread.sum(0).sqrt()


def _r2(pairs: Pairs, gains: Tensor, scores: Scores) -> float | None:
    """Weighted share of the spread of ``v(S) - v(empty)`` that an additive game explains; None for a constant game."""
    weights = torch.cat([pairs.weights, pairs.weights]) / 2
    fitted = torch.cat([pairs.masks, ~pairs.masks]).double() @ scores
    spread = weights @ (gains - weights @ gains).square()
    return None if spread == 0 else float(1 - weights @ (gains - fitted).square() / spread)


def _complete_sizes(pairs: Pairs, players: int) -> int:
    """How many of the sizes 1 .. P - 1 were enumerated."""
    complete = set(pairs.sizes[pairs.unseen == 0].tolist())
    return len(complete | {players - size for size in complete})
