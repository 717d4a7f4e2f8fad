"""The players that an explanation holds for the most important ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from explain.explanation import Explanation


def expect(*given: tuple[Any, type]) -> None:
    """Check that arguments, each with what it should be, stand in their order.

    Raises:
        TypeError: they do not; with the remedy where they only stand in another one.
    """
    if all(isinstance(found, wanted) for found, wanted in given):
        return
    swapped = all(isinstance(found, wanted) for (found, _), (_, wanted) in zip(given, reversed(given), strict=True))
    raise TypeError(
        f"give {' and then '.join(wanted.__name__ for _, wanted in given)}, in this order, got "
        f"{', '.join(type(found).__name__ for found, _ in given)}{': swap them' if swapped else ''}"
    )


def order(why: Explanation, absolute: bool = False) -> Tensor:
    """Positions of the players, int64 ``[P]``, the largest score (or absolute score) first; ties keep their order."""
    return (why.scores.abs() if absolute else why.scores).argsort(descending=True, stable=True)


def count(players: int, size: float) -> int:
    """How many players a size means: a whole number is that many, a fraction below 1 that share, rounded up.

    >>> count(10, 3), count(10, 0.25)
    (3, 3)

    Raises:
        ValueError: not a number of players from 0 to all, nor a share.
    """
    found = math.ceil(size * players - 1e-9) if isinstance(size, float) and 0 <= size <= 1 else size
    if isinstance(found, bool) or found != int(found) or not 0 <= found <= players:
        raise ValueError(f"size must be a whole number from 0 to {players}, or a share from 0.0 to 1.0, got {size!r}")
    return int(found)


def selected(why: Explanation, size: float, absolute: bool = False) -> Tensor:
    """The top players as a mask, bool ``[P]``.

    By signed score unless ``absolute``: players that push the number down come last, and are in the complement.

    >>> from explain.types import Players
    >>> why = Explanation(torch.tensor([0.1, -5.0, 2.0]), Players("nodes", torch.arange(3)), value=1.0)
    >>> selected(why, 1), selected(why, 1, absolute=True)
    (tensor([False, False,  True]), tensor([False,  True, False]))
    """
    mask = torch.zeros(len(why.players), dtype=torch.bool)
    mask[order(why, absolute)[: count(len(mask), size)]] = True
    return mask
