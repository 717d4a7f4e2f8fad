"""How far explanations agree, as a matrix."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from explain.plot.style import DIVERGING, INK, SEQUENTIAL, axes, colour_bar, heading, ink_on, short

TITLES = {"spearman": "Spearman", "kendall": "Kendall τ-b", "overlap": "top {k} shared"}


class Compared(Protocol):
    """What the picture needs of an `explain.Comparison`, which opens this door itself."""

    @property
    def labels(self) -> tuple[str, ...]:
        """One for each explanation."""

    @property
    def k(self) -> int:
        """How many top players are compared."""

    @property
    def players(self) -> int:
        """How many there are."""

    @property
    def kind(self) -> str:
        """What they are."""

    @property
    def absolute(self) -> bool:
        """Whether sizes are compared, and signs are not."""

    def matrix(self, measure: str) -> pd.DataFrame:
        """The measure for every pair."""


def agreement(comparison: Compared, ax: Axes | None = None, measure: str = "spearman") -> Axes:
    """One measure ("spearman", "kendall" or "overlap") for every pair; undefined ones are grey and say so."""
    matrix = comparison.matrix(measure)
    values = matrix.to_numpy()
    size = 2.4 + 0.62 * len(values)
    ax = axes(ax, (size + 0.8, size))
    norm = Normalize(0, 1) if measure == "overlap" else Normalize(-1, 1)
    cmap = SEQUENTIAL if measure == "overlap" else DIVERGING
    ax.imshow(np.ma.masked_invalid(values), cmap=cmap.with_extremes(bad="#dddddd"), norm=norm)
    for i, j in np.ndindex(values.shape):
        known = not np.isnan(values[i, j])
        ink = ink_on(cmap(norm(values[i, j]))) if known else INK
        text = f"{values[i, j]:.2f}" if known else "n/a"
        ax.text(j, i, text, ha="center", va="center", fontsize="small", color=ink)
    places = range(len(values))
    labels = [short(label, 20) for label in comparison.labels]
    ax.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(places, labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    name = TITLES[measure].format(k=comparison.k)
    if comparison.absolute and measure != "overlap":  # which is always of sizes
        name += " of sizes"
    heading(ax, name, f"{comparison.players} {comparison.kind}")
    colour_bar(ax, norm, name, cmap)
    return ax
