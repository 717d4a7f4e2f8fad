"""``python -m models.results "a row" "a section"``: what is named, or everything."""

from __future__ import annotations

import typer

from models.results import cora, diffusion, graphs, planted, sections
from models.results.page import Row, Section, written

EVERY: list[Row | Section] = [*cora.ROWS, *graphs.ROWS, *planted.ROWS, *diffusion.ROWS, *sections.SECTIONS]


def main(only: list[str] = typer.Argument(None, help="systems or sections; all when none is named")) -> None:  # noqa: B008
    """Train what is missing, one network after the other, and write `models/RESULTS.md`.

    Raises:
        BadParameter: a system that is not in the table.
    """
    names = [row.name for row in EVERY]
    if unknown := [name for name in only or [] if name not in names]:
        raise typer.BadParameter(f"{', '.join(unknown)}: one of {', '.join(names)}")
    written([row for row in EVERY if not only or row.name in only], EVERY)


if __name__ == "__main__":
    typer.run(main)
