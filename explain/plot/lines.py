"""What pictures of several lines share: colours, marks and dashes that can be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from explain.plot.marks import legend_below

# Okabe and Ito's, dark enough on white, told apart with every colour blindness; the dash and the mark differ too
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#a07000")
MARKS = "osD^vP"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


def paired(name: str, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of one length.

    Raises:
        ValueError: they are not of one.
    """
    first, second = (np.asarray(part, dtype=float).reshape(-1) for part in (x, y))
    if first.shape != second.shape:
        raise ValueError(f"{name} must be two lists of one length, got {len(first)} and {len(second)}")
    return first, second


def look(i: int) -> dict[str, Any]:
    """Colour, mark and dash of the i-th line."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKS[i % len(MARKS)],
        "linestyle": DASHES[i % len(DASHES)],
        "markersize": 5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
    }


def finished(ax: Axes) -> Axes:
    """A legend, and no more frame than is needed."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    legend_below(ax, ax.get_legend_handles_labels()[0], 36)
    return ax
