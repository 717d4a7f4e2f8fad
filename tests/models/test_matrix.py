"""The matrix: a part of it computed anew, and the README shows what the command wrote; no third kind of cell."""

from pathlib import Path

import pytest
import torch

from models.matrix import table
from models.matrix.kinds import KINDS
from models.matrix.oracles import shapley
from models.matrix.pages import page, read, written
from models.matrix.table import COLUMNS, Cell, Line, computed
from models.matrix.trials import Trial

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "models" / "MATRIX.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.split("\n## ")[0].splitlines() if line.startswith("|")]


def test_the_readme_shows_what_the_command_wrote_and_no_cell_is_wrong():
    assert "\n".join(ROWS) in (ROOT / "README.md").read_text(encoding="utf-8")
    cells = [row.strip("| ").split(" | ") for row in ROWS[2:]]
    assert [row[0] for row in cells] == list(KINDS)
    assert all(set(row[1:]) <= {"✓", "–"} and len(row) == 1 + len(COLUMNS) for row in cells)
    assert "WRONG" not in PAGE


def test_kinds_computed_anew_take_their_places_and_the_others_stay():
    parts = read(PAGE)
    assert list(parts) == list(KINDS)
    assert page(parts) == PAGE
    found = Cell("GCN", "Lime", (Line("edges", "by hand", None, refused="no | thing"),))
    anew = written([found._replace(explainer=name) for name in COLUMNS])
    merged = page(parts | anew)
    assert merged.count("no \\| thing") == len(COLUMNS)
    assert list(read(merged)) == list(KINDS)
    assert read(merged)["JK"] == parts["JK"]
    assert read(merged)["GCN"] == anew["GCN"]
    with pytest.raises(ValueError, match="compute every kind"):
        read(PAGE.replace("| Lime |", "| LIME |"))


ANEW = {"GCN": (), "CNN": (), "DDPM step": (), "DDIM run": ("Gradient",)}


@pytest.mark.parametrize(("kind", "left"), ANEW.items(), ids=ANEW)
def test_cells_computed_anew_are_as_written(kind, left):
    cells = computed({kind: KINDS[kind]}, lambda _, explainer: explainer not in left)
    assert not [line for cell in cells for line in cell.wrong]
    written = dict(
        zip(
            COLUMNS,
            next(row for row in ROWS if row.startswith(f"| {kind} |")).strip("| ").split(" | ")[1:],
            strict=True,
        )
    )
    assert {cell.explainer: cell.mark for cell in cells} == {
        name: written[name] for name in written if name not in left
    }


def _cell(monkeypatch, gap):
    monkeypatch.setitem(COLUMNS, "Lime", lambda case: iter([Trial("edges", "by hand", gap)]))
    return table.cell("GCN", KINDS["GCN"](), "Lime")


def test_a_wrong_number_and_a_raw_error_are_the_third_kind(monkeypatch):
    assert _cell(monkeypatch, lambda: 0.1).mark == "✗"
    assert _cell(monkeypatch, lambda: None + 1).mark == "✗"
    assert _cell(monkeypatch, lambda: torch.zeros(2) @ torch.zeros(3)).mark == "✗"
    assert _cell(monkeypatch, lambda: 1e-12).mark == "✓"


def test_brute_force_of_a_known_game():
    values = torch.tensor([0.0, 1.0, 2.0, 5.0]).double()  # 1 and 2 alone, 2 more together
    assert shapley(values).tolist() == [2.0, 3.0]
