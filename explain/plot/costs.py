"""Solvers: the error that is left over the seconds spent."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from explain.plot.lines import finished, look, paired
from explain.plot.style import INK, axes


def costs(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], ax: Axes | None = None, goal: float | None = None) -> Axes:
    """Error over cost on logarithmic scales, one line a solver, its points joined in the order given.

    Args:
        curves: by name ``(seconds [k], errors [k])``, both above zero; relative errors.
        ax: to draw on.
        goal: an error to mark.

    Raises:
        ValueError: different lengths, or a number that is not above zero.

    >>> [line.get_label() for line in costs({"cg": ([1.0, 2.0], [0.1, 0.01])}).lines]
    ['cg']
    """
    ax = axes(ax, (5.2, 3.8))
    for i, (name, (seconds, errors)) in enumerate(curves.items()):
        x, y = paired(name, seconds, errors)
        if not ((x > 0).all() and (y > 0).all()):
            raise ValueError(f"seconds and errors of {name} must be above 0 to be drawn on logarithmic scales")
        ax.plot(x, y, label=name, **look(i))
    if goal is not None:
        ax.axhline(goal, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.annotate(f"{goal:.0%}", (1, goal), (-2, 3), ("axes fraction", "data"), "offset points", ha="right")
    ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel="relative error")
    return finished(ax)
