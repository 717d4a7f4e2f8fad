"""As many samples as a tolerance asks for: rounds of one estimator, pooled until their interval is small enough."""

from __future__ import annotations

import math
from typing import Any

import torch

from explain.doubts import doubt
from explain.shapley.estimate import Estimate, Estimator
from explain.types import Game

FIRST_ROUND = 512  # samples of the first round, or 8 a player where that is more
_GROWTH = 4.0  # the most that one round may multiply the samples spent: sizes that become complete make it fewer
_ROUNDING = 1e-9  # an error below this share of the number is no reason to go on


def until_precise(
    estimator: Estimator,
    game: Game,
    tolerance: float,
    limit: int,
    generator: torch.Generator,
    progress: bool = False,
) -> Estimate:
    r"""Rounds of independent draws, until ``1.96 |error| <= tolerance |scores|`` or ``limit`` samples are spent.

    Scores of all rounds are averaged by their samples, as equal spread would have it, and errors with them:
    ``error^2 = sum over rounds r of (n_r / n)^2 error_r^2``. Each round is as large as all before it, or up to three
    times as large where ``error ~ 1 / sqrt(n)`` says so; so there are few of them, and stopping by a lucky round is
    rare. A round that evaluates every coalition is exact and the last.

    The ``checks``: ``rounds`` (samples of each), ``interval`` (``1.96 |error| / |scores|`` reached), ``stopped``:
    "exact", "precise" or "limit".

    Warns:
        UserWarning: the limit was reached first.
    """
    rounds: list[tuple[int, Estimate]] = []
    budget, spent = min(max(FIRST_ROUND, 8 * len(game.players)), limit), 0
    while True:
        found = estimator(game, budget, generator, progress)
        spent += budget
        rounds.append((budget, found))
        if found.error is None:
            return _reported(found, rounds, "exact")
        pooled = _pooled(rounds)
        interval = _interval(pooled)
        if interval <= tolerance:
            return _reported(pooled, rounds, "precise")
        needed = math.ceil(min(1.1 * spent * (interval / tolerance) ** 2, _GROWTH * spent)) - spent
        budget = min(max(spent, needed), limit - spent)
        if budget < rounds[0][0]:
            doubt(
                f"after {spent} samples the 95 % interval is {interval:.1%} of the scores, more than the tolerance of "
                f"{tolerance:.1%}: raise limit={limit} or tolerance"
            )
            return _reported(pooled, rounds, "limit")


def _pooled(rounds: list[tuple[int, Estimate]]) -> Estimate:
    total = sum(samples for samples, _ in rounds)
    last = rounds[-1][1]
    scores, variance = torch.zeros_like(last.scores), torch.zeros_like(last.scores)
    for samples, found in rounds:
        scores += samples / total * found.scores
        variance += (samples / total * torch.as_tensor(found.error)).square()
    return last._replace(scores=scores, error=variance.sqrt())


def _interval(pooled: Estimate) -> float:
    """``1.96 |error| / |scores|``; zero where the error is rounding."""
    error, scores = float(torch.as_tensor(pooled.error).norm()), float(pooled.scores.norm())
    if error <= _ROUNDING * max(abs(pooled.value), abs(pooled.base)):
        return 0.0
    return 1.96 * error / scores if scores else math.inf


def _reported(pooled: Estimate, rounds: list[tuple[int, Estimate]], stopped: str) -> Estimate:
    interval = _interval(pooled) if pooled.error is not None else 0.0
    said: dict[str, Any] = {**pooled.checks, "rounds": [samples for samples, _ in rounds], "stopped": stopped}
    if "permutations" in said:
        said["permutations"] = sum(found.checks["permutations"] for _, found in rounds)
    return pooled._replace(checks={**said, "interval": interval if math.isfinite(interval) else None})
