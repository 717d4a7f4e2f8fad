"""The table: what the paper found, what is found here, and why the two differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Row:
    """One experiment of the paper.

    Args:
        name: "K1" to "K15".
        item: where in the paper, and what.
        paper: its figure.
        ours: the figure measured here.
        differs: why the two differ.
        met: whether ours is as good as it should be; None where the paper has no figure, or the size is reduced.
    """

    name: str
    item: str
    paper: str
    ours: str
    differs: str
    met: bool | None = None


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """One line an experiment, by its number.

    >>> table([Row("K2", "Fig. 1b", "one", "five", "other images", True)]).loc["K2", "ours"]
    'five'
    """
    ordered = sorted(rows, key=lambda row: int(row.name[1:]))
    words = {True: "yes", False: "no", None: "-"}
    columns = {
        "item": [row.item for row in ordered],
        "paper": [row.paper for row in ordered],
        "ours": [row.ours for row in ordered],
        "why they differ": [row.differs for row in ordered],
        "met": [words[row.met] for row in ordered],
    }
    return pd.DataFrame(columns, index=pd.Index([row.name for row in ordered], name="row"))
