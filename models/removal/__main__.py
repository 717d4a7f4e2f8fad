"""The table of `models.removal`, line by line."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Annotated

import typer

from models.removal.edit_table import KINDS, SETTINGS, cells
from models.removal.edits import lines
from models.removal.experiments import BLOCKS, CORA, FLATTER, HARDER, KARATE, ROUGHER, rows


def main(
    fresh: Annotated[bool, typer.Option("--fresh", help="measure again, whatever the cache holds")] = False,
) -> None:
    """Hold the influence of removed nodes and edges and of added edges against retraining: karate club, blocks, Cora.

    Then that of groups of edits, on convolutions, attention and Chebyshev filters of two to four layers. Each line is
    printed when it is done, and a second run goes on where the first ended; the first takes some twenty minutes of one
    core.
    """
    warnings.filterwarnings("ignore", message="the Newton step is damped")
    for experiment in (KARATE, HARDER, BLOCKS, ROUGHER, CORA, FLATTER):
        try:
            for row in rows([experiment], fresh=fresh):
                shown = dataclasses.asdict(row)
                print(f"{shown.pop('model')}, {shown.pop('kind')}")
                print("  " + "  ".join(f"{name} {value:.4g}" for name, value in shown.items()), flush=True)
        except FileNotFoundError as missing:
            warnings.warn(str(missing), stacklevel=1)
    for setting in SETTINGS:
        try:
            for kind, line in lines(setting, KINDS, fresh=fresh):
                print(" | ".join(cells(setting, kind, line)), flush=True)
        except FileNotFoundError as missing:
            warnings.warn(str(missing), stacklevel=1)


if __name__ == "__main__":
    typer.run(main)
