"""What CONTRIBUTING.md walks through works as it stands there: an explainer in one file, a family in one folder."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from test_architecture import FAMILIES, MAY_IMPORT, faults

import explain

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FILES = re.findall(r"`explain/((?:ends|estimators/\w+)\.py)`", TEXT)
PLACES = [*FILES[:1], "tests/test_ends.py", *FILES[1:], "tests/test_estimators.py"]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """`explain` with the files of the page in it, for one test."""
    for place, block in zip(PLACES, BLOCKS, strict=True):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(block, encoding="utf-8")
    monkeypatch.setattr(explain, "__path__", [*explain.__path__, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("explain.ends", "explain.estimators"))]:
        del sys.modules[name]
    for name in ("ends", "estimators"):
        vars(explain).pop(name, None)


@pytest.mark.parametrize("place", [place for place in PLACES if place.startswith("tests/")])
def test_its_own_tests_pass(house, place):
    found = {}
    exec(compile((house / place).read_text(encoding="utf-8"), place, "exec"), found)
    tests = [check for name, check in found.items() if name.startswith("test_")]
    assert tests
    for check in tests:
        check()


def test_its_examples_run(house):
    import doctest

    failed, tried = doctest.testmod(importlib.import_module("explain.ends"))
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize("place", FILES)
def test_its_imports_go_one_way(house, place, monkeypatch):
    unit, like = ("ends", "occlusion") if place == "ends.py" else ("estimators", "supervised")
    monkeypatch.setitem(MAY_IMPORT, unit, MAY_IMPORT[like])
    assert faults(unit, (house / place).read_text(encoding="utf-8"))[0] == []


def test_the_plan_is_the_house():
    """Every folder and file of the plan is there, and every folder is in the plan."""
    plan = re.search(r"```\nexplain/\n(.*?)models/", TEXT, re.DOTALL)
    assert plan
    named = re.findall(r"(?<![\w.])(\w+(?:/|\.py))(?=\s)", plan[1])
    missing = [name for name in named if not (ROOT / "explain" / name).exists()]
    assert not missing
    folders = {path.name for path in (ROOT / "explain").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= {name.removesuffix("/") for name in named}
    assert set(FAMILIES) <= folders


def test_every_file_it_names_is_there():
    named = set(re.findall(r"`((?:explain|tests)/[\w/]+(?:\.py|/))`", TEXT))
    made_up = {f"explain/{place}" for place in FILES} | {"tests/test_ends.py"}
    assert made_up < named
    assert not [name for name in named - made_up if not (ROOT / name).exists()]


def test_every_room_of_the_graph_family_is_named():
    rooms = {path.parent.name for path in (ROOT / "explain" / "graph").glob("*/__init__.py")}
    assert rooms
    assert not [room for room in rooms if f"| `{room}/`" not in TEXT]
