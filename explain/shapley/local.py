"""Exact values of a number that is a sum of local parts: only coalitions within a neighbourhood matter."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.progress import in_sight
from explain.shapley.estimate import Estimate
from explain.shapley.exact import MOST_PLAYERS, by_size
from explain.types import Game, Masks, Scores, Unsupported, Values

_MOST_COALITIONS = 2**MOST_PLAYERS
_PROBES = 32  # marginals compared before a radius is believed
_TRIALS = 24  # whole coalitions that the result must reproduce
_NOT_LINEAR = (
    "the readout is not linear (a maximum, attention, a layer after an activation), the payoff is another than "
    '"logit", or a norm or a removal reaches over the whole graph'
)
_INSTEAD = 'take estimator="kernel" or "stratified"'


def local_values(game: Game, samples: int, generator: torch.Generator, progress: bool = False) -> Estimate:
    r"""Exact Shapley values by locality (GraphSHAP-IQ, Muschalik et al. 2025); the budget is not needed.

    ``phi_i = sum over T with i of  m(T) / |T|``, ``m(T) = sum over S in T of (-1)^(|T| - |S|) v(S)`` (Harsanyi 1963)

    A graph network with ``l`` layers and a linear readout says a sum over nodes, and each part depends on the players
    within ``l`` hops: ``m(T)`` is zero unless ``T`` lies within one such neighbourhood. So the coalitions within
    neighbourhoods are all that needs to be evaluated. The game offers its neighbourhoods; nothing is taken on trust:
    the radius is the smallest at which marginals depend on players nearby alone, and the coefficients found must add up
    to the number on random coalitions of every size.

    The ``checks``: ``hops``, ``neighbourhoods`` (how many), ``largest`` (players in one), and ``locality_error``, the
    largest difference on those random coalitions relative to the number.

    Raises:
        Unsupported: the game has no neighbourhoods, or its number is not a sum of parts that depend on them.
        ValueError: the neighbourhoods are too large; the message says how many coalitions they hold.
    """
    found = local_game(game, generator, progress)
    return found.estimate(found.effects("shapley"))


class LocalGame(NamedTuple):
    """A game as its Moebius coefficients ``m(T)``.

    ``members``: int64 ``[n]``, the players of each neighbourhood; ``coefficients``: float64 ``[2^n]`` each, ``m(T)``
    where ``T`` lies in no neighbourhood before this one, else zero, so that each ``T`` counts once.
    """

    members: list[Tensor]
    coefficients: list[Tensor]
    players: int
    base: float
    value: float
    checks: dict[str, Any]

    def estimate(self, scores: Scores) -> Estimate:
        """These scores, which are exact."""
        return Estimate(scores, None, self.base, self.value, self.checks)

    def effects(self, index: str) -> Scores:
        """Shapley values, ``sum of m(T) / |T|``, or Banzhaf values, ``sum of m(T) / 2^(|T| - 1)``; ``[P]``."""
        scores = torch.zeros(self.players, dtype=torch.float64)
        for members, coefficients in zip(self.members, self.coefficients, strict=True):
            shares = coefficients * _shares(len(members), 1, index)
            for bit, player in enumerate(members.tolist()):
                scores[player] += shares.view(-1, 2, 2**bit)[:, 1].sum()
        return scores

    def interactions(self, index: str) -> Tensor:
        """Shapley interactions, ``sum of m(T) / (|T| - 1)``, or Banzhaf's, ``m(T) / 2^(|T| - 2)``; ``[P, P]``."""
        found = torch.zeros(self.players, self.players, dtype=torch.float64)
        for members, coefficients in zip(self.members, self.coefficients, strict=True):
            shares = coefficients * _shares(len(members), 2, index)
            players = members.tolist()
            for high in range(1, len(players)):
                upper = shares.view(-1, 2, 2**high)[:, 1]
                for low in range(high):
                    found[players[high], players[low]] += upper.reshape(-1, 2, 2**low)[:, 1].sum()
        return found + found.T

    def __call__(self, masks: Masks) -> Values:
        """The number as the coefficients have it: the sum of ``m(T)`` over all ``T`` in the coalition."""
        total = torch.zeros(len(masks), dtype=torch.float64)
        for members, coefficients in zip(self.members, self.coefficients, strict=True):
            sums = coefficients.clone()
            for bit in range(len(members)):
                without, joined = sums.view(-1, 2, 2**bit).unbind(1)
                joined += without
            total += sums[masks[:, members].long() @ (1 << torch.arange(len(members)))]
        return total


def local_game(game: Game, generator: torch.Generator, progress: bool = False) -> LocalGame:
    """The Moebius coefficients of a game with neighbourhoods; see `local_values` for the errors.

    Raises:
        Unsupported: neighbourhoods are not known, or the number is no sum over them.
    """
    if game.neighbourhoods is None:
        raise Unsupported(
            'estimator="local" needs a number that is a sum over places, each with the players near it: the prediction '
            f'for a whole graph, by nodes, with removal="features"; {_INSTEAD}'
        )
    players, probes = len(game.players), _Probes(game, generator)
    for hops, groups in enumerate(game.neighbourhoods()):
        if max(map(len, groups), default=0) > MOST_PLAYERS:  # and so in every larger one: before anything is asked
            _refuse_if_large(groups, players, hops)
        members = _maximal(groups)
        if not probes.agree(members):
            continue
        _refuse_if_large(members, players, hops)
        coefficients, base, value = _coefficients(game, members, progress)
        checks: dict[str, Any] = {
            "hops": hops,
            "neighbourhoods": len(members),
            "largest": max(map(len, members), default=0),
        }
        found = LocalGame(members, coefficients, players, base, value, checks)
        error = probes.error_of(found)
        if error <= 10 * probes.tolerance:
            checks["locality_error"] = error
            return found
    raise Unsupported(
        "the number is not a sum of parts that each depend on a neighbourhood of these players, whatever its radius: "
        f"{_NOT_LINEAR}; {_INSTEAD}"
    )


class _Probes:
    """Questions to a game whose answers tell whether its number is local."""

    def __init__(self, game: Game, generator: torch.Generator) -> None:
        self.game = game
        players = len(game.players)
        self.asked = torch.randperm(players, generator=generator)[:_PROBES]
        rows = max(_TRIALS, len(self.asked))
        density = torch.linspace(0.3, 1, rows)[torch.randperm(rows, generator=generator)]
        self.masks = torch.rand(rows, players, generator=generator) < density[:, None]
        self.masks[0] = True
        self.values = game(self.masks)
        self.scale = float(self.values.abs().max()) or 1.0
        # what the model was computed in shows in its numbers
        single = bool((self.values.float().double() == self.values).all())
        self.tolerance = 1e-5 if single else 1e-9

    def agree(self, members: list[Tensor]) -> bool:
        """Whether what a player adds to a coalition hangs only on those who share a neighbourhood with it."""
        players = self.masks.size(1)
        if not len(self.asked):
            return True
        inside = torch.zeros(len(members), players)
        for row, group in zip(inside, members, strict=True):
            row[group] = 1
        near = (inside.T @ inside)[self.asked] > 0
        far = self.masks[: len(self.asked)].clone()
        close = far & near
        rows = torch.arange(len(self.asked))
        four = []
        for masks in (far, close):
            for present in (True, False):
                chosen = masks.clone()
                chosen[rows, self.asked] = present
                four.append(chosen)
        values = self.game(torch.cat(four)).view(2, 2, -1)
        marginals = values[:, 0] - values[:, 1]
        return float((marginals[0] - marginals[1]).abs().max()) <= self.tolerance * self.scale

    def error_of(self, found: LocalGame) -> float:
        """The largest difference between the game and its coefficients, relative to the number."""
        return float((found(self.masks) - self.values).abs().max()) / self.scale


def _maximal(groups: list[Tensor]) -> list[Tensor]:
    """The groups that lie in no other, each once, the largest first."""
    kept: list[frozenset[int]] = []
    for group in sorted({frozenset(group.tolist()) for group in groups}, key=lambda g: (-len(g), sorted(g))):
        if not any(group <= other for other in kept):
            kept.append(group)
    return [torch.tensor(sorted(group), dtype=torch.long) for group in kept]


def _refuse_if_large(members: list[Tensor], players: int, hops: int) -> None:
    most, needed = max(map(len, members), default=0), sum(2 ** len(group) for group in members)
    if needed > _MOST_COALITIONS:
        told = str(needed) if most < 64 else f"2^{most}"
        raise ValueError(
            f"exact local values need about {told} or more coalitions, {_MOST_COALITIONS} are the most: {most} of "
            f"{players} players are within {hops} hops of one place, and within fewer the number is not a sum of local "
            f"parts. If the network has fewer layers, {_NOT_LINEAR}; {_INSTEAD}"
        )


def _overlaps(members: list[Tensor]) -> list[Tensor]:
    """For each neighbourhood, whether each of its coalitions lies in one before it, bool ``[2^n]``."""
    found = []
    for number, group in enumerate(members):
        known = torch.zeros(2 ** len(group), dtype=torch.bool)
        for other in members[:number]:
            known[_positions(torch.isin(group, other))] = True
        found.append(known)
    return found


def _new(known: Tensor) -> int:
    return int((~known).sum())


def _positions(chosen: Tensor) -> Tensor:
    """Positions, in the table over all members, of the coalitions of the chosen ones; bool ``[n] -> [2^chosen]``."""
    found = torch.zeros(1, dtype=torch.long)
    for bit in chosen.nonzero().view(-1).tolist():
        found = torch.cat([found, found + (1 << bit)])
    return found


def _coefficients(game: Game, members: list[Tensor], progress: bool) -> tuple[list[Tensor], float, float]:
    base, value = game.ends()
    tables: list[Tensor] = []
    found = []
    overlaps = _overlaps(members)
    with in_sight(total=sum(map(_new, overlaps)), desc="coalitions", progress=progress) as bar:
        for number, (group, known) in enumerate(zip(members, overlaps, strict=True)):
            table = torch.empty(len(known), dtype=torch.float64)
            for other, theirs in zip(members[:number], tables, strict=True):
                table[_positions(torch.isin(group, other))] = theirs[_positions(torch.isin(other, group))]
            for rows in (~known).nonzero().view(-1).split(game.batch_size):
                masks = torch.zeros(len(rows), len(game.players), dtype=torch.bool)
                masks[:, group] = (rows[:, None] >> torch.arange(len(group)) & 1).bool()
                table[rows] = game(masks)
                bar.update(len(rows))
            tables.append(table)
            found.append(_moebius(table).masked_fill(known, 0))
    return found, base, value


def _moebius(table: Tensor) -> Tensor:
    """``m(T) = sum over S in T of (-1)^(|T| - |S|) v(S)``, ``[2^n]``.

    >>> _moebius(torch.tensor([1., 2., 3., 9.])).tolist()
    [1.0, 1.0, 2.0, 5.0]
    """
    found = table.clone()
    for bit in range(len(table).bit_length() - 1):
        without, joined = found.view(-1, 2, 2**bit).unbind(1)
        joined -= without
    return found


def _shares(members: int, order: int, index: str) -> Tensor:
    """The share of ``m(T)`` that each player (order 1) or pair (order 2) in ``T`` gets, by coalition, ``[2^n]``."""
    shapley = index == "shapley"
    sizes = range(members + 1)
    return by_size([(1 / (s - order + 1) if shapley else 0.5 ** (s - order)) if s >= order else 0.0 for s in sizes])
