"""E[f(x) | x_S] under a Gaussian: against the closed form, for linear models, for quadratic ones, and shap's."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from reference.conditional import conditional_covariance, conditional_mean
from reference.shapley import by_pairs, of_masks
from torch import nn

from explain.supervised import Conditional, SupervisedModel

FEATURES = 6


class Quadratic(nn.Module):
    """x' A x, whose expectation is mean' A mean + trace(A covariance)."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(FEATURES, FEATURES, dtype=torch.float64))

    def forward(self, x):
        return ((x @ self.matrix) * x).sum(1)


@pytest.fixture(name="case")
def correlated_rows():
    torch.manual_seed(0)
    rows = torch.randn(200, FEATURES, dtype=torch.float64) @ torch.randn(FEATURES, FEATURES, dtype=torch.float64) + 2
    rows = rows * torch.tensor([1e-3, 1, 10, 1, 1e3, 1])  # features of very different scale
    return rows, rows[0] * 1.5


def test_a_linear_model_is_exact_whatever_the_number_of_samples(case):
    rows, x = case
    linear = nn.Linear(FEATURES, 1).double()
    model = SupervisedModel(linear, task="regression")
    game = model.example(x, baseline=Conditional(rows, samples=2)).game("features")
    mean, covariance = rows.mean(0).numpy(), np.cov(rows.numpy().T)
    weight, bias = linear.weight[0].detach().numpy(), linear.bias.item()

    def by_hand(known):
        return float(weight @ conditional_mean(mean, covariance, x.numpy(), known) + bias)

    mine = by_pairs(cache(of_masks(game, FEATURES)), FEATURES).numpy()
    assert mine == pytest.approx(by_pairs(by_hand, FEATURES).numpy(), rel=1e-8)


def test_the_standard_error_tells_an_affine_number(case):
    rows, x = case
    model = SupervisedModel(nn.Linear(FEATURES, 1).double(), task="regression", background=rows)
    checks = model.example(x, baseline="conditional").game("features").checks
    scale = abs(model.example(x).value())
    assert checks["conditional_standard_error"] < 1e-9 * scale
    assert checks["covariance_ridge"] == 0
    assert checks["conditional_samples"] == 512


def test_a_quadratic_model_by_its_moments(case):
    rows, x = case
    rows, x = rows / rows.std(0), x / rows.std(0)
    torch.manual_seed(1)
    net = Quadratic()
    model = SupervisedModel(net, task="regression")
    game = model.example(x, baseline=Conditional(rows, samples=2**11)).game("features")
    mean, covariance, matrix = rows.mean(0).numpy(), np.cov(rows.numpy().T), net.matrix.detach().numpy()
    for size in range(FEATURES + 1):
        for known in itertools.combinations(range(FEATURES), size):
            centre = conditional_mean(mean, covariance, x.numpy(), known)
            rest = [j for j in range(FEATURES) if j not in known]
            spread = conditional_covariance(covariance, known)
            expected = centre @ matrix @ centre + np.trace(matrix[np.ix_(rest, rest)] @ spread)
            assert of_masks(game, FEATURES)(frozenset(known)) == pytest.approx(expected, rel=1e-2, abs=5e-2)


def test_shap_agrees_on_a_correlated_linear_model(case):
    shap = pytest.importorskip("shap")
    rows, x = case
    linear = nn.Linear(FEATURES, 1).double()
    game = SupervisedModel(linear, task="regression").example(x, baseline=Conditional(rows, samples=2)).game("features")
    mean, covariance = rows.mean(0).numpy(), np.cov(rows.numpy().T)
    weights = (linear.weight[0].detach().numpy(), linear.bias.item())
    masker = shap.maskers.Impute({"mean": mean, "cov": covariance})
    theirs = shap.LinearExplainer(weights, masker, nsamples=4000, seed=0).shap_values(x.numpy()[None])[0]
    mine = by_pairs(cache(of_masks(game, FEATURES)), FEATURES).numpy()
    assert np.linalg.norm(mine - theirs) < 0.05 * np.linalg.norm(mine)


def test_the_same_seed_gives_the_same_draws(case):
    rows, _ = case
    first, again, other = (Conditional(rows, samples=8, seed=seed).standard for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_draws_have_the_correlation_of_the_background(case):
    rows, _ = case
    made = Conditional(rows, samples=2**14)
    assert made.standard.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(made.standard.T.cov(), torch.corrcoef(rows.T), rtol=0, atol=5e-3)


def test_groups_are_conditioned_together(case):
    rows, x = case
    made = Conditional(rows, samples=4)
    present = torch.tensor([[True, True, False, False, False, True]])
    filled = made.fill(x, present)[0]
    mean = conditional_mean(rows.mean(0).numpy(), np.cov(rows.numpy().T), x.numpy(), {0, 1, 5})
    assert filled.mean(0).numpy() == pytest.approx(mean, rel=1e-9)
    assert torch.equal(filled[:, present[0]], x[present[0]].expand(4, -1))


@pytest.mark.parametrize("fault", ["constant", "repeated", "few rows"])
def test_a_singular_covariance_is_lifted_and_said(case, fault):
    rows, x = case
    rows = {
        "constant": torch.cat([rows[:, :5], torch.ones(200, 1)], 1),
        "repeated": torch.cat([rows[:, :5], rows[:, :1]], 1),
        "few rows": rows[:4],
    }[fault]
    model = SupervisedModel(nn.Linear(FEATURES, 1).double(), task="regression", background=rows)
    with pytest.warns(UserWarning, match="singular"):
        target = model.example(x, baseline="conditional")
    game = target.game("features")
    assert game.checks["covariance_ridge"] == pytest.approx(1e-6, rel=1e-3)
    assert game.ends()[1] == pytest.approx(target.value())
    if fault == "repeated":  # knowing one copy is as good as knowing the other
        one, other = game(torch.tensor([[True] + [False] * 5, [False] * 5 + [True]])).tolist()
        filled = target.baseline.fill(x, torch.tensor([[True] + [False] * 5]))
        assert filled[0, :, 5].std() < 1e-2 * rows[:, 0].std()
        assert np.isfinite([one, other]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 3}, "even"),
        ({"samples": 0}, "even"),
        ({"ridge": 0.0}, "positive"),
        ({"ridge": float("nan")}, "positive"),
    ],
)
def test_settings_are_checked(case, changes, message):
    with pytest.raises(ValueError, match=message):
        Conditional(case[0], **changes)


def test_one_row_has_no_covariance(case):
    with pytest.raises(ValueError, match="at least 2 background rows, got 1"):
        Conditional(case[0][:1])
