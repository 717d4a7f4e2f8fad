"""What two players add together beyond what each adds alone: exact, and from samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.shapley.banzhaf import least_squares
from explain.shapley.exact import by_size
from explain.types import Values

FITTED = 100  # players up to whom a quadratic regression fits: of more, its matrix takes gigabytes and minutes


class Pairwise(NamedTuple):
    """``interactions [P, P]``, symmetric, zeros on the diagonal; ``error [P, P]``, None where they are exact."""

    interactions: Tensor
    error: Tensor | None


def interactions_of(table: Values, index: str) -> Tensor:
    r"""Pairwise interactions ``[P, P]`` of a game given as its table ``v [2^P]``, zeros on the diagonal.

    ``I_ij = sum over S without i, j of  w(|S|) (v(S + i + j) - v(S + i) - v(S + j) + v(S))``, with
    ``w(s) = s! (P - s - 2)! / (P - 1)!`` for the Shapley interaction index (Grabisch, Roubens 1999) and
    ``w = 2^-(P-2)`` for the Banzhaf interaction index.

    >>> interactions_of(torch.tensor([0., 1., 1., 5.], dtype=torch.float64), "shapley")  # together 3 more than apart
    tensor([[0., 3.],
            [3., 0.]], dtype=torch.float64)
    """
    players = len(table).bit_length() - 1
    found = torch.zeros(players, players, dtype=torch.float64)
    if players < 2:
        return found
    rest = players - 2
    weights = by_size(
        [1 / ((players - 1) * math.comb(rest, size)) if index == "shapley" else 0.5**rest for size in range(rest + 1)]
    )
    for first in range(players):
        without, joined = table.view(-1, 2, 2**first).unbind(1)
        marginals = (joined - without).flatten()
        for second in range(first + 1, players):  # with bit `first` gone, bit `second` has moved down by one
            apart, together = marginals.view(-1, 2, 2 ** (second - 1)).unbind(1)
            found[first, second] = found[second, first] = (together - apart).flatten() @ weights
    return found


def sampled_shapley(masks: Tensor, sums: Tensor, weights: Tensor, unseen: Tensor, ends: float) -> Pairwise:
    r"""Shapley interactions from pairs of a coalition and its complement, stratified by size and membership.

    ``I_ij = 1/(P-1) (e(empty) + sum over sizes s <= P/2 of  mean(e: both) - 2 mean(e: one) + mean(e: neither))``

    with ``e(S) = v(S) + v(complement)``, the means over coalitions of a size with both players in ``S``, one, or
    neither, and size ``P/2`` counted half: a pair of coalitions serves every pair of players (Kolpaczki et al. 2024).
    What is averaged is what a quadratic regression of ``e`` leaves, where there are coalitions enough to fit one.

    Args:
        masks: bool ``[pairs, P]``, as `draw_pairs` gives them.
        sums: ``e [pairs]``.
        weights: of each pair, ``[pairs]``.
        unseen: as `draw_pairs` gives it, ``[pairs]``.
        ends: ``e(empty) = v(empty) + v(all)``.
    """
    signs = 2 * masks.double() - 1
    quadratic, residuals, outside, left = _quadratic(signs, sums, weights, ends)
    players = masks.size(1)
    found = torch.full((players, players), left / (players - 1), dtype=torch.float64)
    variance = torch.zeros(players, players, dtype=torch.float64)
    sizes = masks.sum(1)
    for size in sizes.unique().tolist():
        here = sizes == size
        strata = _HALVES if 2 * size == players else _STRATA
        for factor, select in strata:
            if select is _both and size == 1:
                continue  # there is no such stratum
            mean, spread = _stratum(select, masks[here].double(), residuals[here], outside[here])
            found += factor / (players - 1) * mean
            variance += (factor / (players - 1)) ** 2 * spread * unseen[here][0]
    return _symmetric(found + 2 * quadratic, variance if unseen.any() else None)


def sampled_banzhaf(masks: Tensor, sums: Tensor) -> Pairwise:
    """Banzhaf interactions from random coalitions, every one as likely, paired with their complements.

    ``I_ij = 2 E[e(S) z_i z_j]`` with the signs ``z in {-1, 1}`` of membership: twice the coefficients of the quadratic
    regression of ``e``, or the mean of ``e`` with the two on the same side less the mean with them on different ones.
    """
    signs = 2 * masks.double() - 1
    players = masks.size(1)
    first, second = torch.triu_indices(players, players, 1)
    if _fits(masks):
        products = torch.cat([signs[:, first] * signs[:, second], torch.ones(len(signs), 1, dtype=torch.float64)], 1)
        coefficients, error = least_squares(products, sums)
        found, variance = torch.zeros(2, players, players, dtype=torch.float64)
        found[first, second], variance[first, second] = 2 * coefficients[:-1], (2 * error[:-1]).square()
        return _symmetric(found + found.T, variance + variance.T)
    inside = masks.double()
    same, same_spread = _stratum(_same, inside, sums, sums)
    apart, apart_spread = _stratum(_one, inside, sums, sums)
    return _symmetric(same - apart, same_spread + apart_spread)


def _symmetric(found: Tensor, variance: Tensor | None) -> Pairwise:
    return Pairwise(found.fill_diagonal_(0), None if variance is None else variance.fill_diagonal_(0).sqrt())


def _fits(masks: Tensor) -> bool:
    """Whether there are twice as many pairs of coalitions as pairs of players, and so a quadratic regression."""
    players = masks.size(1)
    return players <= FITTED and len(masks) >= players * (players - 1) + 2


def _quadratic(signs: Tensor, sums: Tensor, weights: Tensor, ends: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """Coefficients ``[P, P]`` of the products of signs, what they leave of each sum, the same as if that pair had been
    left out of the fit, and what they leave of the ends; nothing fitted where there are too few pairs of coalitions.
    """
    players = signs.size(1)
    found = torch.zeros(players, players, dtype=torch.float64)
    if not _fits(signs):
        middle = float(weights @ sums / weights.sum())  # a constant has no interactions, and takes spread away
        return found, sums - middle, sums - middle, ends - middle
    first, second = torch.triu_indices(players, players, 1)
    products = torch.cat([signs[:, first] * signs[:, second], torch.ones(len(signs), 1, dtype=torch.float64)], 1)
    weighted = products * weights[:, None]
    gram = products.T @ weighted
    # complete sizes alone do not tell all products apart; the ridge is undone by the strata
    gram += 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solved = torch.cholesky_solve(weighted.T, torch.linalg.cholesky(gram))  # [columns, pairs]
    coefficients = solved @ sums
    leverage = (solved.T * products).sum(1).clamp(max=1 - 1e-3)
    found[first, second] = coefficients[:-1]
    residuals = sums - products @ coefficients
    return found + found.T, residuals, residuals / (1 - leverage), ends - float(coefficients.sum())


def _both(inside: Tensor, values: Tensor) -> Tensor:
    """Sum of the values of the coalitions that hold both players, ``[P, P]``."""
    return inside.T @ (inside * values[:, None])


def _neither(inside: Tensor, values: Tensor) -> Tensor:
    return _both(1 - inside, values)


def _same(inside: Tensor, values: Tensor) -> Tensor:
    return _both(inside, values) + _neither(inside, values)


def _one(inside: Tensor, values: Tensor) -> Tensor:
    return values.sum() - _same(inside, values)


_Select: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_STRATA: tuple[tuple[float, _Select], ...] = ((1.0, _both), (-2.0, _one), (1.0, _neither))
_HALVES: tuple[tuple[float, _Select], ...] = ((1.0, _same), (-1.0, _one))  # a half and its complement are one pair
_PRIOR = 4.0  # degrees of freedom by which a stratum's variance is drawn to the mean variance


def _stratum(select: _Select, inside: Tensor, values: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the values in a stratum ``[P, P]``, zero where it is empty, and the variance of that mean.

    A stratum of few coalitions may show no spread where there is some: each variance is drawn a little to the mean one
    over pairs of players (an empirical-Bayes variance, Smyth 2004).
    """
    counts = select(inside, torch.ones_like(values))
    number = counts.clamp(min=1)
    mean, centre = select(inside, values) / number, select(inside, outside) / number
    deviations = (select(inside, outside.square()) - number * centre.square()).clamp(min=0)
    freedom = (counts - 1).clamp(min=0)
    off = ~torch.eye(len(counts), dtype=torch.bool)
    free = freedom[off].sum()
    typical = deviations[off].sum() / free if free else outside.square().mean()
    variance = (deviations + _PRIOR * typical) / (freedom + _PRIOR)
    return mean, variance / number
