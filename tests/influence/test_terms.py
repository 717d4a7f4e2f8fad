"""Influence without its terms against the closed forms of logistic regression; helpful and harmful examples."""

import pytest
import torch
from influence_cases import ObjectiveTarget, half_trained, logistic, settled, tumour_model, tumours
from torch import nn

from explain.explanation import Explanation
from explain.influence import Influence, components, harmful, helpful
from explain.types import Players

ENGINE = Influence(seed=0)


@pytest.mark.parametrize("outputs", [1, 2])
def test_closed_forms_of_logistic_regression(outputs):
    """``-y_t y sigma(-y_t m_t) sigma(-y m) x_t^T H^-1 x / n`` and its parts, ``y`` of -1 or 1 (their sign: a loss)."""
    x, y, others, labels = tumours()
    model = tumour_model(outputs)
    asked, sign = others[4], 2.0 * y - 1
    side = 2.0 * labels[4] - 1
    weight = model.module.weight.detach()
    theta = weight[0] if outputs == 1 else weight[1] - weight[0]
    p = torch.sigmoid(x @ theta)
    eye = torch.eye(30, dtype=torch.float64)
    curve = x.T @ ((p * (1 - p))[:, None] * x) / len(x)
    # two logits share the penalty: along (u, -u) the Hessian is 2 curve + weight_decay, and theta moves by 2 u
    inverse = torch.linalg.inv(curve + 0.01 * eye if outputs == 1 else curve + 0.005 * eye)
    plain = eye * outputs
    fit, test = torch.sigmoid(-sign * (x @ theta)), torch.sigmoid(-side * (asked @ theta))
    found = components(model.example(asked, int(labels[4]), payoff="loss"), ENGINE)
    for matrix, loss, part in (
        (inverse, fit, found.full),
        (inverse, 1, found.without_loss),
        (plain, fit, found.without_curvature),
        (plain, 1, found.without_both),
    ):
        expected = -side * sign * test * loss * (x @ matrix @ asked) / len(x)
        assert part.numpy() == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-7)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_the_whole_is_influence_for_any_model():
    for objective in (logistic(), half_trained()):
        target = ObjectiveTarget(objective)
        found = components(target, ENGINE)
        assert found.full.numpy() == pytest.approx(ENGINE.explain(target).scores.numpy())
        assert not torch.allclose(found.full, found.without_loss)


def test_without_the_curvature_every_example_of_the_same_class_looks_helpful():
    """For inputs that are all positive (Koh and Liang 2017, figure 1); with it many are harmful."""
    x, y, others, labels = tumours()
    positive = x - x.min()
    model = settled(nn.Linear(30, 1, bias=False).double(), positive, y, weight_decay=0.01)
    label = int(labels[0])
    found = components(model.example(others[0] - x.min(), label, payoff="loss"), ENGINE)
    same = y == label
    for part in (found.without_curvature, found.without_both):
        assert (part[same] < 0).all()
        assert (part[~same] > 0).all()
    assert 0.05 < float((found.full[same] > 0).double().mean()) < 0.95


def test_harmful_examples_of_the_same_class():
    _, y, others, labels = tumours()
    label = int(labels[3])
    why = ENGINE.explain(tumour_model().example(others[3], label, payoff="loss"))
    found = harmful(why, 4, label=label)
    assert (y[found] == label).all()
    assert (why.scores[found] > 0).all()
    assert found[0] == why.scores.where(y == label, -torch.inf).argmax()
    assert helpful(why, 1)[0] == why.scores.argmin()
    logit = ENGINE.explain(tumour_model().example(others[3], label))
    assert harmful(logit, 4, label=label).equal(found)  # of one example the loss falls as the logit rises


def test_bad_input():
    players = Players("train", torch.arange(3))
    why = Explanation(torch.tensor([1.0, -1.0, 0.0]), players, value=0.0, target={"payoff": "loss"})
    assert harmful(why).tolist() == [0]
    with pytest.raises(ValueError, match="no classes"):
        harmful(why, label=1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        helpful(why, 0)
    with pytest.raises(ValueError, match="these players are nodes"):
        helpful(Explanation(torch.ones(1), Players("nodes", torch.arange(1)), value=0.0))
    found = ENGINE.explain(tumour_model().example(tumours()[2][0]))
    with pytest.raises(ValueError, match=r"training classes \[0, 1\], got 2"):
        harmful(found, label=2)
    with pytest.raises(TypeError, match="engine must be an Influence"):
        components(ObjectiveTarget(logistic()), "exact")
