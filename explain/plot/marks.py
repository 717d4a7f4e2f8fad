"""A marker for each type or class, and legends that never lie on what they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from explain.plot.style import INK, inches, short

SHAPES = "osD^vphX<>dP"  # told apart without colour
OTHERS = "*"
_Kind = TypeVar("_Kind")


def markers(kinds: Sequence[_Kind]) -> dict[_Kind, str]:
    """A marker for each kind, first come, first served; where there are more than can be told apart the last share a
    star.

    >>> markers(["user", "item"]), set(list(markers(list(range(20))).values())[11:])
    ({'user': 'o', 'item': 's'}, {'*'})
    """
    every = list(dict.fromkeys(kinds))
    own = len(every) if len(every) <= len(SHAPES) else len(SHAPES) - 1
    return {kind: SHAPES[i] if i < own else OTHERS for i, kind in enumerate(every)}


def samples(marks: Mapping[Any, str], name: str = "{}") -> list[Line2D]:
    """A legend's entry for each marker; kinds that share one are told together."""
    entries: dict[str, list[str]] = {}
    for kind, mark in marks.items():
        entries.setdefault(mark, []).append(name.format(kind))
    return [
        sample(mark, short(said[0]) if len(said) == 1 else f"{len(said)} others: {short(', '.join(said), 40)}")
        for mark, said in entries.items()
    ]


def sample(mark: str, label: str, face: str = "#bbbbbb", size: float = 7) -> Line2D:
    """One entry."""
    return Line2D([], [], marker=mark, color=INK, markerfacecolor=face, linestyle="", markersize=size, label=label)


def legend_below(ax: Axes, handles: Sequence[Any], gap: float = 0.0) -> float:
    """A legend under the picture, ``gap`` points below it; how many points high it is."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = max(1, min(len(handles), int(72 * inches(ax)[0] / (34 + 5.2 * longest))))
    height = 72 * inches(ax)[1]
    ax.legend(
        handles=list(handles), loc="upper left", bbox_to_anchor=(0, -gap / max(height, 1)), ncols=columns,
        fontsize="x-small", frameon=False, borderaxespad=0.2, columnspacing=1.2, handletextpad=0.6,
    )  # fmt: skip
    return 13.0 * -(-len(handles) // columns) + 2
