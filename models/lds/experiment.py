"""Retrained on subsets, or found on disk; scored by every method; compared."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from explain.metrics import Lds, Retrainings, lds, one_out, subsets
from models.checkpoints import cache_folder
from models.lds.methods import Scored, scored
from models.lds.retraining import Again, recorded
from models.lds.settings import SETTINGS, Setting

MODELS = 48  # subsets of each size
LEFT_OUT = 20  # examples that are left out one by one
KEPT = {"half": 0.5, "95 %": 0.95}
Folder = str | os.PathLike[str] | None


class Outcomes(NamedTuple):
    """What networks say that were trained on these subsets, ``[seeds, models, questions]``."""

    subsets: Tensor
    numbers: Tensor


class Row(NamedTuple):
    """A method's scores by how much was left out, of the recorded run itself; ``seeds``: of the mean of seeds."""

    method: str
    same: dict[str, Lds]
    seeds: Lds
    seconds: float


def outcomes(
    setting: Setting, models: int = MODELS, left_out: int = LEFT_OUT, folder: Folder = None
) -> dict[str, Outcomes]:
    """By how much was left out; the models stand in the cache."""
    chosen = {name: subsets(setting.size, models, keep, seed=k) for k, (name, keep) in enumerate(KEPT.items())}
    chosen["one out"] = one_out(setting.size, left_out)
    every = torch.cat(list(chosen.values()))
    place = Path(folder) if folder is not None else cache_folder() / "retrained"
    again = Retrainings(
        Again(setting), every, seeds=setting.seeds, together=MODELS, folder=place / setting.name.replace(" ", "-")
    )
    numbers = again.outcomes(setting.asked(setting.net(0)), setting.train)
    parts = numbers.split([len(part) for part in chosen.values()], 1)
    return {name: Outcomes(part, found) for (name, part), found in zip(chosen.items(), parts, strict=True)}


def compared(found: dict[str, Outcomes], scores: dict[str, Scored]) -> list[Row]:
    """A row a method, best first where half is left out."""
    rows = []
    for method, (each, seconds) in scores.items():
        same = {name: lds(each, part.subsets, part.numbers[:1]) for name, part in found.items()}
        rows.append(Row(method, same, lds(each, found["half"].subsets, found["half"].numbers), seconds))
    return sorted(rows, key=lambda row: -row.same["half"].mean)


def run(
    name: str, *, models: int = MODELS, left_out: int = LEFT_OUT, folder: Folder = None
) -> tuple[Setting, list[Row]]:
    """One setting's rows.

    Args:
        name: of `settings.SETTINGS`.
        models: subsets of each size.
        left_out: examples that are left out one by one.
        folder: of the retrained models; the cache when None.
    """
    setting = SETTINGS[name]()
    found = outcomes(setting, models, left_out, folder)
    net, recording = recorded(setting)
    with warnings.catch_warnings():  # of trainings that end before a minimum, which is what is judged here
        warnings.filterwarnings("ignore", message="the model is not at a minimum|the training is not smooth")
        return setting, compared(found, scored(setting, net, recording))


def table(setting: Setting, rows: list[Row]) -> pd.DataFrame:
    """One row a method: the scores with their intervals."""
    shown = [
        {"setting": setting.name, "method": row.method}
        | {f"{name}": str(score) for name, score in row.same.items()}
        | {"half, mean of seeds": f"{row.seeds.mean:.3f}{_ceiling(row.seeds)}", "seconds": f"{row.seconds:.0f}"}
        for row in rows
    ]
    return pd.DataFrame(shown)


def _ceiling(found: Lds) -> str:
    return "" if math.isnan(found.ceiling) else f" of {found.ceiling:.3f}"


def section(names: list[str] | None = None, measure: Callable[[str], tuple[Setting, list[Row]]] = run) -> str:
    """The table of all settings in Markdown."""
    every = pd.concat([table(*measure(name)) for name in names or SETTINGS])
    head = f"| {' | '.join(every.columns)} |\n|{'---|' * len(every.columns)}\n"
    return head + "".join(f"| {' | '.join(map(str, row))} |\n" for row in every.itertuples(index=False))
