"""The further questions on a graph, whose training nodes share their inputs."""

from functools import cache

import numpy as np
import pytest
import torch
from influence_cases import ObjectiveTarget, logistic
from torch_geometric.nn import SGConv

import explain
from explain.influence import (
    Influence,
    Perturbation,
    Relabelling,
    SelfInfluence,
    components,
    group_influence,
    harmful,
    mislabels,
    poison,
    refit,
)
from explain.types import Unsupported
from models.datasets import karate_club

ENGINE = Influence(seed=0)


@cache
def club():
    """A simple graph convolution on the karate club at its minimum, asked about member 9, and that objective."""
    torch.manual_seed(0)
    data = karate_club(labelled=4)
    data.x = data.x.double()
    net = SGConv(34, 4, K=2).double()
    target = explain.wrap(net, data, weight_decay=0.1).node(9)
    with torch.no_grad():
        for name, p in refit(target.objective()).items():
            net.get_parameter(name).copy_(p)
    target = explain.wrap(net, data, weight_decay=0.1).node(9)
    return target, target.objective()


def test_another_label_of_a_training_node_is_that_of_training_again():
    target, objective = club()
    found = Relabelling(2, engine=ENGINE).explain(target)
    real = []
    for i in range(objective.size):
        labels = objective.labels.clone()
        labels[i] = 2
        real.append(float(objective.measurement(refit(objective.relabelled(labels)))) - found.value)
    assert np.corrcoef(found.scores, real)[0, 1] >= 0.98
    assert found.players.names == tuple(f"node {i}" for i in found.players.index.tolist())


def test_a_group_of_training_nodes():
    target, objective = club()
    found, real = [], []
    for group in ([0, 1], [4, 5, 6], [2, 9, 12, 15], [0, 4, 8, 12]):
        found.append(group_influence(target, group, ENGINE).newton)
        without = refit(objective.without(torch.tensor(group)))
        real.append(float(objective.measurement(objective.params) - objective.measurement(without)))
    assert np.corrcoef(found, real)[0, 1] >= 0.99


def test_self_influence_of_training_nodes():
    target, objective = club()
    why = SelfInfluence(ENGINE).explain(target)
    rises = []
    for i in range(objective.size):
        at = torch.tensor([i])
        without = refit(objective.without(at))
        rises.append(float(objective.train_loss(without, at) - objective.train_loss(objective.params, at)))
    assert np.corrcoef(why.scores, rises)[0, 1] >= 0.95
    assert mislabels(why, [0]).found["loss"][-1] == 1
    assert len(harmful(ENGINE.explain(target), 3, label=int(objective.labels[0]))) <= 3
    assert components(target, ENGINE).full.numpy() == pytest.approx(ENGINE.explain(target).scores.numpy())


def test_inputs_that_examples_share_cannot_be_perturbed_one_by_one():
    target, _ = club()
    with pytest.raises(Unsupported, match="perturbing a training input needs training examples that are inputs"):
        Perturbation(0, engine=ENGINE).explain(target)
    with pytest.raises(Unsupported, match="poisoning needs"):
        poison(target, 0)


@pytest.mark.parametrize("kind", [SelfInfluence, Relabelling])
def test_an_engine_set_to_another_question(kind):
    with pytest.raises(ValueError, match="about training examples"):
        kind(engine=Influence(remove="nodes"))
    with pytest.raises(ValueError, match="about training examples"):
        group_influence(ObjectiveTarget(logistic()), [0], Influence(remove="edges"))


def test_results_say_themselves_in_a_line():
    import explain
    from explain.influence import GroupInfluence, components, group_influence, mislabels

    net = torch.nn.Linear(2, 1, bias=False).double()
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)).double()
    y = x[:, :1] + 0.1
    with torch.no_grad():
        net.weight.copy_(torch.linalg.solve(x.T @ x / 6 + 0.1 * torch.eye(2).double(), x.T @ y / 6).T)
    model = explain.wrap(net, task="regression", train=(x, y), weight_decay=0.1)
    target = model.example(x[0])
    group = group_influence(target, [1, 2])
    assert isinstance(group, GroupInfluence)
    for found in (group, mislabels(explain.SelfInfluence().explain(target), [3]), components(target)):
        said = repr(found)
        assert said.startswith(type(found).__name__)
        assert len(said) < 160
        assert "tensor" not in said
