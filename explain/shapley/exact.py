"""Exact Shapley values from the table of all coalitions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from explain.progress import in_sight
from explain.shapley.estimate import Estimate
from explain.types import Game, Masks, Scores, Values

MOST_PLAYERS = 22
_CHUNK = 2**16  # coalitions whose masks exist at one time


def exact_values(game: Game, samples: int, generator: torch.Generator, progress: bool = False) -> Estimate:
    """Shapley values from all ``2^P`` coalitions (Shapley 1953); the budget and the generator are not needed.

    Raises:
        ValueError: more than 22 players.
    """
    table = table_of(game, progress)
    return Estimate(shapley_values(table), None, float(table[0]), float(table[-1]), {})


def shapley_values(table: Values) -> Scores:
    r"""Shapley values ``[P]`` of a game given as its table ``v [2^P]``, where bit ``i`` of a position is player ``i``.

    ``phi_i = sum over S without i of  |S|! (P - |S| - 1)! / P!  (v(S + i) - v(S))``

    Removing bit ``i`` from the positions leaves the positions of ``P - 1`` players in order, so one vector of weights
    serves every player. A player that never changes the number gets exactly zero.

    Raises:
        ValueError: a length that is no power of two.

    >>> shapley_values(torch.tensor([0., 0., 0., 6.], dtype=torch.float64))  # both are needed
    tensor([3., 3.], dtype=torch.float64)
    """
    players = len(table).bit_length() - 1
    if len(table) != 2**players:
        raise ValueError(f"the table of a game has 2^P values, got {len(table)}")
    if players == 0:
        return torch.zeros(0, dtype=torch.float64)
    weights = _marginal_weights(players)
    scores = torch.empty(players, dtype=torch.float64)
    for player in range(players):
        without, joined = table.view(-1, 2, 2**player).unbind(1)
        scores[player] = (joined - without).flatten() @ weights
    return scores


def coalitions(players: int, start: int, stop: int) -> Masks:
    """The coalitions at positions ``start`` to ``stop`` of the table: bool ``[stop - start, players]``.

    >>> coalitions(2, 0, 4).int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    positions = torch.arange(start, stop, dtype=torch.int32)
    return (positions[:, None] >> torch.arange(players, dtype=torch.int32) & 1).bool()


def table_of(game: Game, progress: bool, others: str = '"kernel" or "stratified"') -> Values:
    """The number for every coalition, ``[2^P]``; ``others``: the estimators that take more players.

    Raises:
        ValueError: more than 22 players.
    """
    players = len(game.players)
    if players > MOST_PLAYERS:
        raise ValueError(
            f"exact values of {players} players need 2^{players} coalitions, and {MOST_PLAYERS} players are the most: "
            f"take estimator={others}, or fewer players"
        )
    if game.table is not None:
        game.calls += 2**players
        return game.table()
    table = torch.empty(2**players, dtype=torch.float64)
    step = min(game.batch_size, _CHUNK)
    with in_sight(total=len(table), desc="coalitions", progress=progress) as bar:
        for start in range(0, len(table), step):
            stop = min(start + step, len(table))
            table[start:stop] = game(coalitions(players, start, stop))
            bar.update(stop - start)
    return table


def _marginal_weights(players: int) -> Tensor:
    """``s! (P - s - 1)! / P!`` for every coalition of ``P - 1`` players, ``[2^(P-1)]``."""
    return by_size([1 / (players * math.comb(players - 1, size)) for size in range(players)])


def by_size(weights: list[float]) -> Tensor:
    """Weights of the sizes ``0 .. players`` for every coalition, float64 ``[2^players]``.

    >>> by_size([1.0, 2.0, 3.0]).tolist()
    [1.0, 2.0, 2.0, 3.0]
    """
    sizes = torch.zeros(1, dtype=torch.uint8)
    for _ in range(len(weights) - 1):
        sizes = torch.cat([sizes, sizes + 1])
    return torch.tensor(weights, dtype=torch.float64)[sizes.int()]
