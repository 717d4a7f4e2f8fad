"""Cells of the matrix: right, with the largest difference; refused, with the words; or wrong."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

import explain
from models.matrix import learned, trials
from models.matrix.case import Case
from models.matrix.trials import Trial

COLUMNS: dict[str, Callable[[Case], Iterator[Trial]]] = {
    "Shapley": trials.shapley,
    "Banzhaf": trials.banzhaf,
    "Interactions": trials.interactions,
    "Lime": trials.lime,
    "Occlusion": trials.occlusion,
    "Counterfactual": trials.counterfactual,
    "SubgraphX": trials.subgraphx,
    "GraphLime": learned.graph_lime,
    "GlobalSurrogate": learned.surrogate,
    "Gradient": trials.gradient,
    "Mask": learned.mask,
    "Attention": learned.attention,
    "Influence": trials.influence,
    "SelfInfluence": trials.self_influence,
    "Perturbation": trials.perturbation,
    "Relabelling": trials.relabelling,
    "TracIn": trials.tracin,
    "Trak": trials.trak,
    "DTrak": trials.dtrak,
}
_HERE = Path(explain.__file__).parent


class Line(NamedTuple):
    """One trial: the largest difference, or the words of the refusal, or what is wrong."""

    players: str
    against: str
    gap: float | None
    refused: str = ""
    wrong: str = ""


class Cell(NamedTuple):
    """All trials of one explainer on one kind of model."""

    kind: str
    explainer: str
    lines: tuple[Line, ...]

    @property
    def wrong(self) -> list[Line]:
        """Those that are neither right nor refused: there must be none."""
        return [line for line in self.lines if line.wrong]

    @property
    def mark(self) -> str:
        """Right, refused in words, or the third kind."""
        return "✗" if self.wrong else "–" if all(line.gap is None for line in self.lines) else "✓"

    def __str__(self) -> str:
        if self.wrong:
            return "wrong"
        gaps = [line.gap for line in self.lines if line.gap is not None]
        return f"{max(gaps):.0e}".replace("e-0", "e-").replace("0e+00", "0") if gaps else "–"


def cell(name: str, case: Case, explainer: str) -> Cell:
    """One explainer on one representative."""
    return Cell(name, explainer, tuple(_line(trial, case.tolerance) for trial in COLUMNS[explainer](case)))


def _line(trial: Trial, tolerance: float) -> Line:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of small samples and untrained weights: not what is asked here
            gap = trial.gap()
    except AssertionError as error:
        return Line(trial.players, trial.against, None, wrong=str(error))
    except (TypeError, ValueError) as error:
        if _said_by_us(error):
            return Line(trial.players, trial.against, None, refused=" ".join(str(error).split()))
        return Line(trial.players, trial.against, None, wrong=_raw(error))
    except Exception as error:  # whatever it is, it is the third kind
        return Line(trial.players, trial.against, None, wrong=_raw(error))
    bound = tolerance * trial.loose
    wrong = "" if gap <= bound else f"off by {gap:.1e}, {bound:.0e} allowed"
    return Line(trial.players, trial.against, gap, wrong=wrong)


def _said_by_us(error: Exception) -> bool:
    """Whether a ``raise`` of the toolkit's own said it, not an operation that failed, there or in what it calls."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(_HERE) and (last.line or "").startswith("raise")


def _raw(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(last.filename).name}:{last.lineno})"


def computed(kinds: Mapping[str, Callable[[], Case]], only: Callable[[str, str], bool] | None = None) -> list[Cell]:
    """The cells, kind by kind."""
    found = []
    for name, build in kinds.items():
        torch.manual_seed(0)
        asked = [explainer for explainer in COLUMNS if only is None or only(name, explainer)]
        if asked:
            case = build()
            found += [cell(name, case, explainer) for explainer in asked]
    return found
