"""Answers of the demo: an explanation with the warnings that came with it, and what is left behind of many."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import explain
from explain.summary import counted, own_check, top_players

LEVELS = 64  # of each colour in a picture


@dataclass(frozen=True)
class Answer:
    """An explanation of one model, and the warnings that came with it."""

    model: str
    explanation: explain.Explanation
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """For file names."""
        return _file(f"{self.model}-{self.explanation.method}-{self.explanation.players.kind}")


class Picture(NamedTuple):
    """A figure, its file name without ending, and what it shows."""

    name: str
    caption: str
    figure: Figure


def figure_of(axes: Axes) -> Figure:
    """The figure that a picture was drawn into."""
    figure = axes.figure
    assert isinstance(figure, Figure)  # not a figure within a figure
    return figure


def asked(model: str, explainer: explain.Explainer, target: explain.Target) -> Answer:
    """One explainer's answer, its warnings kept with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = explainer.explain(target)
    return Answer(model, found, tuple(dict.fromkeys(str(w.message) for w in caught)))


def compare_all(answers: list[Answer]) -> dict[tuple[str, str], explain.Comparison]:
    """How far methods agree on the size of credit, by model and kind of players; attention and masks have no sign.

    Interactions are left out: their scores are the Shapley values beside them.
    """
    groups: dict[tuple[str, str], list[explain.Explanation]] = {}
    for answer in answers:
        if "interactions" not in answer.explanation.parts:
            groups.setdefault((answer.model, answer.explanation.players.kind), []).append(answer.explanation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kept as the comparison's own notes
        return {key: explain.compare(*group, absolute=True) for key, group in groups.items() if len(group) > 1}


def write(
    answers: Sequence[Answer],
    comparisons: Mapping[tuple[str, str], explain.Comparison],
    pictures: Sequence[Picture],
    out: Path,
    title: str,
    runs: Sequence[explain.Target] = (),
    curves: Sequence[explain.Target] = (),
) -> None:
    """Every explanation as a file and a picture, the agreements and further pictures, and the report of it all.

    Args:
        answers: what was found.
        comparisons: of which.
        pictures: beside.
        out: the folder.
        title: of the report.
        runs: what the report shows step by step.
        curves: what it asks again with fewer players.
    """
    out.mkdir(parents=True, exist_ok=True)
    for answer in answers:
        answer.explanation.save(out / f"{answer.name}.safetensors")
        _picture(answer.explanation.plot().figure, out / f"{answer.name}.png")
    for (model, kind), comparison in comparisons.items():
        _picture(comparison.plot().figure, out / f"agreement-{_file(model)}-{kind}.png")
    explain.report.write(
        [answer.explanation for answer in answers],
        out / "report.html",
        title=title,
        comparisons={f"Agreement on {model}, {kind}": found for (model, kind), found in comparisons.items()},
        figures={picture.caption: picture.figure for picture in pictures},
        runs=runs,
        curves=curves,
    )
    for picture in pictures:
        _picture(picture.figure, out / f"{picture.name}.png")


def _file(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _picture(figure: Any, path: Path) -> None:
    """In 64 levels of each colour: colour bars are without bands, and the file a fifth smaller than of all 256."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80, facecolor="white")
    plt.close(figure)
    pixels = np.asarray(Image.open(drawn).convert("RGB"))
    levels = (pixels / 255 * (LEVELS - 1)).round() * 255 / (LEVELS - 1)
    Image.fromarray(levels.round().astype(np.uint8)).save(path, optimize=True)


def table(answers: list[Answer]) -> str:
    """One line an explanation, and below what the methods warned about."""
    rows = [("method", "model", "players", "top 3", "own check", "calls", "seconds")]
    notes: list[str] = []
    for answer in answers:
        found = answer.explanation
        marks = [f" [{len(notes) + i}]" for i in range(1, len(answer.warnings) + 1)]
        notes += [f"{mark.strip()} {text}" for mark, text in zip(marks, answer.warnings, strict=True)]
        cost = (f"{found.calls}", f"{found.seconds:.2f}")
        name = found.method + "".join(marks)
        rows.append((name, answer.model, counted(found), top_players(found), own_check(found), *cost))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["", lines[0], "─" * max(map(len, lines)), *lines[1:], "", *notes])
