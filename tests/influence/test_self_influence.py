"""Self-influence against its closed form and retraining; the search for wrong labels by it."""

from functools import cache

import numpy as np
import pytest
import torch
from influence_cases import (
    ObjectiveTarget,
    half_trained,
    logistic,
    module_objective,
    settled,
    tumour_model,
    tumours,
)
from reference import influence as reference
from torch import nn

from explain.explanation import Explanation
from explain.influence import Influence, SelfInfluence, accuracy_after_fixing, mislabels
from explain.influence.example_gradients import example_gradients
from explain.types import NonFinite, Players


def test_closed_form_of_logistic_regression():
    """``sigma(-y theta x)^2 x^T H^-1 x / n``, with ``y`` of -1 or 1."""
    x, y, _, _ = tumours()
    model = tumour_model()
    theta = model.module.weight[0].detach()
    p = torch.sigmoid(x @ theta)
    H = x.T @ ((p * (1 - p))[:, None] * x) / len(x) + 0.01 * torch.eye(30, dtype=torch.float64)
    expected = (p - y) ** 2 * (x * torch.linalg.solve(H, x.T).T).sum(1) / len(x)
    found = SelfInfluence(Influence(seed=0)).explain(model.example(x[0]))
    assert found.scores.numpy() == pytest.approx(expected.numpy(), rel=1e-8)
    assert found.players.kind == "train"
    assert found.players.geometry["classes"].equal(y)
    assert found.value == pytest.approx(float(found.parts["self_loss"].mean()))
    assert found.settings["engine"]["Influence"]["seed"] == 0


@pytest.mark.parametrize("solver", ["cg", "lissa"])
def test_any_solver(solver):
    target = ObjectiveTarget(logistic())
    exact = SelfInfluence(Influence(seed=0)).explain(target)
    found = SelfInfluence(Influence(solver=solver, seed=0)).explain(target)
    assert float((found.scores - exact.scores).norm() / exact.scores.norm()) < 0.02
    assert 0 < found.checks["residual"] < 0.01
    assert found.seed == 0


def test_paper_form_on_a_network():
    objective = half_trained()
    rows = reference.loss_gradients(objective)
    damped = reference.gauss_newton(objective) + 0.5 * torch.eye(rows.size(1), dtype=torch.float64)
    engine = Influence(curvature="ggn", damping=0.5, seed=0)
    with pytest.warns(UserWarning, match=r"gradient norm .*would move the losses"):
        found = SelfInfluence(engine).explain(ObjectiveTarget(objective))
    expected = (rows * torch.linalg.solve(damped, rows.T).T).sum(1) / objective.size
    assert found.scores.numpy() == pytest.approx(expected.numpy())
    everyone = torch.cat([gradients for _, gradients in example_gradients(objective)])
    assert everyone.numpy() == pytest.approx(rows.numpy())


def test_an_examples_own_loss_rises_as_predicted():
    objective = logistic()
    found = SelfInfluence(Influence(seed=0)).explain(ObjectiveTarget(objective))
    params, theta = reference.flat_function(objective)
    chosen = found.scores.argsort(descending=True)[::13].tolist()

    def loss(vector, i):
        return float(objective.train_loss(params(vector), torch.tensor([i])))

    rises = [loss(theta + reference.leave_one_out(objective, i)[1], i) - loss(theta, i) for i in chosen]
    assert np.corrcoef(rises, found.scores[chosen])[0, 1] >= 0.98
    assert (found.scores >= 0).all()


@cache
def flipped():
    """Breast cancer with every tenth label flipped: which, and the self-influence of the model trained on that."""
    x, y, _, _ = tumours()
    wrong = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:30]
    labels = y.clone()
    labels[wrong] = 1 - labels[wrong]
    model = settled(nn.Linear(30, 1, bias=False).double(), x, labels, weight_decay=0.01)
    return wrong, labels, SelfInfluence(Influence(seed=0)).explain(model.example(x[0]))


def test_wrong_labels_are_found_by_influence_and_by_the_loss():
    wrong, _, why = flipped()
    search = mislabels(why, wrong)
    assert search.auc["self_influence"] > 0.9
    assert search.auc["loss"] > 0.9
    assert min(search.area["self_influence"], search.area["loss"]) > search.area["random"] + 0.3
    assert 0.3 < search.auc["random"] < 0.7
    for name, curve in search.found.items():
        slow = [0.0]
        for i in search.order[name].tolist():
            slow.append(slow[-1] + (i in wrong.tolist()) / 30)
        assert curve.numpy() == pytest.approx(np.array(slow))
    scores, labels = why.scores.numpy(), np.isin(np.arange(300), wrong.numpy())
    pairs = scores[labels][:, None] - scores[~labels]
    assert search.auc["self_influence"] == pytest.approx(float((pairs > 0).mean() + (pairs == 0).mean() / 2))
    assert mislabels(why, torch.from_numpy(labels), seed=0).area == search.area
    assert mislabels(why, wrong, seed=1).area["random"] != search.area["random"]


def test_accuracy_grows_as_labels_are_put_right():
    wrong, labels, why = flipped()
    truth = tumours()[1]
    search = mislabels(why, wrong)
    found = accuracy_after_fixing(
        search, labels, truth, lambda y: float((y == truth).double().mean()), (0, 0.1, 0.3, 1)
    )
    for name, curve in found.items():
        assert curve.tolist()[0] == pytest.approx(0.9)
        assert curve.tolist()[1] == pytest.approx(0.9 + 0.1 * float(search.found[name][30]))
        assert curve.tolist()[-1] == 1
    assert labels[wrong].equal(1 - truth[wrong])  # what was given stays as it is
    with pytest.raises(ValueError, match="from 0 to 1"):
        accuracy_after_fixing(search, labels, truth, lambda y: 0.0, (2.0,))
    with pytest.raises(ValueError, match=r"must be \[300\]"):
        accuracy_after_fixing(search, labels[:5], truth, lambda y: 0.0)


def test_bad_input():
    with pytest.raises(TypeError, match="engine must be an Influence"):
        SelfInfluence("exact")
    x, y, _, _ = tumours()
    net = nn.Linear(30, 1, bias=False).double()
    nn.init.constant_(net.weight, 1e308)
    with pytest.raises(NonFinite, match="training losses"):
        SelfInfluence().explain(ObjectiveTarget(module_objective(net, x, y, asked=x[:1]), net))
    _, _, why = flipped()
    for wrong, error in (([], ValueError), ([300], IndexError), (list(range(300)), ValueError)):
        with pytest.raises(error):
            mislabels(why, wrong)
    other = Explanation(torch.ones(2), Players("train", torch.arange(2)), value=0.0, method="Influence")
    with pytest.raises(ValueError, match="got an explanation by 'Influence'"):
        mislabels(other, [0])
