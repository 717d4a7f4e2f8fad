"""Many answers about the same features, a point each, through shap."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from explain.conversion import to_shap
from explain.credit import Credit
from explain.plot.style import axes, heading, units


def beeswarm(explanations: Sequence[Credit], ax: Axes | None = None, k: int = 10) -> Axes:
    """Each answer a point in each feature's row, at its credit, in the colour of what the feature is there.

    Drawn by ``shap.plots.beeswarm``; rows are in the order of their mean absolute credit, and the last is the rest.

    Args:
        explanations: over features of a table, the same of each.
        ax: where to draw.
        k: rows at most.

    Raises:
        ValueError: fewer than two explanations, or features whose values are not known.
    """
    import shap

    if len(explanations) < 2:
        raise ValueError(f"a beeswarm is of several answers, got {len(explanations)}: plot.bars draws one")
    rows = to_shap(*explanations)
    if rows.data is None:
        raise ValueError(f"a beeswarm needs what each feature is; {explanations[0].players.kind} have no values")
    ax = axes(ax, (7.0, 1.4 + 0.36 * min(k, len(rows.feature_names))))
    shap.plots.beeswarm(rows, max_display=k, ax=ax, show=False, plot_size=None)
    ax.set_xlabel(units(explanations[0]))
    heading(ax, explanations[0].method, f"{len(explanations)} answers")
    return ax
