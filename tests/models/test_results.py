"""The page of what the models reach: a row when it is known, in the table's order, and the others as they were."""

import pytest
import scipy.stats

from models.results.__main__ import EVERY, main
from models.results.diffusion import judged
from models.results.page import Row, Section, written


def _row(name, *shares, hold=80.0):
    return Row(name, "some data", "81", hold, lambda seed: {"test_accuracy": shares[seed], "cpu_seconds": 2.5})


def test_a_row_holds_its_figure_or_falls_short(tmp_path):
    page = tmp_path / "RESULTS.md"
    written([_row("DCNN", 0.80, 0.82, 0.84)], EVERY, page)
    written([_row("GCN", 0.80, 0.79, 0.78)], EVERY, page)
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines] == ["| system", "| GCN", "| DCNN"]
    assert lines[2] == "| DCNN | some data | 81 | 80.0 | 82.00 ± 2.00, 77.0–87.0 (80.0, 82.0, 84.0) | 0–2 | 8 | pass |"
    assert lines[1].endswith("| short |")
    written([_row("DCNN", 0.90, 0.90, 0.90)], EVERY, page)
    text = page.read_text(encoding="utf-8")
    assert "90.00 ± 0.00" in text
    assert "82.00" not in text
    assert "| GCN |" in text


def test_of_one_seed_nothing_is_said_of_others():
    row = Row("Cascade", "digits", "none", 95.0, lambda seed: {"test_accuracy": 0.996, "cpu_seconds": 271.4}, seeds=1)
    assert row.text() == "| Cascade | digits | none | 95.0 | 99.60 | 0 | 271 | pass |"


def test_of_one_seed_the_interval_is_that_of_the_samples():
    facts = judged({"class_accuracy": 0.98, "cpu_seconds": 103.0})
    low, high = facts["interval"]  # the least and largest share of which 490 of 500 are within the 2.5 % tails
    assert scipy.stats.binom.sf(489, 500, low) == pytest.approx(0.025, rel=1e-6)
    assert scipy.stats.binom.cdf(490, 500, high) == pytest.approx(0.025, rel=1e-6)
    row = Row("Guidance", "digits", "none", 95.0, lambda seed: facts, seeds=1)
    assert row.text() == "| Guidance | digits | none | 95.0 | 98.00, 96.4–99.0 of this seed's | 0 | 103 | pass |"


def test_a_section_stays_below_the_rows_and_is_replaced_by_itself_alone(tmp_path):
    page, table = tmp_path / "RESULTS.md", "| a | b |\n|---|---|\n| 1 | 2 |\n"
    first, second = Section("Ratios", "What is measured.", lambda: table), Section("Others", "Else.", lambda: "| c |\n")
    order = [*EVERY, first, second]
    written([second], order, page)
    written([_row("GCN", 0.80, 0.79, 0.78), first], order, page)
    text = page.read_text(encoding="utf-8")
    parts = ("| GCN |", f"\n## Ratios\n\nWhat is measured.\n\n{table}", "\n## Others\n\nElse.")
    assert sorted(parts, key=text.index) == list(parts)
    table = table.replace("| 1 | 2 |", "| 1 | 3 |")
    written([first], order, page)
    assert page.read_text(encoding="utf-8") == text.replace("| 1 | 2 |", "| 1 | 3 |")


def test_systems_have_different_names_and_others_are_refused():
    names = [row.name for row in EVERY]
    assert len(set(names)) == len(names)
    with pytest.raises(Exception, match="one of GCN, GAT"):
        main(["Transformer"])
