"""The strongest players as bars, with their standard errors, and what all the others bring together."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from explain.credit import Credit
from explain.plot.style import FAINT, HATCH, INK, axes, short, signed, title, units

ROUNDING = 1e-12  # of the number: scores below this are zeros
BAR: dict[str, Any] = {"height": 0.7, "ecolor": INK, "error_kw": {"elinewidth": 1, "capsize": 2}}


def bars(explanation: Credit, ax: Axes | None = None, k: int = 10) -> Axes:
    """The ``k`` players with the largest absolute scores, largest on top; whiskers are one standard error.

    Each score stands at its bar, what a feature is at its name. Bars below zero are hatched. The last bar, in grey, is
    the sum of all players that are not shown.

    >>> import torch
    >>> from explain import Explanation, Players
    >>> why = Explanation(torch.tensor([1.0, -2.0, 0.5]), Players("features", torch.arange(3)), value=0.0)
    >>> [label.get_text() for label in bars(why, k=1).get_yticklabels()]
    ['feature 1', '2 others, together']
    """
    shown = explanation.order()[:k].tolist()
    scores = explanation.scores[shown].tolist()
    error = None if explanation.error is None else explanation.error[shown].tolist()
    names = [called(explanation, i, 28) for i in shown]
    rest = len(explanation.scores) - len(shown)
    ax = axes(ax, (6.0, 1.2 + 0.32 * max(len(shown) + (rest > 0), 2)))
    signed(ax.barh(range(len(shown)), scores, xerr=error, **BAR), scores)
    if rest:
        scores.append(float(explanation.scores.sum()) - sum(scores))
        names.append(f"{rest} others, together" if rest > 1 else "1 other")
        ax.barh(len(shown), scores[-1], height=0.7, color=FAINT, hatch=HATCH if scores[-1] < 0 else "")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    plain(ax)
    _say(ax, scores, [*(error or [0.0] * len(shown)), 0.0])
    least = ROUNDING * max(abs(explanation.value), abs(explanation.base or 0.0))
    if max(map(abs, [*scores, *(error or [])]), default=0.0) <= least:
        ax.set_xlim(-1, 1)  # not as wide as what rounding left
    whiskers = ", whiskers ± 1 s.e." if error is not None else ""
    ax.set_xlabel(f"{units(explanation)}{whiskers}")
    title(ax, explanation)
    if not len(explanation.scores):
        ax.text(0.5, 0.5, "no players", transform=ax.transAxes, ha="center", va="center")
    return ax


def waterfall(explanation: Credit, ax: Axes | None = None, k: int = 10) -> Axes:
    """From the base at the bottom to the number at the top: each bar begins where the one below it ends.

    The ``k`` strongest players, strongest on top; below them the others together, and what no player is credited with
    where scores do not add up to the number.

    Raises:
        ValueError: an answer whose scores are no parts of its number: without a base, or of another unit.

    >>> import torch
    >>> from explain import Explanation, Players
    >>> why = Explanation(torch.tensor([1.0, -2.0]), Players("features", torch.arange(2)), value=2.0, base=3.0)
    >>> [label.get_text() for label in waterfall(why).get_yticklabels()]
    ['feature 1', 'feature 0', 'base']
    """
    if explanation.base is None or "scores" in explanation.checks:
        raise ValueError(
            "a waterfall goes from the number's base to the number by scores that are parts of it; "
            f"{explanation.method} has none: plot.bars draws any scores"
        )
    shown = explanation.order()[:k].tolist()
    steps = [(called(explanation, i, 28), float(explanation.scores[i])) for i in shown]
    rest = len(explanation.scores) - len(shown)
    total = float(explanation.scores.sum())
    if rest:
        steps.append((f"{rest} others" if rest > 1 else "1 other", total - sum(score for _, score in steps)))
    gap = explanation.value - explanation.base - total
    if abs(gap) > 1e-6 * max(1.0, abs(explanation.value), abs(explanation.base)):
        steps.append(("credited to nobody", gap))
    scores = np.array([score for _, score in steps])
    ends = explanation.base + np.cumsum(scores[::-1])[::-1]  # of each bar; the last is nearest to the base
    ax = axes(ax, (6.0, 1.6 + 0.32 * max(len(steps), 2)))
    signed(ax.barh(range(len(steps)), scores, left=ends - scores, height=0.7), scores.tolist())
    for row, (end, start) in enumerate(zip(ends, ends - scores, strict=True)):
        ax.plot([start, start], [row, row + 1], color=INK, linewidth=0.6)
        high = max(float(end), float(start))
        ax.annotate(number(float(scores[row])), (high, row), (3, 0), textcoords="offset points", va="center",
                    fontsize="x-small")  # fmt: skip
    for row, place, what in ((len(steps), explanation.base, "base"), (-1, explanation.value, "number")):
        ax.plot([place], [row], marker="|", markersize=14, color=INK)
        ax.annotate(f"{what} {place:.3g}".replace("-", "−"), (place, row), (6, 0), textcoords="offset points",
                    va="center", fontsize="small")  # fmt: skip
    ax.set_yticks(range(len(steps) + 1), [*(name for name, _ in steps), "base"])
    ax.set_ylim(len(steps) + 0.6, -1.6)
    plain(ax, zero=False)
    ax.use_sticky_edges = False
    ax.margins(x=0.12)
    ax.set_xlabel(units(explanation, "number"))
    title(ax, explanation)
    return ax


def called(explanation: Credit, player: int, most: int) -> str:
    """A player's name, with its value where it is a feature whose value is known."""
    name, values = explanation.players.names[player], explanation.players.geometry.get("values")
    if values is None or values.dim() != 1:
        return short(name, most)
    value = f" = {float(values[player]):.3g}".replace("-", "−")
    return short(name, most - len(value)) + value


def number(score: float) -> str:
    """A score with its sign."""
    return f"{score:+.2g}".replace("-", "−")


def plain(ax: Axes, zero: bool = True) -> None:
    """Rows without a frame, a line at zero, few ticks."""
    if zero:
        ax.axvline(0, color=INK, linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    ax.margins(y=0.02)
    ax.locator_params(axis="x", nbins=5)  # small numbers are long


def _say(ax: Axes, scores: list[float], error: list[float]) -> None:
    """Each score beyond the end of its bar and whisker, with room for it."""
    for row, (score, doubt) in enumerate(zip(scores, error, strict=False)):
        up = score >= 0
        ax.annotate(
            number(score), (score + doubt if up else score - doubt, row), (3 if up else -3, 0),
            textcoords="offset points", ha="left" if up else "right", va="center", fontsize="x-small", color=INK,
        )  # fmt: skip
    ax.margins(x=0.14)
