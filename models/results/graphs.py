"""Whole graphs: MUTAG, by folds."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from models import pooling
from models.folds import without_fold
from models.motif_nets import Schedule
from models.motifs import mutag
from models.results.page import Row

SCHEDULE = Schedule(epochs=100, lr=1e-3, batch_size=32)


def on_mutag(kind: type[nn.Module], fold: int, **sizes: Any) -> dict[str, Any]:
    """Facts of one network trained on nine tenths of MUTAG."""
    graphs = mutag().data
    assert isinstance(graphs, list)
    return without_fold(kind, graphs, fold, SCHEDULE, **sizes).facts


def _row(kind: type[nn.Module], published: str, hold: float = 66.5, split: str = "", **sizes: Any) -> Row:
    measure = partial(on_mutag, kind, **sizes)
    return Row(kind.__name__, f"MUTAG, 10 folds{split}", published, hold, measure, seeds=10, of="folds ")


_OTHERS = " (others than settings were chosen on)"
ROWS = [
    _row(pooling.DiffPool, "none (Ying et al. 2018)"),
    _row(pooling.SAGPool, "none (Lee et al. 2019)"),
    _row(pooling.SortPool, "85.8 (Zhang et al. 2018)", 83.8, _OTHERS, k=20),
    _row(
        pooling.GIN,
        "none held out; 89.4 with the best epoch on the folds tested (Xu et al. 2019)",
        split=_OTHERS,
        layers=5,
        norm="batch_norm",
        jump="cat",
    ),
    _row(pooling.DeepSets, "none (Zaheer et al. 2017)"),
    _row(pooling.LineGraph, "none for the line graph alone (Monti et al. 2018)"),
]
