"""Every notebook runs from top to bottom, and is kept in git without outputs."""

import ast
import itertools
import re

import nbformat
import pytest
from run_notebooks import FOLDER, executed

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, monkeypatch):
    monkeypatch.setenv("EXPLAIN_QUICK", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # small graphs: threads would only wait for each other
    monkeypatch.delenv("MPLBACKEND", raising=False)  # of whoever runs this: a notebook shows its pictures
    notebook = executed(path)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    told = [output["text"] for output in shown if output.get("name") == "stderr"]
    assert not [text for text in told if not text.startswith("\r")]  # but bars: no warning unseen by its author


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_there_are_notebooks():
    assert {"quickstart", "graphs", "diffusion", "koh_liang", "compare", "gallery"} == {path.stem for path in NOTEBOOKS}


def code(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", ["graphs", "compare", "gallery"])
def test_the_package_is_enough_for(name):
    assert "explain" in imported(code(FOLDER / f"{name}.ipynb"))
    assert not {"models", "tests"} & imported(code(FOLDER / f"{name}.ipynb"))


def imported(cells):
    """The packages that these cells import."""
    found = set()
    for node in (node for cell in cells for node in ast.walk(ast.parse(cell))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_a_panel_of_the_gallery_is_short_says_what_to_conclude_and_what_not_and_holds_it():
    cells = nbformat.read(FOLDER / "gallery.ipynb", as_version=4).cells
    panels = [pair for pair in itertools.pairwise(cells) if re.match(r"## \d+ · ", pair[0].source)]
    assert len(panels) >= 12
    for words, lines in panels:
        assert "**Conclude**: " in words.source
        assert "\n**Not**: " in words.source
        assert lines.cell_type == "code"
        assert len([line for line in lines.source.splitlines() if line.strip()]) <= 10
        assert any(isinstance(node, ast.Assert) for node in ast.parse(lines.source).body)
    assert any("fails" in words.source for words, _ in panels)
