"""A training input or label that had been different: exact answers, and really training again."""

import numpy as np
import pytest
import torch
from influence_cases import ObjectiveTarget, digits, logistic, ridge, settled, tumour_model, tumours
from reference import influence as reference
from torch import nn

from explain.influence import Influence, Perturbation, Relabelling, refit
from explain.types import NonFinite, Unsupported

ENGINE = Influence(seed=0)


def test_the_derivative_of_least_squares_is_exact():
    """Autograd through the normal equations: how the prediction moves with every training input."""
    x, y, asked, model = ridge()
    moving = x.clone().requires_grad_()
    (asked @ reference.ridge(moving, y, 0.1)).sum().backward()
    for example in (0, 17, 39):
        found = Perturbation(example, engine=ENGINE).explain(model.example(asked))
        assert found.scores.numpy() == pytest.approx(moving.grad[example].numpy())
        assert found.players.kind == "features"
        assert found.checks["residual"] < 1e-12
        assert found.value == pytest.approx(float(asked @ reference.ridge(x, y, 0.1)))


def test_paper_form_of_a_finite_change():
    """``-(1/n) grad f^T H^-1 (grad loss(z_delta) - grad loss(z))`` with ``grad loss = 2 (x theta - y) x``."""
    x, y, asked, model = ridge()
    theta = reference.ridge(x, y, 0.1)
    s = torch.linalg.solve(2 * x.T @ x / 40 + 0.1 * torch.eye(5, dtype=torch.float64), asked)
    to = x[3].clone()
    to[[1, 4]] += torch.tensor([2.0, -3.0])

    def along(row):
        return float(2 * (row @ theta - y[3]) * (row @ s))

    found = Perturbation(3, to=to, engine=ENGINE).explain(model.example(asked))
    for feature in range(5):
        row = x[3].clone()
        row[feature] = to[feature]
        assert float(found.scores[feature]) == pytest.approx((along(x[3]) - along(row)) / 40, abs=1e-12)
    assert found.checks["together"] == pytest.approx((along(x[3]) - along(to)) / 40)
    assert (found.scores != 0).tolist() == [False, True, False, False, True]


def test_a_small_change_is_the_derivative_times_it():
    x, _, others, _ = tumours()
    target = tumour_model().example(others[0], payoff="probability")
    slopes = Perturbation(5, engine=ENGINE).explain(target).scores
    changes = Perturbation(5, to=x[5] + 1e-5, engine=ENGINE).explain(target)
    assert changes.scores.numpy() == pytest.approx(1e-5 * slopes.numpy(), rel=1e-3)
    assert changes.checks["together"] == pytest.approx(1e-5 * float(slopes.sum()), rel=1e-3)


def test_retraining_on_a_changed_input():
    """The logit of the least certain patient, were one measurement of another patient a third of a deviation off."""
    x, _, others, _ = tumours()
    model = tumour_model()
    target = model.example(others[int((model.module(others)[:, 0]).abs().argmin())])
    objective = target.objective()
    found, real = [], []
    for example in (3, 40, 127, 250):
        changed = Perturbation(example, to=x[example] + 0.3, engine=ENGINE).explain(target)
        found += changed.scores[::6].tolist()
        for feature in range(0, 30, 6):
            row = x[example].clone()
            row[feature] += 0.3
            again = refit(objective.replaced(torch.tensor([example]), row[None]))
            real.append(float(objective.measurement(again)) - changed.value)
    assert np.corrcoef(found, real)[0, 1] >= 0.998
    assert np.polyfit(found, real, 1)[0] == pytest.approx(1, abs=0.1)


def test_the_map_over_an_image_is_that_of_training_again():
    x, y, others, _ = digits(120)
    images, asked = x.view(-1, 1, 4, 4), others[0].view(1, 4, 4)
    model = settled(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).double(), images, y, weight_decay=0.01)
    target = model.example(asked, payoff="log_probability")
    found = Perturbation(7, engine=ENGINE).explain(target)
    assert found.parts["map"].shape == (1, 4, 4)
    assert found.players.kind == "pixels"
    assert found.parts["map"].reshape(-1).equal(found.scores)
    objective = target.objective()
    for pixel in (2, 9, 14):
        ends = []
        for step in (-0.01, 0.01):
            moved = images[7].clone()
            moved.view(-1)[pixel] += step
            ends.append(float(objective.measurement(refit(objective.replaced(torch.tensor([7]), moved[None]), 1e-13))))
        assert float(found.scores[pixel]) == pytest.approx((ends[1] - ends[0]) / 0.02, rel=1e-3)
    found.plot()


def test_colours_have_a_player_a_channel():
    x = torch.rand(12, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1)).double()
    model = settled(net, x, x.mean((1, 2, 3))[:, None], task="regression", weight_decay=0.1)
    found = Perturbation(0, engine=Influence(curvature="ggn", damping=0.1, seed=0)).explain(model.example(x[1]))
    assert found.players.names[4] == "pixel 1-0-0"
    assert found.parts["map"].shape == (3, 2, 2)


def test_retraining_with_a_flipped_label():
    x, y, others, _ = tumours()
    model = tumour_model()
    target = model.example(others[0])
    objective = target.objective()
    found = Relabelling(engine=ENGINE).explain(target)
    chosen = found.scores.abs().argsort(descending=True)[::20].tolist()
    real = []
    for i in chosen:
        labels = y.clone()
        labels[i] = 1 - labels[i]
        real.append(float(objective.measurement(refit(objective.relabelled(labels)))) - found.value)
    assert np.corrcoef(found.scores[chosen], real)[0, 1] >= 0.97  # of 300 patients a flip is a large change
    assert found.checks["relabelled"] == len(x)
    assert found.players.geometry["classes"].equal(y)


def test_other_targets_of_least_squares_are_exact():
    x, y, asked, model = ridge()
    found = Relabelling(2.5, engine=ENGINE).explain(model.example(asked))
    for i in (0, 21):
        other = y.clone()
        other[i] = 2.5
        change = float(asked @ (reference.ridge(x, other, 0.1) - reference.ridge(x, y, 0.1)))
        assert float(found.scores[i]) == pytest.approx(change)


def test_of_many_classes_the_other_one_must_be_named():
    target = ObjectiveTarget(logistic())
    found = Relabelling(2, engine=ENGINE).explain(target)
    same = logistic().labels == 2
    assert not found.scores[same].any()
    assert found.scores[~same].all()
    assert found.checks["relabelled"] == int((~same).sum())
    assert Relabelling(torch.tensor(2), engine=ENGINE).explain(target).scores.equal(found.scores)
    for label in (None, 4, -1, 1.5, float("nan"), torch.tensor([1, 2])):
        with pytest.raises(ValueError, match=r"label must be a class from 0 to 3|instead"):
            Relabelling(label, engine=ENGINE).explain(target)


def test_bad_settings():
    for kind in (Perturbation, Relabelling):
        with pytest.raises(TypeError, match="engine must be an Influence"):
            kind(0, engine="cg")
    with pytest.raises(TypeError, match="position of a training example"):
        Perturbation("first")
    with pytest.raises(TypeError, match="to must be a"):
        Perturbation(0, to=[1.0])
    with pytest.raises(TypeError, match="label must be"):
        Relabelling("dog")


def test_bad_input():
    x, _, asked, model = ridge()
    target = model.example(asked)
    with pytest.raises(IndexError, match="from 0 to 39, got 40"):
        Perturbation(40).explain(target)
    with pytest.raises(IndexError, match="from 0 to 39, got -1"):
        Perturbation(-1).explain(target)
    with pytest.raises(ValueError, match=r"to must be \[5\]"):
        Perturbation(0, to=torch.zeros(4)).explain(target)
    with pytest.raises(NonFinite, match="to holds"):
        Perturbation(0, to=x[0] / 0).explain(target)
    with pytest.raises(Unsupported, match="inputs of their own"):
        Perturbation(0).explain(ObjectiveTarget(logistic()))
    with pytest.raises(ValueError, match="give label="):
        Relabelling().explain(target)
    with pytest.raises(NonFinite, match="label is NaN"):
        Relabelling(float("nan")).explain(target)
    objective = target.objective()
    with pytest.raises(ValueError, match="the inputs in their place"):
        objective.replaced(torch.tensor([0]), x[:2])
    with pytest.raises(NonFinite, match="the inputs in their place"):
        objective.replaced(torch.tensor([0]), x[:1] / 0)
    with pytest.raises(ValueError, match="labels must be"):
        objective.relabelled(torch.zeros(3))


def test_a_model_that_was_not_trained_to_the_end_is_warned_about():
    x, y, asked, model = ridge()
    with torch.no_grad():
        early = nn.Linear(5, 1, bias=False).double()
        early.weight.copy_(model.module.weight * 0.5)
    target = type(model)(early, task="regression", train=(x, y), weight_decay=0.1).example(asked)
    with pytest.warns(UserWarning, match=r"gradient norm .*finishing the training would move the number"):
        found = Perturbation(3, to=x[3] + 1e-3, engine=ENGINE).explain(target)
    moved = float(asked @ reference.ridge(x, y, 0.1)[:, 0] - early(asked[None]).detach())
    assert found.checks["still_to_move"] == pytest.approx(moved)
