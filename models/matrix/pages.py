"""The pages of the matrix: marks alone, and each largest difference or reason of a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from models.matrix.table import COLUMNS, Cell, Line

_HEAD = """# The matrix

Written by `python -m models.matrix`: every explainer on a tiny representative of each kind of model, beside brute force
that is written apart from the toolkit (`models/matrix/`). ✓ is right, – is refused in words; there is no third kind.
Differences are relative to the largest score; of answers that draw, what is beyond six standard errors.

"""
_TITLE = "\n## "


class Part(NamedTuple):
    """What is written of one kind of model: its row of marks, and each trial."""

    row: str
    section: str


def written(cells: Sequence[Cell]) -> dict[str, Part]:
    """The parts of the kinds whose cells were computed."""
    kinds = dict.fromkeys(cell.kind for cell in cells)
    return {kind: _part(kind, {cell.explainer: cell for cell in cells if cell.kind == kind}) for kind in kinds}


def _part(kind: str, found: Mapping[str, Cell]) -> Part:
    head = f"{_TITLE}{kind}\n\n| explainer | players | beside | largest difference, or why not |\n|---|---|---|---|\n"
    trials = [
        f"| {cell.explainer} | {line.players} | {line.against} | {_said(line)} |\n"
        for cell in found.values()
        for line in cell.lines
    ]
    return Part(_row([kind, *(found[name].mark for name in COLUMNS)]), head + "".join(trials))


def read(page: str) -> dict[str, Part]:
    """The parts of a page.

    Raises:
        ValueError: it has other columns.
    """
    head, *sections = page.split(_TITLE)
    if _columns() not in head:
        raise ValueError("the page was written with other columns; expected those of today: compute every kind")
    rows = head.partition(_columns())[2].splitlines(keepends=True)
    kinds = [section.partition("\n")[0] for section in sections]
    return {kind: Part(row, _TITLE + section) for kind, row, section in zip(kinds, rows, sections, strict=True)}


def marks(parts: Mapping[str, Part]) -> str:
    """The table of the README: a row a kind of model, a column an explainer."""
    return _columns() + "".join(part.row for part in parts.values())


def page(parts: Mapping[str, Part]) -> str:
    """The marks, then each trial of each cell."""
    return _HEAD + marks(parts) + "".join(part.section for part in parts.values())


def _columns() -> str:
    return _row(["", *COLUMNS]) + _row(["---", *[":-:"] * len(COLUMNS)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _said(line: Line) -> str:
    if line.wrong:
        return f"WRONG: {line.wrong}".replace("|", "\\|")
    return line.refused.replace("|", "\\|") if line.gap is None else f"{line.gap:.0e}"
