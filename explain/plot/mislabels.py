"""Rankings of training examples: how soon checking in that order finds the wrong labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from explain.plot.lines import finished, look
from explain.plot.style import axes


def mislabels(checked: ArrayLike, found: Mapping[str, ArrayLike], ax: Axes | None = None, what: str = "") -> Axes:
    """How much is found, or recovered, as more training examples are checked; a band of two standard errors.

    Args:
        checked: ``[k]``, the fraction of the examples checked.
        found: by ranking ``[k]``, or ``[repeats, k]`` whose mean is drawn.
        ax: to draw on.
        what: is on y; "wrong labels found" when empty.

    Raises:
        ValueError: curves of another length.

    >>> mislabels([0.0, 1.0], {"loss": [[0.0, 1.0], [0.0, 1.0]]}).lines[0].get_ydata().tolist()
    [0.0, 1.0]
    """
    x = np.asarray(checked, dtype=float)
    ax = axes(ax, (5.2, 3.8))
    for i, (name, given) in enumerate(found.items()):
        curves = np.atleast_2d(np.asarray(given, dtype=float))
        if curves.shape[1] != len(x):
            raise ValueError(f"{name} must have {len(x)} values, one a fraction checked, got {curves.shape[1]}")
        mean = curves.mean(0)
        style = look(i) | ({"marker": ""} if len(x) > 30 else {})
        ax.plot(x, mean, label=name.replace("_", " "), **style)
        if len(curves) > 1:
            spread = 2 * curves.std(0, ddof=1) / np.sqrt(len(curves))
            ax.fill_between(x, mean - spread, mean + spread, color=style["color"], alpha=0.2, linewidth=0)
    ax.set(xlabel="training examples checked", ylabel=what or "wrong labels found")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return finished(ax)
