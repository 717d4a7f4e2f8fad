"""``python -m models.matrix``: compute every cell, write ``models/MATRIX.md`` and the README's table."""

from __future__ import annotations

from pathlib import Path

import typer

from models.matrix.kinds import KINDS
from models.matrix.pages import marks, page
from models.matrix.table import computed

ROOT = Path(__file__).parents[2]
PAGE, README = ROOT / "models" / "MATRIX.md", ROOT / "README.md"
FIRST, LAST = "<!-- matrix -->\n", "<!-- /matrix -->"


def main() -> None:
    """Every explainer on every representative.

    Raises:
        Exit: status 1 where a cell is neither right nor refused.
    """
    cells = computed(KINDS)
    PAGE.write_text(page(cells), encoding="utf-8")
    before, _, rest = README.read_text(encoding="utf-8").partition(FIRST)
    README.write_text(before + FIRST + marks(cells) + LAST + rest.partition(LAST)[2], encoding="utf-8")
    print(marks(cells))
    for each in cells:
        for line in each.wrong:
            print(f"{each.kind}, {each.explainer}, {line.players}, {line.against}: {line.wrong}")
    raise typer.Exit(int(any(each.wrong for each in cells)))


if __name__ == "__main__":
    typer.run(main)
