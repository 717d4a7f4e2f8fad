"""Several answers side by side, on one layout and one scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from explain.conversion import node_players
from explain.credit import Credit
from explain.plot.bars import bars
from explain.plot.graph import graph
from explain.plot.heatmap import heatmap
from explain.plot.positions import positions
from explain.plot.style import centred, units


def compare(explanations: Sequence[Credit], columns: int = 2, max_nodes: int = 40) -> list[Axes]:
    """A panel an answer: every node at the same place, every patch beside the same picture, else bars.

    Answers in the same units share one scale, so that what is paler is less; shares and mask values have their own.

    Args:
        explanations: about one target, over players that all live on a graph, or all on an image, or any.
        columns: panels side by side.
        max_nodes: at most, the strongest of each answer.

    Raises:
        ValueError: no explanations, or no columns.

    >>> import torch
    >>> from explain import Explanation, Players
    >>> one = Explanation(torch.tensor([1.0, -2.0]), Players("features", torch.arange(2)), value=0.0)
    >>> len(compare([one, one]))
    2
    """
    found = list(explanations)
    if not found or columns < 1:
        raise ValueError(f"panels are of one or more answers in one or more columns, got {len(found)} in {columns}")
    across = min(columns, len(found))
    down = -(-len(found) // across)
    _, grid = plt.subplots(down, across, figsize=(6.4 * across, 4.2 * down), layout="constrained", squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for empty in panels[len(found) :]:
        empty.set_axis_off()
    panels = panels[: len(found)]
    norms = _norms(found)
    if all(_on_graph(one) for one in found):
        places = positions(*found, max_nodes=max_nodes)
        for one, panel, norm in zip(found, panels, norms, strict=True):
            graph(one, panel, position=places, norm=norm)
    elif all("labels" in one.players.geometry for one in found):
        for one, panel, norm in zip(found, panels, norms, strict=True):
            heatmap(one, panel, norm)
    else:
        for one, panel in zip(found, panels, strict=True):
            bars(one, panel)
        _one_reach(found, panels)
    return panels


def _on_graph(one: Credit) -> bool:
    kinds = ("edges", "motifs", "relations")
    return "edge_index" in one.players.geometry and (one.players.kind in kinds or node_players(one) is not None)


def _norms(found: list[Credit]) -> list[Normalize | None]:
    """One scale for all answers in the same units; None, their own, for scores without a sign."""
    shared: dict[str, Normalize] = {}
    for unit in {units(one) for one in found if "scores" not in one.checks}:
        alike = [one for one in found if "scores" not in one.checks and units(one) == unit]
        shared[unit] = centred(float(one.scores.abs().max()) if len(one.scores) else 0.0 for one in alike)
    return [None if "scores" in one.checks else shared[units(one)] for one in found]


def _one_reach(found: list[Credit], panels: list[Axes]) -> None:
    """The same axis for all answers in the same units."""
    for unit in {units(one) for one in found}:
        alike = [panel for one, panel in zip(found, panels, strict=True) if units(one) == unit]
        low, high = min(panel.get_xlim()[0] for panel in alike), max(panel.get_xlim()[1] for panel in alike)
        for panel in alike:
            panel.set_xlim(low, high)
