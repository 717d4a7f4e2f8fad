"""Gradients against closed forms, slow sums, and their own completeness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from explain.gradient import Gradient
from explain.types import Differentiable, Players, Target, Unsupported

METHODS = ("saliency", "input_x_gradient", "integrated_gradients", "smooth_grad", "gradient_shap")


class Asked(Target):
    """A function of atoms, each its own player unless owners are given."""

    def __init__(self, f, inputs, baseline=None, owner=None, module=None):
        self.f, self.inputs = f, inputs
        self.baseline = torch.zeros_like(inputs) if baseline is None else baseline
        self.owner = torch.arange(inputs.numel()).view(inputs.shape) if owner is None else owner
        self.module = module or nn.Identity()

    def value(self):
        with torch.no_grad():
            return float(self.f(self.inputs[None]))

    def players(self, kind, **options):
        return Players(kind, torch.arange(int(self.owner.max()) + 1 if self.owner.numel() else 0))

    def differentiable(self, players):
        removal = "message" if players.kind == "edges" else "features"
        return Differentiable(self.inputs[None], self.baseline[None], self.f, self.owner, removal)

    def describe(self):
        return {}


WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 0.0])
INPUTS = torch.tensor([1.0, 3.0, -2.0, 5.0])
BASELINE = torch.tensor([0.5, 1.0, 1.0, -1.0])


def linear(x):
    return x @ WEIGHTS + 1


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_function_is_exact(method):
    found = Gradient("features", method=method, steps=5, seed=0).explain(Asked(linear, INPUTS, BASELINE))
    expected = {
        "saliency": WEIGHTS.abs(),
        "smooth_grad": WEIGHTS.abs(),
        "input_x_gradient": WEIGHTS * INPUTS,
        "integrated_gradients": WEIGHTS * (INPUTS - BASELINE),
        "gradient_shap": WEIGHTS * (INPUTS - BASELINE),
    }[method]
    torch.testing.assert_close(found.scores, expected.double(), rtol=1e-5, atol=1e-6)
    assert found.value == pytest.approx(float(linear(INPUTS)))
    if method in ("integrated_gradients", "gradient_shap"):
        assert found.base == pytest.approx(float(linear(BASELINE)))
        assert found.checks["completeness_gap"] < 1e-6
    else:
        assert found.base is None
        assert "completeness_gap" not in found.checks
    assert found.checks["value_gap"] < 1e-6


def test_integrated_gradients_of_a_product_share_alike():
    found = Gradient("features").explain(Asked(lambda x: x.prod(1), torch.tensor([2.0, 3.0, 4.0])))
    torch.testing.assert_close(found.scores, torch.full((3,), 8.0, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).double().eval()


def asked(mlp, **arguments):
    return Asked(lambda x: mlp(x)[:, 0], INPUTS.double(), BASELINE.double(), module=mlp, **arguments)


def test_integrated_gradients_are_the_integral_and_complete(mlp):
    found = Gradient("features", steps=64).explain(asked(mlp))
    total, points = torch.zeros(4, dtype=torch.float64), 4000
    for i in range(points):
        x = (BASELINE + (i + 0.5) / points * (INPUTS - BASELINE)).double().requires_grad_()
        total += torch.autograd.grad(mlp(x[None])[0, 0], x)[0] / points
    torch.testing.assert_close(found.scores, total * (INPUTS - BASELINE), rtol=1e-4, atol=1e-7)
    assert float(found.scores.sum()) == pytest.approx(found.value - found.base, rel=1e-6)
    assert found.checks["completeness_gap"] < 1e-6


def test_too_few_steps_warn_and_say_so():
    target = Asked(lambda x: torch.sigmoid(40 * (x.sum(1) - 0.37)), torch.tensor([0.5, 0.5]))
    with pytest.warns(UserWarning, match="use more steps than 2"):
        found = Gradient("features", steps=2).explain(target)
    assert found.checks["completeness_gap"] > 0.05
    assert Gradient("features", steps=200).explain(target).checks["completeness_gap"] < 1e-3


def test_smooth_grad_averages_noisy_gradients_of_the_given_spread():
    found = Gradient("features", method="smooth_grad", steps=4000, noise=0.5, seed=0).explain(
        Asked(lambda x: (x**3).sum(1), torch.tensor([1.0, 2.0]))
    )
    expected = 3 * (torch.tensor([1.0, 4.0]) + 0.5**2)  # E[3 (x + n)^2], n of deviation 0.5 times the range 1
    torch.testing.assert_close(found.scores, expected.double(), rtol=0.05, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_players_get_the_sum_of_their_atoms(mlp, method):
    owner = torch.tensor([1, 0, 1, -1])
    single = Gradient("features", method=method, steps=32, seed=3).explain(asked(mlp)).scores
    grouped = Gradient("groups", method=method, steps=32, seed=3).explain(asked(mlp, owner=owner))
    torch.testing.assert_close(grouped.scores, torch.stack([single[1], single[0] + single[2]]))
    assert grouped.checks["unowned"] == pytest.approx(float(single[3]))


@pytest.mark.parametrize("method", METHODS)
def test_batches_do_not_change_the_answer_and_stay_bounded(mlp, method):
    sizes = []

    def watched(x):
        sizes.append(len(x))
        return mlp(x)[:, 0]

    target = Asked(watched, INPUTS.double(), BASELINE.double(), module=mlp)
    found = Gradient("features", method=method, steps=10, batch_size=3, seed=0).explain(target)
    assert max(sizes) <= 3
    assert found.calls == sum(sizes)
    if method not in ("smooth_grad", "gradient_shap"):  # those draw in another order
        whole = Gradient("features", method=method, steps=10, seed=0).explain(target)
        torch.testing.assert_close(found.scores, whole.scores)


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_and_nothing_else_changes(mlp, method):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state is what is watched
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    explainer = Gradient("features", method=method, steps=8, seed=7)
    target = asked(mlp)
    first = explainer.explain(target)
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])  # noqa: NPY002
    assert torch.equal(first.scores, explainer.explain(target).scores)
    assert not target.inputs.requires_grad
    assert all(parameter.grad is None and parameter.requires_grad for parameter in mlp.parameters())
    if method in ("smooth_grad", "gradient_shap"):
        other = Gradient("features", method=method, steps=8, seed=8).explain(target)
        assert not torch.equal(first.scores, other.scores)


def test_which_question_is_answered():
    assert Gradient("edges").explain(Asked(linear, INPUTS)).checks["removal"] == "message"
    assert Gradient("nodes").explain(Asked(linear, INPUTS)).checks["removal"] == "features"


def test_no_players_is_an_empty_answer():
    found = Gradient("edges").explain(Asked(lambda x: x.sum(1) + 2, torch.zeros(0)))
    assert found.scores.shape == (0,)
    assert found.value == 2


@pytest.mark.parametrize("f", [lambda x: x.detach().sum(1), lambda x: torch.ones(len(x), requires_grad=True) * 2])
def test_a_number_without_a_gradient_is_an_error(f):
    with pytest.raises(ValueError, match="cannot be differentiated"):
        Gradient("features").explain(Asked(f, INPUTS))


def test_bad_settings_and_bad_functions():
    with pytest.raises(ValueError, match="method must be one of saliency"):
        Gradient("features", method="lrp")
    with pytest.raises(ValueError, match="steps must be"):
        Gradient("features", steps=0)
    with pytest.raises(ValueError, match="noise must be above 0"):
        Gradient("features", noise=0)
    with pytest.raises(ValueError, match="batch_size must be"):
        Gradient("features", batch_size=0)
    with pytest.raises(ValueError, match="one number a row"):
        Gradient("features").explain(Asked(lambda x: x.sum(), INPUTS))

    class Silent(Asked):
        differentiable = Target.differentiable

    with pytest.raises(Unsupported, match="differentiable"):
        Gradient("features").explain(Silent(linear, INPUTS))
