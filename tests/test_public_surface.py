"""What `import explain` offers: these names, all of them, and nothing slow."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import explain

PUBLIC = {
    *("wrap", "compare", "capture", "explainers", "analysis", "metrics", "parallel", "plot", "report"),
    *(
        "Shapley",
        "Banzhaf",
        "Interactions",
        "Lime",
        "Gradient",
        "Mask",
        "FittedMask",
        "Attention",
        "Influence",
        "Occlusion",
    ),
    *("SubgraphX", "Counterfactual", "GraphLime", "GlobalSurrogate", "FittedSurrogate"),
    *("Perturbation", "Relabelling", "SelfInfluence", "TracIn", "Trak", "DTrak", "Training", "recorded"),
    *("Explainer", "Explanation", "Comparison", "Players", "Game", "Target", "Objective"),
    *("NonFinite", "Unsupported"),
}


def all_modules():
    return [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(explain.__path__, "explain.")
        if not found.name.endswith("__main__")
    ]


def subclasses(kind):
    return {child for direct in kind.__subclasses__() for child in {direct, *subclasses(direct)}}


def test_the_public_names_are_these():
    assert set(explain.__all__) == PUBLIC
    assert len(explain.__all__) == len(PUBLIC)
    assert set(explain.__all__) <= set(dir(explain))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_described(name):
    found = getattr(explain, name)
    assert found is getattr(explain, name)
    assert found.__doc__
    assert found.__name__.removeprefix("explain.") == name


def test_every_explainer_is_public():
    all_modules()
    loaded = {name for name in sys.modules if name.startswith("explain.")}  # not what a page's example once defined
    own = {kind for kind in subclasses(explain.Explainer) if kind.__module__ in loaded}
    assert own
    assert {kind.__name__ for kind in own} <= PUBLIC
    for kind in own:
        assert getattr(explain, kind.__name__) is kind


def test_every_list_of_names_is_true():
    for module in all_modules():
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__}.__all__ names {name}, which is not there"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"no attribute 'Shaply': did you mean 'Shapley'\? It has Attention"):
        explain.Shaply  # noqa: B018 - asking for it is the test


@pytest.mark.parametrize(
    ("statement", "unneeded"),
    [
        ("import explain", ("torch", "numpy", "matplotlib")),
        ("from explain import Shapley, Players", ("torch_geometric", "captum", "shap", "matplotlib", "diffusers")),
        (
            "from torch import nn; import explain; explain.wrap(nn.Linear(2, 1), task='regression').module",
            ("torch_geometric", "captum", "shap", "matplotlib", "diffusers"),
        ),
    ],
)
def test_importing_costs_only_what_is_used(statement, unneeded):
    script = f"{statement}\nimport sys\nprint([name for name in {unneeded!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
