"""The pages of the matrix: marks alone, and each largest difference or reason of a refusal."""

from __future__ import annotations

from collections.abc import Sequence

from models.matrix.table import COLUMNS, Cell, Line

_HEAD = """# The matrix

Written by `python -m models.matrix`: every explainer on a tiny representative of each kind of model, beside brute force
that is written apart from the toolkit (`models/matrix/`). ✓ is right, – is refused in words; there is no third kind.
Differences are relative to the largest score; of answers that draw, what is beyond six standard errors.

"""


def marks(cells: Sequence[Cell]) -> str:
    """The table of the README: a row a kind of model, a column an explainer."""
    kinds = dict.fromkeys(cell.kind for cell in cells)
    rows = [["", *COLUMNS], ["---", *[":-:"] * len(COLUMNS)]]
    for kind in kinds:
        found = {cell.explainer: cell.mark for cell in cells if cell.kind == kind}
        rows.append([kind, *(found[name] for name in COLUMNS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page(cells: Sequence[Cell]) -> str:
    """The marks, then each trial of each cell."""
    parts = [_HEAD, marks(cells)]
    for kind in dict.fromkeys(cell.kind for cell in cells):
        parts.append(
            f"\n## {kind}\n\n| explainer | players | beside | largest difference, or why not |\n|---|---|---|---|\n"
        )
        for cell in cells:
            if cell.kind == kind:
                parts += [
                    f"| {cell.explainer} | {line.players} | {line.against} | {_said(line)} |\n" for line in cell.lines
                ]
    return "".join(parts)


def _said(line: Line) -> str:
    if line.wrong:
        return f"WRONG: {line.wrong}".replace("|", "\\|")
    return line.refused.replace("|", "\\|") if line.gap is None else f"{line.gap:.0e}"
