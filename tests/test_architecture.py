"""Import directions: no explainer knows a family, no family an explainer, nothing in `explain` knows `models`.

A unit is one file or folder directly under ``explain/``; "explain" stands for ``explain/__init__.py``.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

EXPLAINERS = (
    *("attention", "counterfactual", "gradient", "graph_lime", "influence", "lime"),
    *("mask", "occlusion", "shapley", "subgraphx", "surrogate"),
)
FAMILIES = ("diffusion", "graph", "supervised")
SHARED = {
    *("examples", "guard", "layouts", "loaders", "losses"),
    *("classes", "objectives", "obstacles", "outputs", "parts", "payoffs", "plain", "threads"),
}
ANSWER = {"explanation", "types"}
MAY_IMPORT = {
    "types": set(),
    "layouts": set(),
    "snapshot": {"layouts"},
    "spelling": set(),
    "threads": set(),
    "guard": {"snapshot", "threads"},
    "plain": {"threads"},
    "obstacles": set(),
    "outputs": set(),
    "parts": set(),
    "classes": {"outputs", "types"},
    "losses": {"outputs"},
    "payoffs": {"guard", "outputs"},
    "loaders": {"guard"},
    "examples": {"guard", "loaders"},
    "objectives": {"examples", "losses", "outputs", "payoffs", "types"},
    "explanation": {"types"},
    "explainer": {"explanation", "guard", "spelling", "types"},
    **{unit: {"explainer", "explanation", "guard", "types"} for unit in EXPLAINERS},
    "influence": {
        "explainer",
        "explanation",
        "guard",
        "layouts",
        "obstacles",
        "parallel",
        "types",
    },  # scores of any size, shard by shard
    **{unit: {*SHARED, "types"} for unit in FAMILIES},
    "wrapping": {*FAMILIES, "guard", "spelling"},
    # what can be done with an answer
    "storage": ANSWER,
    "parallel": ANSWER | {"explainer", "guard", "layouts", "storage", "threads"},
    "conversion": ANSWER,
    "summary": ANSWER,
    "comparison": ANSWER,
    "metrics": ANSWER | {"comparison", "explainer"},
    "plot": ANSWER | {"comparison", "conversion"},
    "report": ANSWER | {"comparison", "plot", "storage", "summary"},
    "explain": {*EXPLAINERS, *ANSWER, "comparison", "explainer", "metrics", "parallel", "plot", "report", "wrapping"},
}
DOORS = {  # imports inside these functions, against the direction: a verb of the object is kept in another file
    ("explanation", "Explanation.save", "storage"),
    ("explanation", "Explanation.load", "storage"),
    ("explanation", "Explanation.to_pandas", "conversion"),
    ("explanation", "Explanation.to_networkx", "conversion"),
    ("explanation", "Explanation.to_pyg", "conversion"),
    ("explanation", "Explanation.to_shap", "conversion"),
    ("explanation", "Explanation.plot", "plot"),
    ("explanation", "Explanation.__repr__", "summary"),
    ("explanation", "Explanation.__str__", "summary"),
    ("explanation", "Explanation._repr_html_", "summary"),
    ("comparison", "Comparison.plot", "plot"),
}


def unit_of(path):
    parts = path.relative_to(ROOT / "explain").with_suffix("").parts
    return "explain" if parts == ("__init__",) else parts[0]


def package_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1]


def imports(source, package):
    """(function or None, dotted module) for each import of this project; ``from explain import x`` is of explain.x."""
    found = []

    def visit(node, where, in_function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((".".join(where) if in_function else None, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                stem = package[: len(package) - child.level + 1] if child.level else ()
                module = ".".join([*stem, *filter(None, [child.module])])
                names = [f"{module}.{alias.name}" for alias in child.names] if module == "explain" else [module]
                found.extend((".".join(where) if in_function else None, name) for name in names)
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                visit(child, [*where, child.name], True)
            elif isinstance(child, ast.ClassDef):
                visit(child, [*where, child.name], in_function)
            else:
                visit(child, where, in_function)

    visit(ast.parse(source), [], False)
    return [(function, name) for function, name in found if name.split(".")[0] in ("explain", "models")]


def faults(unit, source, package=("explain",)):
    """What this file of a unit imports that it may not, in words; and the doors it used."""
    wrong, used = [], set()
    for function, name in imports(source, package):
        top, _, rest = name.partition(".")
        other = rest.split(".")[0] or "explain"
        if top == "models":
            wrong.append(f"{unit} imports {name}: explain must work without it")
        elif other != unit and other not in MAY_IMPORT[unit]:
            door = (unit, function, other)
            used.add(door)
            if door not in DOORS:
                wrong.append(f"{unit} imports {name}{f' in {function}' if function else ''}: against the direction")
    return wrong, used


FILES = sorted((ROOT / "explain").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    unit = unit_of(path)
    assert unit in MAY_IMPORT, f"say in this test where {unit} stands and what it may import"
    assert faults(unit, path.read_text(), package_of(path))[0] == []


def test_every_listed_door_is_used():
    used = set().union(*(faults(unit_of(path), path.read_text(), package_of(path))[1] for path in FILES))
    assert used == DOORS


def test_only_wrapping_knows_the_families():
    assert [unit for unit, others in MAY_IMPORT.items() if others & set(FAMILIES)] == ["wrapping"]


def test_the_directions_have_no_circle():
    done = set()
    while len(done) < len(MAY_IMPORT):
        ready = {unit for unit, others in MAY_IMPORT.items() if unit not in done and others <= done}
        assert ready, f"a circle among {set(MAY_IMPORT) - done}"
        done |= ready


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("lime", "from explain.graph.model import GraphModel"),
        ("lime", "import explain.graph"),
        ("lime", "from explain import supervised"),
        ("lime", "def f():\n    from explain.graph import games"),
        ("shapley", "from explain.lime import Lime"),
        ("graph", "from explain.shapley import Shapley"),
        ("supervised", "from explain.graph import inputs"),
        ("supervised", "from ..graph import inputs"),
        ("supervised", "if TYPE_CHECKING:\n    from explain.explainer import Explainer"),
        ("types", "from explain.explanation import Explanation"),
        ("explanation", "from explain.plot import picture"),
        ("explanation", "class Explanation:\n    def top(self):\n        from explain.plot import picture"),
        ("plot", "import models.gcn"),
        ("wrapping", "def f():\n    from models import gcn"),
    ],
)
def test_a_wrong_import_is_found(unit, source):
    assert faults(unit, source, ("explain", unit))[0]


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("lime", "from explain.types import Game"),
        ("shapley", "from explain.shapley.pairs import anything"),
        ("shapley", "from .pairs import anything"),
        ("wrapping", "from explain.graph.model import GraphModel"),
        ("explanation", "class Explanation:\n    def plot(self):\n        from explain.plot import picture"),
        ("lime", "import torch, lime, mymodels"),
    ],
)
def test_a_right_import_is_not(unit, source):
    assert faults(unit, source, ("explain", unit))[0] == []
