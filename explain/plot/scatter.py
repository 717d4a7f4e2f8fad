"""Predicted against actual, with the identity line and Pearson's r."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from explain.plot.style import DOWN, INK, axes

Points: TypeAlias = ArrayLike


def scatter(
    predicted: Points, actual: Points, ax: Axes | None = None, error: Points | None = None, label: str = "change"
) -> Axes:
    """One point an example, ``predicted [n]`` on y against ``actual [n]`` on x; ``error [n]`` is the prediction's.

    Raises:
        ValueError: different lengths, or NaN or infinity.

    >>> scatter([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).texts[0].get_text()
    'Pearson r = 1.000, n = 3'
    """
    x, y = (np.asarray(points, dtype=float).reshape(-1) for points in (actual, predicted))
    if x.shape != y.shape:
        raise ValueError(f"predicted and actual must be of one length, got {len(y)} and {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("predicted and actual must be finite: leave out the examples that failed")
    ax = axes(ax, (4.6, 4.4))
    ends = _limits(np.concatenate([x, y]))
    ax.plot(ends, ends, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="identity", zorder=1)
    ax.errorbar(
        x, y, yerr=error, fmt="o", markersize=5, color=DOWN, alpha=0.75, elinewidth=0.8, markeredgecolor="white",
        markeredgewidth=0.5, zorder=2,
    )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))  # the same ticks, which have room for small numbers
    ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"actual {label}", ylabel=f"predicted {label}")
    ax.text(0.04, 0.96, f"Pearson r = {_said(pearson(x, y))}, n = {len(x)}", transform=ax.transAxes, va="top")
    ax.legend(loc="lower right", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    return ax


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r, NaN where a side is constant or there are fewer than two points."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _said(r: float) -> str:
    return "undefined" if np.isnan(r) else f"{r:.3f}"


def _limits(points: np.ndarray) -> tuple[float, float]:
    low, high = (points.min(), points.max()) if len(points) else (0.0, 1.0)
    room = 0.06 * (high - low) or max(abs(high), 1.0)
    return low - room, high + room
