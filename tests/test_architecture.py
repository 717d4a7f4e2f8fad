"""Import directions: no explainer knows a family, no family an explainer, nothing in `explain` knows `models`.

A unit is one file or folder directly under ``explain/``; "explain" stands for ``explain/__init__.py``. Files within a
unit, and all files together, import in no circle; imports that are only for types count as any other.
"""

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]

EXPLAINERS = (
    *("attention", "counterfactual", "gradient", "graph_lime", "influence", "lime"),
    *("mask", "occlusion", "shapley", "subgraphx", "surrogate"),
)
FAMILIES = ("diffusion", "graph", "graph_diffusion", "supervised")
SHARED = {
    *("derivatives", "doubts", "draws", "examples", "guard", "introduction", "layouts", "loaders", "losses"),
    *(
        "classes",
        "names",
        "obstacles",
        "outputs",
        "parts",
        "passes",
        "payoffs",
        "plain",
        "spelling",
        "threads",
        "training",
    ),
}
DATA = {"credit", "types"}
ANSWER = {*DATA, "explanation"}
MAY_IMPORT = {
    "progress": set(),
    "types": {"progress"},
    "derivatives": set(),
    "layouts": set(),
    "snapshot": {"layouts"},
    "spelling": set(),
    "threads": set(),
    "doubts": set(),
    "guard": {"snapshot", "threads"},
    "draws": {"guard"},
    "plain": {"threads"},
    "obstacles": set(),
    "outputs": {"spelling"},
    "parts": set(),
    "passes": set(),
    "names": set(),
    "classes": {"names", "outputs", "types"},
    "losses": {"outputs", "spelling"},
    "payoffs": {"guard", "outputs", "spelling"},
    "loaders": {"guard"},
    "examples": {"guard", "loaders"},
    "training": {"examples", "losses", "outputs", "payoffs", "types"},
    "versions": set(),
    "introduction": set(),
    "lookup": {"types"},
    "credit": {"lookup", "spelling", "types"},
    # behind the doors of an answer: its data alone
    "conversion": DATA,
    "elsewhere": {"credit", "doubts", "types"},
    "sameness": DATA,
    "storage": DATA,
    "summary": DATA,
    "plot": DATA | {"conversion", "storage"},
    "explanation": {"credit", "types"},  # and through its doors
    "explainer": {"doubts", "explanation", "guard", "spelling", "types", "versions"},
    **{unit: {"doubts", "explainer", "explanation", "guard", "progress", "spelling", "types"} for unit in EXPLAINERS},
    "attention": {"doubts", "explainer", "explanation", "guard", "passes", "progress", "spelling", "types"},
    "gradient": {"derivatives", "doubts", "explainer", "explanation", "guard", "progress", "spelling", "types"},
    "influence": {
        "doubts",
        "explainer",
        "explanation",
        "guard",
        "layouts",
        "obstacles",
        "parallel",
        "plain",  # of a recorded loop, whose losses no family calls
        "progress",
        "spelling",
        "types",
        "versions",
    },  # scores of any size, shard by shard
    **{unit: {*SHARED, "types"} for unit in FAMILIES},
    "graph_diffusion": {*SHARED, "types", "diffusion", "graph"},  # it denoises, and on a graph
    "wrapping": {*FAMILIES, "guard", "spelling"},
    # what can be done with an answer
    "parallel": ANSWER | {"explainer", "guard", "layouts", "progress", "storage", "threads", "versions"},
    "comparison": ANSWER | {"doubts", "spelling"},  # and through its door
    "metrics": ANSWER | {"comparison", "doubts", "explainer", "guard", "parallel"},
    "analysis": ANSWER | {"attention", "explainer", "guard", "spelling"},  # readings that are not credit
    "report": ANSWER | {"comparison", "conversion", "metrics", "plot", "storage", "summary"},
    "discovery": {*EXPLAINERS, *ANSWER, "explainer", "guard", "obstacles"},  # it asks them all
    "cli": {
        *(*ANSWER, "comparison", "discovery", "explain", "explainer", "influence", "parallel", "report", "spelling"),
        *("sameness", "storage", "versions"),
    },
    "__main__": {"cli"},
    "explain": {
        *(*EXPLAINERS, *ANSWER),
        *("analysis", "comparison", "discovery", "explainer", "metrics", "parallel", "plot", "report"),
        *("spelling", "wrapping"),
    },
}
ROOMS = {  # of each family, from below to above: each may use those before it, and nothing that comes after
    "graph": (
        *("tensors", "players", "hooks", "arguments", "state", "findings", "network", "number", "meanings", "place"),
        *("games", "training", "reading", "targets", "model"),
    ),
    "diffusion": (
        *("sites", "process", "categorical", "cold", "bound", "networks", "settings", "schedules", "conventions"),
        *("signature", "denoiser", "classifier", "components", "proofs", "trained", "recomputing", "sampling"),
        *("payoffs", "number", "commit", "forks", "inversion", "sweep", "players", "fills", "games"),
        *("training_set", "objective", "targets", "cascade", "model", "pipelines"),
    ),
    "graph_diffusion": (
        *("copies", "processes", "network", "readings", "settings", "label_losses", "trained", "sampling", "commit"),
        *("number", "players", "games", "label_objective", "targets", "model"),
        *(
            "graph_states",
            "conditions",
            "graph_losses",
            "graph_network",
            "graph_number",
            "graph_games",
            "graph_objective",
        ),
        *("graph_targets", "graph_model"),
    ),
    "supervised": (
        *("border", "trained", "number", "players", "conditional", "baselines", "games", "training_set"),
        *("objective", "targets", "model"),
    ),
}
DOORS = {  # imports inside these functions alone, for pandas and matplotlib take seconds: they go down as all others do
    ("explanation", "Explanation.save", "storage"),
    ("explanation", "Explanation.load", "storage"),
    ("explanation", "Explanation.differences", "sameness"),
    ("explanation", "Explanation.to_pandas", "conversion"),
    ("explanation", "Explanation.to_networkx", "conversion"),
    ("explanation", "Explanation.to_pyg", "conversion"),
    ("explanation", "Explanation.to_shap", "conversion"),
    ("explanation", "Explanation.from_pyg", "elsewhere"),
    ("explanation", "Explanation.from_captum", "elsewhere"),
    ("explanation", "Explanation.from_shap", "elsewhere"),
    ("explanation", "Explanation.plot", "plot"),
    ("explanation", "Explanation.__repr__", "summary"),
    ("explanation", "Explanation.__str__", "summary"),
    ("explanation", "Explanation._repr_html_", "plot"),
    ("explanation", "Explanation._repr_html_", "summary"),
    ("comparison", "Comparison._repr_html_", "plot"),
    ("comparison", "Comparison.plot", "plot"),
}
UPWARD = {  # the only imports against the direction, inside these functions: a target is where users look for its verbs
    ("types", "Target.explainers", "discovery"),
}


def unit_of(path):
    parts = path.relative_to(ROOT / "explain").with_suffix("").parts
    return "explain" if parts == ("__init__",) else parts[0]


def package_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1]


def imports(source, package):
    """(function or None, dotted name) for each import of this project; ``from explain.a import b``: explain.a.b."""
    found = []

    def visit(node, where, in_function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((".".join(where) if in_function else None, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                stem = package[: len(package) - child.level + 1] if child.level else ()
                module = ".".join([*stem, *filter(None, [child.module])])
                names = [f"{module}.{alias.name}" for alias in child.names]
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
            if door not in DOORS | UPWARD:
                wrong.append(f"{unit} imports {name}{f' in {function}' if function else ''}: against the direction")
    return wrong, used


def circles(sources):
    """The files that import one another in a circle, as sets of dotted modules; ``sources``: by (package, module)."""
    modules = {module for _, module in sources}
    graph = nx.DiGraph()
    for (package, module), source in sources.items():
        for function, name in imports(source, package):
            if (module.split(".")[1:2], function) in [([unit], where) for unit, where, _ in UPWARD]:
                continue
            while name not in modules and "." in name:  # a name in a file, or in the __init__ of a folder
                name = name.rpartition(".")[0]
            if name in modules and name != module:
                graph.add_edge(module, name)
    return [found for found in nx.strongly_connected_components(graph) if len(found) > 1]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted((ROOT / "explain").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    unit = unit_of(path)
    assert unit in MAY_IMPORT, f"say in this test where {unit} stands and what it may import"
    assert faults(unit, path.read_text(), package_of(path))[0] == []


def test_every_listed_door_is_used():
    used = set().union(*(faults(unit_of(path), path.read_text(), package_of(path))[1] for path in FILES))
    assert used == DOORS | UPWARD


def test_only_wrapping_knows_the_families():
    knowing = [unit for unit, others in MAY_IMPORT.items() if others & set(FAMILIES)]
    assert knowing == ["graph_diffusion", "wrapping"]  # the first is itself a family, made of two


def test_the_directions_have_no_circle():
    below = {unit: others | {behind for who, _, behind in DOORS if who == unit} for unit, others in MAY_IMPORT.items()}
    done = set()
    while len(done) < len(MAY_IMPORT):
        ready = {unit for unit, others in below.items() if unit not in done and others <= done}
        assert ready, f"a circle among {set(MAY_IMPORT) - done}"
        done |= ready


@pytest.mark.parametrize("family", ROOMS)
def test_the_rooms_of_a_family_stand_one_upon_the_other(family):
    rooms, folder = ROOMS[family], ROOT / "explain" / family
    assert {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()} - {
        "__init__",
        "__pycache__",
    } == set(rooms)
    for path in sorted(folder.rglob("*.py")):
        room = path.relative_to(folder).with_suffix("").parts[0]
        if room == "__init__":
            continue
        for _, name in imports(path.read_text(), package_of(path)):
            if name.startswith(f"explain.{family}."):
                other = name.split(".")[2]
                assert rooms.index(other) <= rooms.index(room), (
                    f"{path}: {room} stands below {other}, and imports {name}"
                )


def test_files_import_in_no_circle():
    found = circles({(package_of(path), module_of(path)): path.read_text() for path in FILES})
    assert not found, f"circles of imports: {[sorted(circle) for circle in found]}"


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_in_a_family_knows_its_targets_but_the_model(family):
    """The number stands below, the verbs above: games, gradients and objectives are of the number."""
    files = [path for path in FILES if unit_of(path) == family]
    known = {module_of(path): [name for _, name in imports(path.read_text(), package_of(path))] for path in files}

    def who_know(file):
        above = f"explain.{family}.{file}."
        return {module for module, names in known.items() if any(f"{name}.".startswith(above) for name in names)}

    models = {f"explain.{family}.model", f"explain.{family}.pipelines.model"}
    themselves = {f"explain.{family}.pipelines.pictures", f"explain.{family}.cascade"}  # targets
    assert who_know("targets") <= {f"explain.{family}", *themselves, *models}
    assert who_know("model") <= {f"explain.{family}", f"explain.{family}.pipelines.model"}


@pytest.mark.parametrize(
    ("a", "b", "circle"),
    [
        ("from explain.f.b import B", "from explain.f.a import A", True),
        ("from explain.f import b", "import explain.f.a", True),
        ("from .b import B", "if TYPE_CHECKING:\n    from explain.f.a import A", True),
        ("from explain.f.b import B", "def f():\n    from explain.f.a import A", True),
        ("from explain.f.b import B", "from explain.f import C", False),
        ("from explain.f.b import B", "import torch", False),
    ],
)
def test_a_circle_is_found(a, b, circle):
    package = ("explain", "f")
    sources = {(package, "explain.f"): "", (package, "explain.f.a"): a, (package, "explain.f.b"): b}
    assert circles(sources) == ([{"explain.f.a", "explain.f.b"}] if circle else [])


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("lime", "from explain.graph.model import GraphModel"),
        ("lime", "import explain.graph"),
        ("lime", "from explain import supervised"),
        ("lime", "def f():\n    from explain.graph import number"),
        ("shapley", "from explain.lime import Lime"),
        ("graph", "from explain.shapley import Shapley"),
        ("supervised", "from explain.graph import inputs"),
        ("supervised", "from ..graph import inputs"),
        ("supervised", "if TYPE_CHECKING:\n    from explain.explainer import Explainer"),
        ("types", "from explain.explanation import Explanation"),
        ("explanation", "from explain.plot import picture"),
        ("explanation", "class Explanation:\n    def top(self):\n        from explain.plot import picture"),
        ("plot", "from explain.explanation import Explanation"),
        ("plot", "from explain.comparison import Comparison"),
        ("storage", "def load(path):\n    from explain.explanation import Explanation"),
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
        ("shapley", "from explain.shapley.complements import anything"),
        ("shapley", "from .complements import anything"),
        ("wrapping", "from explain.graph.model import GraphModel"),
        ("explanation", "class Explanation:\n    def plot(self):\n        from explain.plot import picture"),
        ("lime", "import torch, lime, mymodels"),
    ],
)
def test_a_right_import_is_not(unit, source):
    assert faults(unit, source, ("explain", unit))[0] == []
