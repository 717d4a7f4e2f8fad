"""Damping: how well influence foretells retraining with more or less of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from explain.plot.lines import finished, look, paired
from explain.plot.style import INK, axes


def damping(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], ax: Axes | None = None, smallest: float | None = None
) -> Axes:
    """Agreement with retraining over the damping, one line a curvature.

    Args:
        curves: by name ``(dampings [k], Pearson's r [k])``.
        ax: to draw on.
        smallest: eigenvalue of the Hessian; where it is negative, less damping than its size (shaded) leaves the
            Hessian indefinite.

    Raises:
        ValueError: different lengths, or a damping that is not above zero.

    >>> damping({"hessian": ([0.01, 0.1], [0.8, 0.9])}).get_xscale()
    'log'
    """
    ax = axes(ax, (5.2, 3.8))
    for i, (name, (dampings, r)) in enumerate(curves.items()):
        x, y = paired(name, dampings, r)
        if not (x > 0).all():
            raise ValueError(f"dampings of {name} must be above 0 to be drawn on a logarithmic scale")
        order = np.argsort(x, kind="stable")
        ax.plot(x[order], y[order], label=name, **look(i))
    ax.set(xscale="log", xlabel="damping", ylabel="Pearson r with retraining")
    if smallest is not None and smallest < 0:
        left = min(ax.get_xlim()[0], -smallest / 2)
        ax.axvspan(left, -smallest, color=INK, alpha=0.08, linewidth=0, label="Hessian indefinite")
        ax.set_xlim(left=left)
    return finished(ax)
