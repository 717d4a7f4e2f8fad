"""``python -m models.matrix``: compute every cell, write ``models/MATRIX.md`` and the README's table.

``python -m models.matrix --only GCN --only JK`` computes two rows anew, and leaves the others as they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from models.matrix.kinds import KINDS
from models.matrix.pages import Part, marks, page, read, written
from models.matrix.table import Cell, computed

ROOT = Path(__file__).parents[2]
PAGE, README = ROOT / "models" / "MATRIX.md", ROOT / "README.md"
FIRST, LAST = "<!-- matrix -->\n", "<!-- /matrix -->"


Only = Annotated[list[str] | None, typer.Option(help="A kind of model; may be repeated. Every kind if not given.")]


def main(only: Only = None) -> None:
    """Every explainer on every representative, or on some of them.

    Raises:
        BadParameter: there is no such kind.
        Exit: status 1 where a cell is neither right nor refused.
    """
    if unknown := set(only or ()) - set(KINDS):
        raise typer.BadParameter(f"{sorted(unknown)} of the kinds {list(KINDS)}")
    cells = computed({kind: build for kind, build in KINDS.items() if not only or kind in only})
    before = read(PAGE.read_text(encoding="utf-8")) if only else {}
    _write(before | written(cells))
    raise typer.Exit(int(_wrong(cells)))


def _write(parts: Mapping[str, Part]) -> None:
    """Both pages, kinds in their order; those that are no more are left out."""
    parts = {kind: parts[kind] for kind in KINDS if kind in parts}
    PAGE.write_text(page(parts), encoding="utf-8")
    before, _, rest = README.read_text(encoding="utf-8").partition(FIRST)
    README.write_text(before + FIRST + marks(parts) + LAST + rest.partition(LAST)[2], encoding="utf-8")


def _wrong(cells: list[Cell]) -> bool:
    for each in cells:
        print(f"{each.kind}, {each.explainer}: {each}")
        for line in each.wrong:
            print(f"  {line.players}, {line.against}: {line.wrong}")
    return any(each.wrong for each in cells)


if __name__ == "__main__":
    typer.run(main)
