"""A misspelt setting is answered with the one that was meant."""

import copy
import dataclasses
import inspect
import pickle

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCN

import explain
from explain import Influence, Lime, Mask, Shapley
from explain.spelling import check_names, settings_of


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            lambda: Shapley("edges", sample=64),
            "Shapley has no setting 'sample': did you mean 'samples'\\? It has players",
        ),
        (lambda: Lime("edges", kernelwidth=1.0), "did you mean 'kernel_width'"),
        (lambda: Mask("edges", epoch=3), "did you mean 'epochs'"),
        (lambda: Influence(dampng=0.1), "did you mean 'damping'"),
        (lambda: Shapley("edges", colour="red"), "no setting 'colour'; it has players, estimator"),
    ],
)
def test_settings_of_explainers(made, said):
    with pytest.raises(TypeError, match=said):
        made()


@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        (torch.nn.Linear(2, 2), None, {"task": "classification"}),
        (GCN(2, 2, 1), Data(torch.ones(2, 2), torch.tensor([[0], [1]])), {}),
    ],
)
def test_options_of_wrap(model, data, options):
    with pytest.raises(
        TypeError, match=r"wrap has no setting 'weigth_decay': did you mean 'weight_decay'\? It has task"
    ):
        explain.wrap(model, data, weigth_decay=0.1, **options)


GRAPH = Data(torch.ones(2, 2), torch.tensor([[0], [1]]))
VERBS = {
    "node": lambda: explain.wrap(GCN(2, 2, 1), GRAPH).node(0, lable=1),
    "edge": lambda: explain.wrap(GCN(2, 2, 1), GRAPH, task="edge").edge(0, 1, lable=1),
    "graph": lambda: explain.wrap(GCN(2, 2, 1), [GRAPH]).graph(0, lable=1),
    "example": lambda: explain.wrap(torch.nn.Linear(2, 2), task="classification").example(torch.ones(2), lable=1),
    "step": lambda: explain.wrap(lambda x, t: x, betas=[0.1], time="step").step(torch.ones(1, 8, 8), t=0, lable=1),
    "trajectory": lambda: explain.wrap(lambda x, t: x, betas=[0.1], time="step").trajectory(payoff=len, lable=1),
}


@pytest.mark.parametrize("verb", VERBS)
def test_arguments_of_questions(verb):
    with pytest.raises(TypeError, match=rf"{verb} has no setting 'lable': did you mean 'label'\? It has \w+, "):
        VERBS[verb]()


def test_questions_keep_their_signatures():
    node = explain.wrap(GCN(2, 2, 1), GRAPH).node
    assert [*inspect.signature(node).parameters][:3] == ["node", "label", "payoff"]
    assert "The model's answer for one node" in node.__doc__
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'node'"):
        node()


def test_explainers_are_made_copied_and_inspected_as_any_dataclass():
    explainer = Shapley("edges", samples=64)
    for same in (pickle.loads(pickle.dumps(explainer)), copy.deepcopy(explainer), dataclasses.replace(explainer)):
        assert same == explainer
    assert [*inspect.signature(Shapley).parameters][:3] == ["players", "estimator", "samples"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'players'"):
        Shapley()


def test_whoever_takes_any_name_is_given_any():
    assert settings_of(lambda a, **rest: a) is None
    assert settings_of(lambda a, *, b=1: a) == ["a", "b"]
    check_names("it", [], [])


TABLE = explain.wrap(torch.nn.Linear(2, 2), task="classification")
NODES = explain.wrap(GCN(2, 2, 1, 2), GRAPH)
STEPS = explain.wrap(lambda x, t: x, betas=[0.1], time="step")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (lambda: Shapley("edges", estimator="Permutations"), "permutation"),
        (lambda: Influence(solver="lisa"), "lissa"),
        (lambda: Mask("edges", method="gnnexplainer"), "gnn_explainer"),
        (lambda: NODES.node(0, removal="deleted"), "delete"),
        (lambda: NODES.node(0, payoff="logits"), "logit"),
        (lambda: NODES.node(0).players("edge"), "edges"),
        (lambda: NODES.node(0).players("edges", undirect=True), "undirected"),
        (lambda: TABLE.example(torch.ones(2), baseline="zero"), "zeros"),
        (lambda: TABLE.example(torch.ones(2)).players("feature"), "features"),
        (lambda: STEPS.step(torch.ones(1, 8, 8), t=0, fill="means"), "mean"),
        (lambda: STEPS.step(torch.ones(1, 8, 8), t=0).players("patch"), "patches"),
        (lambda: explain.shapley_, "Shapley"),
    ],
)
def test_names_of_anything_else(asked, meant):
    with pytest.raises((AttributeError, TypeError, ValueError), match=f"did you mean '{meant}'"):
        asked()
