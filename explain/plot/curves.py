"""Deletion and insertion: the number while players leave or come, beside chance and plain distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes

from explain.plot.lines import finished, look
from explain.plot.style import INK, axes


class Ordered(Protocol):
    """What the picture needs of an `explain.metrics.Curve`."""

    @property
    def values(self) -> np.ndarray:
        """After each player, ``[P + 1]``."""

    @property
    def at_random(self) -> np.ndarray | None:
        """Where orders are drawn."""

    @property
    def by_distance(self) -> np.ndarray | None:
        """Where the nearest are first; None where there is no distance."""


def curves(found: Mapping[str, Ordered], ax: Axes | None = None, inserted: bool = False) -> Axes:
    """A line a method; in grey what orders drawn at random reach, and on graphs the nearest first.

    Args:
        found: by method, of `explain.metrics.deletion` or `insertion`, all over the same players.
        ax: to draw on.
        inserted: whether players come, and do not leave.

    Raises:
        ValueError: no curves.

    >>> import numpy as np
    >>> from explain.metrics import Curve
    >>> ax = curves({"Shapley": Curve(np.array([3.0, 1.0, 0.0]), 1.25, 1.5, np.array([3.0, 1.5, 0.0]))})
    >>> [line.get_label() for line in ax.lines]
    ['Shapley', 'random orders, mean']
    """
    if not found:
        raise ValueError("give at least one curve, of explain.metrics.deletion or insertion")
    ax = axes(ax, (5.6, 4.0))
    for i, (name, curve) in enumerate(found.items()):
        ax.plot(_shares(curve.values), curve.values, label=name, **look(i))
    first = next(iter(found.values()))
    for values, said, dash in (
        (first.at_random, "random orders, mean", "--"),
        (first.by_distance, "nearest first", ":"),
    ):
        if values is not None:
            ax.plot(_shares(values), values, label=said, color=INK, linestyle=dash, linewidth=1.2)
    ax.set(xlabel=f"share of players {'inserted' if inserted else 'deleted'}, the strongest first", ylabel="number")
    return finished(ax)


def _shares(values: np.ndarray) -> np.ndarray:
    return np.linspace(0, 1, len(values))
