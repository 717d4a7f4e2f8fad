"""The page of what was measured: a table of systems, and sections below it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scipy.stats

PAGE = Path(__file__).parent.with_name("RESULTS.md")
HEAD = """# What the models reach

Written by `make models` (`python -m models.results`), a row when its last seed is trained. Accuracies of what is held
out, in percent: mean ± standard deviation, the 95 % interval of the mean (Student's t), each. "To hold" is the least
that counts as the published system; where none is published, for MUTAG the share of the larger class, for Cora what
features reach alone. Rows that say "by how much" or "in points" are differences, in percent too, and 0 is to be passed.
Of one seed the interval is that of the samples drawn. CPU seconds are those of all trainings of the row. On Cora the
weights are those that did best on the validation nodes, on MUTAG the last: what is tested chose nothing.

| system | data and split | published | to hold | measured | seeds | CPU s | |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """A system, what it is held to, and how it is measured.

    Args:
        name: as in its paper.
        split: data and split in words.
        published: the figure and where it stands.
        hold: the least accuracy in percent that passes.
        measure: ``seed -> facts`` with ``test_accuracy`` and ``cpu_seconds``, and of a single seed the ``interval`` of
            what was drawn, where it is known.
        seeds: how many.
        of: what they are where they are not seeds: "folds ".
    """

    name: str
    split: str
    published: str
    hold: float
    measure: Callable[[int], dict[str, Any]]
    seeds: int = 3
    of: str = ""

    def text(self) -> str:
        """The measured row of the page; trains what is missing."""
        facts = [self.measure(seed) for seed in range(self.seeds)]
        found = [100 * fact["test_accuracy"] for fact in facts]
        mean = statistics.mean(found)
        spread = _spread(found) if len(found) > 1 else _drawn(facts[0].get("interval"))
        cells = (
            self.name,
            self.split,
            self.published,
            f"{self.hold:.1f}",
            f"{mean:.2f}" + spread,
            f"{self.of}0–{self.seeds - 1}" if self.seeds > 1 else "0",
            f"{math.fsum(fact['cpu_seconds'] for fact in facts):.0f}",
            "pass" if mean >= self.hold else "short",
        )
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Section:
    """A table of its own below that of the systems.

    Args:
        name: its title.
        said: what is measured, and how to read it.
        measure: the table, trains what is missing.
    """

    name: str
    said: str
    measure: Callable[[], str]

    def text(self) -> str:
        """The measured section of the page, without its title."""
        return f"{self.said}\n\n{self.measure()}"


def written(asked: Sequence[Row | Section], order: Sequence[Row | Section], page: Path = PAGE) -> None:
    """Measure what is asked, and put each into its place on the page as soon as it is known.

    Args:
        asked: rows and sections.
        order: all that the page may hold.
        page: a markdown file, made where there is none.
    """
    for row in asked:
        found = row.text()
        lines, sections = _known(page)
        (sections if isinstance(row, Section) else lines)[row.name] = found
        names = list(dict.fromkeys(each.name for each in (*order, *asked)))
        table = [f"{lines[name]}\n" for name in names if name in lines]
        below = [f"\n## {name}\n\n{sections[name].strip()}\n" for name in names if name in sections]
        page.write_text(HEAD + "".join(table + below), encoding="utf-8")


def _spread(found: Sequence[float]) -> str:
    """How far apart the seeds are, and each."""
    mean, spread = statistics.mean(found), statistics.stdev(found)
    reach = float(scipy.stats.t.ppf(0.975, len(found) - 1)) * spread / math.sqrt(len(found))
    each = ", ".join(f"{part:.1f}" for part in found)
    return f" ± {spread:.2f}, {mean - reach:.1f}–{mean + reach:.1f} ({each})"


def _drawn(interval: tuple[float, float] | None) -> str:
    """Of one seed nothing is known of others, but of what was drawn with it."""
    return "" if interval is None else f", {100 * interval[0]:.1f}–{100 * interval[1]:.1f} of this seed's"


def _known(page: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The rows that are on the page, and the sections below them, by name."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    table, *below = text.split("\n## ")
    found = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| system")]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in found}
    return lines, dict(part.split("\n", 1) for part in below)
