"""Influence of groups: the sum of scores where it holds, and the Newton step where it does not."""

from functools import cache

import numpy as np
import pytest
import torch
from influence_cases import ObjectiveTarget, digits, half_trained, logistic, ridge
from reference import influence as reference

from explain.influence import ConjugateGradient, Influence, group_influence, group_influences, refit
from explain.types import Players, Unsupported


@cache
def a_fifth_of_the_digits():
    """Eight groups of forty digits that look alike: predicted, and really trained without them."""
    x = digits()[0]
    groups = [(x - x[10 * j]).norm(dim=1).argsort()[:40] for j in range(8)]
    found = group_influences(ObjectiveTarget(logistic()), groups, Influence(seed=0))
    return found, np.array([reference.without_group(logistic(), group) for group in groups])


def test_one_newton_step_predicts_retraining_where_the_sum_of_scores_does_not():
    found, real = a_fifth_of_the_digits()
    newton, additive = (np.array([getattr(one, name) for one in found]) for name in ("newton", "additive"))
    assert np.corrcoef(newton, real)[0, 1] >= 0.985
    assert np.abs(newton - real).sum() < 0.5 * np.abs(additive - real).sum()
    assert additive @ real / (additive @ additive) > 1.3  # scores know nothing of one another: far too small
    assert newton @ real / (newton @ newton) == pytest.approx(1, abs=0.1)
    assert all(0 < one.checks["gradient_left"] < 0.3 for one in found)


def test_the_sum_is_that_of_the_scores():
    target, players = ObjectiveTarget(logistic()), [3, 77, 120]
    scores = Influence(seed=0).explain(target).scores
    found = group_influence(target, players, Influence(seed=0))
    assert found.additive == pytest.approx(float(scores[players].sum()))
    assert found.value == pytest.approx(float(logistic().measurement(logistic().params)))
    mask = torch.zeros(200, dtype=torch.bool)
    mask[players] = True
    assert group_influence(target, mask, Influence(seed=0)).newton == pytest.approx(found.newton)


@pytest.mark.parametrize("players", [[0], [1, 5, 8, 30], list(range(30))])
def test_the_newton_step_is_exact_for_least_squares(players):
    x, y, asked, model = ridge()
    weights = torch.ones(len(x), dtype=torch.float64)
    weights[players] = 0
    without = reference.ridge(x, y, 0.1, weights)
    found = group_influence(model.example(asked), players)
    assert found.newton == pytest.approx(float(asked @ (reference.ridge(x, y, 0.1) - without)))
    assert found.change["weight"][0].numpy() == pytest.approx((without - reference.ridge(x, y, 0.1))[:, 0].numpy())
    assert found.checks["gradient_left"] < 1e-10
    again = refit(model.example(asked).objective().without(torch.tensor(players)))
    assert again["weight"][0].numpy() == pytest.approx(without[:, 0].numpy(), rel=1e-6)


def test_leaving_one_out_of_least_squares_is_the_formula_of_sherman_and_morrison():
    """``theta_-i = theta - A^-1 x_i e_i / (1 - h_i)`` with the leverage ``h_i = (2/n) x_i^T A^-1 x_i``."""
    x, y, asked, model = ridge()
    A = 2 * x.T @ x / 40 + 0.1 * torch.eye(5, dtype=torch.float64)
    residual = (y - x @ reference.ridge(x, y, 0.1))[:, 0]
    leverage = 2 / 40 * (x * torch.linalg.solve(A, x.T).T).sum(1)
    falls = 2 / 40 * (x @ torch.linalg.solve(A, asked)) * residual / (1 - leverage)
    found = group_influences(model.example(asked), [[i] for i in range(40)])
    assert [one.newton for one in found] == pytest.approx(falls.tolist())
    assert [one.additive for one in found] == pytest.approx((falls * (1 - leverage)).tolist())


@pytest.mark.filterwarnings("ignore:one Newton step", "ignore:the model is not at a minimum")
def test_any_solver_and_the_curvature_of_a_network_that_was_not_trained_to_the_end():
    target = ObjectiveTarget(half_trained())
    settings = {"curvature": "ggn", "damping": 0.5, "seed": 0}
    exact = group_influence(target, [1, 2, 3], Influence(**settings))
    other = group_influence(target, [1, 2, 3], Influence(solver=ConjugateGradient(tolerance=1e-8), **settings))
    assert other.newton == pytest.approx(exact.newton, rel=1e-5)
    assert (other.checks["solver"], other.checks["damping"], other.checks["curvature"]) == ("cg", 0.5, "ggn")


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_a_step_that_ends_far_from_the_minimum_is_warned_about():
    x, _, _, _ = digits(30)
    with pytest.warns(UserWarning, match="leaves .* of the gradient"):
        found = group_influence(
            ObjectiveTarget(half_trained()), list(range(len(x) - 2)), Influence(curvature="ggn", damping=1e-3, seed=0)
        )
    assert found.checks["gradient_left"] > 0.5


@pytest.mark.parametrize(
    ("players", "error", "message"),
    [
        ([], ValueError, "no training example was named"),
        ([1, 1], ValueError, "named twice"),
        ([200], IndexError, "from 0 to 199, got 200 to 200"),
        ([-1], IndexError, "from 0 to 199"),
        ([0.5], TypeError, "whole numbers"),
        (Players("train", torch.arange(2)), TypeError, r"positions in the training set, .* got Players"),
        ([("train 1", 0.5)], TypeError, r"positions in the training set, .* got list"),
        (torch.ones(3, dtype=torch.bool), ValueError, r"mask of training examples must be \[200\]"),
        (torch.zeros(200, dtype=torch.bool), ValueError, "no training example"),
    ],
)
def test_what_is_no_group(players, error, message):
    with pytest.raises(error, match=message):
        group_influence(ObjectiveTarget(logistic()), players)


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match="there is no group"):
        group_influences(ObjectiveTarget(logistic()), [])
    with pytest.raises(TypeError, match="a target is needed"):
        group_influence(logistic(), [0])
    with pytest.raises(TypeError, match="engine must be an Influence"):
        group_influence(ObjectiveTarget(logistic()), [0], "exact")

    class Bare:
        """An objective that cannot leave anything out."""

    with pytest.raises(Unsupported, match="without"):
        group_influence(ObjectiveTarget(Bare()), [0])
