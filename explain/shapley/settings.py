"""Settings that the explainers of this folder share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from explain.shapley.exact import MOST_PLAYERS
from explain.spelling import came
from explain.types import Players

_EXACT = 2**16  # coalitions that nobody needs to ask for


def check_settings(players: str | Players, estimator: str, known: Iterable[str], samples: int | None) -> None:
    """Raise what is wrong with these settings, before a model is asked anything.

    Raises:
        TypeError: players, or samples, of another type.
        ValueError: an unknown estimator, or samples below one.
    """
    if not isinstance(players, (str, Players)):
        raise TypeError(f'players must be a kind such as "edges", or Players, got {type(players).__name__}')
    if estimator not in ("auto", *known):
        raise ValueError(f"estimator must be one of auto, {', '.join(known)}, {came(estimator, known)}")
    if samples is not None:
        check_count("samples", samples, " or None")


def check_count(name: str, number: Any, otherwise: str = "") -> None:
    """Check that this is a whole number of at least one.

    Raises:
        TypeError: no whole number.
        ValueError: below one.
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int{otherwise}, got {type(number).__name__}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")


def chosen(estimator: str, players: int, samples: int | None, sampled: str) -> str:
    """The estimator that "auto" means: exact where the budget covers every coalition, else the one that samples.

    One player or none is always exact.

    >>> chosen("auto", 16, None, "kernel"), chosen("auto", 17, None, "kernel"), chosen("kernel", 1, 10, "kernel")
    ('exact', 'kernel', 'exact')
    """
    if players <= 1:
        return "exact"
    if estimator != "auto":
        return estimator
    return "exact" if players <= MOST_PLAYERS and 2**players <= (samples or _EXACT) else sampled
