"""Shapley values from means by coalition size and membership, with the regression as a control variate."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.shapley.design import Design
from explain.shapley.estimate import Estimate
from explain.shapley.kernel import Fit, regression
from explain.types import Game, Scores


def stratified_values(game: Game, samples: int, generator: torch.Generator, progress: bool = False) -> Estimate:
    r"""Stratified sampling (Maleki et al. 2013; Castro et al. 2017), every coalition used for every player.

    ``phi_i = (1/P) sum over sizes s of  mean(v(S): |S| = s + 1, i in S) - mean(v(S): |S| = s, i not in S)``

    Each mean is a stratum of its own (Kolpaczki et al. 2024), so that nothing is lost to the spread between sizes. What
    is averaged is not the number but what the regression of `kernel_values` leaves of it, on the same coalitions: an
    additive game is exact, and the error is that of the interactions only (Witter et al. 2025). A coalition and its
    complement enter by their difference alone. The gap to ``v(all) - v(empty)`` is shared equally.

    A stratum without a coalition counts with the regression.

    Raises:
        ValueError: fewer than ``6 P`` samples (or ``2^P``, if that is less): too few for honest standard errors.
    """
    return adjusted(regression(game, samples, generator, progress, "stratified"))


def adjusted(fit: Fit) -> Estimate:
    """The stratified estimate on the coalitions of a regression."""
    if not fit.sampled:
        return Estimate(fit.scores, None, fit.base, fit.value, fit.checks)
    means, counts = _strata(fit.drawn, fit.residuals)
    correction = (means[:, 0] - means[:, 1]).sum(0) / means.size(2)
    scores = fit.scores + correction - correction.mean()
    error = _standard_errors(fit.drawn, fit.residuals, means, counts)
    return Estimate(scores, error, fit.base, fit.value, fit.checks)


def _strata(drawn: Design, residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Mean residual of the pairs of each size with player ``i`` in ``S``, and in the complement; and their counts.

    Both ``[P // 2 + 1, 2, P]``. Where both halves have the same size they are one stratum, held by both.
    """
    sizes, inside = drawn.pairs.sizes, drawn.pairs.masks
    bins, players = inside.size(1) // 2 + 1, inside.size(1)
    columns = torch.cat([torch.ones(len(inside), 1, dtype=torch.float64), inside.double()], 1)  # all, those with each
    counts, sums = torch.zeros(2, bins, 1 + players, dtype=torch.float64)
    counts.index_add_(0, sizes, columns)
    sums.index_add_(0, sizes, columns * residuals[:, None])
    counts, sums = (torch.stack([each[:, 1:], each[:, :1] - each[:, 1:]], 1) for each in (counts, sums))
    if players % 2 == 0:
        counts[-1] = counts[-1].sum(0)
        half = (sums[-1, 0] - sums[-1, 1]) / 2  # the mean of sign times residual, once for both sides
        sums[-1] = torch.stack([half, -half])
    return sums / counts.clamp(min=1), counts


def _standard_errors(drawn: Design, residuals: Tensor, means: Tensor, counts: Tensor) -> Scores:
    """One standard error of each score, from what each pair contributes beyond the mean of its stratum.

    Residuals as if the pair had been left out, of the fit and of its stratum; the share unseen of each size.
    """
    sizes, unseen, players = drawn.pairs.sizes, drawn.pairs.unseen, means.size(2)
    inside, signs = drawn.pairs.masks, drawn.signs
    if players % 2 == 0:
        means = torch.cat([means[:-1], 2 * means[-1:]])  # there the mean of sign times residual, halved in two
    number = torch.where(inside, counts[sizes, 0], counts[sizes, 1])
    mean = torch.where(inside, means[sizes, 0], means[sizes, 1])
    mean = torch.where(number > 1, mean, 0.0)
    beyond = (residuals / (1 - drawn.leverage))[:, None] - mean
    shares = signs * beyond / (number - 1).clamp(min=1) / players
    shares = shares - shares.mean(1, keepdim=True)
    return (unseen @ shares.square()).sqrt()
