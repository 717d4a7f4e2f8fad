"""The strongest players as bars, with their standard errors."""

from __future__ import annotations

from matplotlib.axes import Axes

from explain.credit import Credit
from explain.plot.style import DOWN, INK, UP, axes, short, title, units


def bars(explanation: Credit, ax: Axes | None = None, k: int = 10) -> Axes:
    """The ``k`` players with the largest absolute scores, largest on top; whiskers are one standard error.

    >>> import torch
    >>> from explain import Explanation, Players
    >>> why = Explanation(torch.tensor([1.0, -2.0]), Players("features", torch.arange(2)), value=0.0)
    >>> [label.get_text() for label in bars(why).get_yticklabels()]
    ['feature 1', 'feature 0']
    """
    shown = explanation.order()[:k]
    scores = explanation.scores[shown].tolist()
    error = None if explanation.error is None else explanation.error[shown].tolist()
    ax = axes(ax, (6.0, 1.2 + 0.32 * max(len(shown), 2)))
    places = range(len(shown))
    colours = [UP if score > 0 else DOWN for score in scores]
    ax.barh(places, scores, xerr=error, color=colours, height=0.7, ecolor=INK, error_kw={"elinewidth": 1, "capsize": 2})
    ax.set_yticks(places, [short(explanation.players.names[i]) for i in shown.tolist()])
    ax.invert_yaxis()
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    ax.margins(y=0.02)
    ax.locator_params(axis="x", nbins=5)  # small numbers are long
    whiskers = ", whiskers ± 1 s.e." if error is not None else ""
    ax.set_xlabel(f"{units(explanation)}{whiskers}")
    title(ax, explanation)
    if not len(shown):
        ax.text(0.5, 0.5, "no players", transform=ax.transAxes, ha="center", va="center")
    return ax
