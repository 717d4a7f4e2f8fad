"""Shapley values from random orders of the players and their reverses."""

from __future__ import annotations

import torch
from scipy.special import stdtrit
from torch import Tensor

from explain.progress import in_sight
from explain.shapley.estimate import Estimate
from explain.types import Game, Masks, Scores

_LEAST_PAIRS = 4  # below, their spread says too little about the error
_PRIOR = 8.0  # degrees of freedom by which a player's variance is drawn to the mean variance
_ROWS = 2**16  # coalitions whose masks exist at one time


def permutation_values(game: Game, samples: int, generator: torch.Generator, progress: bool = False) -> Estimate:
    """Antithetic permutation sampling (Castro et al. 2009; Mitchell et al. 2022).

    ``phi_i`` is the mean, over random orders, of what player ``i`` adds to those before it. Each order comes with its
    reverse: its coalitions are the complements, and the two errors partly cancel. The ends are evaluated once, so
    ``k`` pairs cost ``2 + 2 k (P - 1)`` evaluations; the standard error is that of a mean of ``k`` independent pairs.

    Where a player matters in very few orders (a close vote), a small budget still understates the error.

    Raises:
        ValueError: not enough samples for four pairs (``8 P`` always are), too few to tell the error from.
    """
    players = len(game.players)
    pairs = (samples - 2) // (2 * (players - 1))
    if pairs < _LEAST_PAIRS:
        least = 2 + 2 * _LEAST_PAIRS * (players - 1)
        raise ValueError(f"permutation needs samples={least} or more for {players} players, got {samples}")
    base, value = game.ends()
    step = max(1, _ROWS // (2 * (players - 1)))
    found = []
    with in_sight(total=pairs, desc="permutations", progress=progress) as bar:
        for start in range(0, pairs, step):
            ranks = _random_ranks(min(step, pairs - start), players, generator)
            found.append(_pair_means(game, ranks, base, value))
            bar.update(len(ranks))
    means = torch.cat(found)
    return Estimate(means.mean(0), _standard_errors(means), base, value, {"permutations": 2 * pairs})


def _standard_errors(means: Scores) -> Scores:
    """Standard error of the mean over the pairs, ``[pairs, P] -> [P]``.

    A player who matters in few orders may have mattered in none of those drawn; that would read as no error at all. So
    each variance is drawn a little to the mean over players (an empirical-Bayes variance, Smyth 2004). What few pairs
    leave unsure about it is Student's t: errors are widened so that 1.96 of them hold 95 %.
    """
    pairs = len(means)
    variance, freedom = means.var(0), pairs - 1 + _PRIOR
    pooled = ((pairs - 1) * variance + _PRIOR * variance.mean()) / freedom
    return (pooled / pairs).sqrt() * (stdtrit(freedom, 0.975) / 1.96)


def _random_ranks(orders: int, players: int, generator: torch.Generator) -> Tensor:
    """Each player's place in a random order, int64 ``[orders, P]``."""
    return torch.rand(orders, players, generator=generator, dtype=torch.float64).argsort(1)


def _pair_means(game: Game, ranks: Tensor, base: float, value: float) -> Scores:
    """What each player adds, averaged over an order and its reverse, ``[orders, P]``."""
    orders, players = ranks.shape
    prefixes: Masks = ranks[:, None, :] < torch.arange(1, players)[:, None]
    inside = game(torch.cat([prefixes, ~prefixes]).flatten(0, 1)).view(2, orders, players - 1)
    first = torch.full((2, orders, 1), base, dtype=torch.float64)
    last = torch.full((2, orders, 1), value, dtype=torch.float64)
    forward = torch.cat([first[0], inside[0], last[0]], 1).diff()
    # the complement of a prefix of the order is a prefix of the reverse: read downwards from all to none
    backward = -torch.cat([last[1], inside[1], first[1]], 1).diff()
    return ((forward + backward) / 2).gather(1, ranks)
