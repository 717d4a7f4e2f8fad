import numpy as np
import pytest
import torch
from torch import nn

import explain
from explain import GlobalSurrogate, Shapley


def model(weight):
    net = nn.Linear(len(weight), 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.stack([torch.tensor(weight), -torch.tensor(weight)]))
    return explain.wrap(net, task="classification")


def asked(weight, count=60, seed=0):
    wrapped, draws = model(weight), torch.Generator().manual_seed(seed)
    return [wrapped.example(torch.randn(len(weight), generator=draws), 0) for _ in range(count)]


def test_the_tree_finds_whose_credit_decides_and_says_how_often_it_is_right():
    targets = asked([3.0, 0.1, 0.0])
    fitted = GlobalSurrogate(Shapley("features"), depth=2, seed=0).fit(targets)
    assert fitted.accuracy >= 0.9 > fitted.majority
    assert "feature 0" in fitted.rules()
    assert (fitted.grown_on, fitted.measured_on) == (45, 15)
    why = fitted.explain(targets[0])
    assert int(why.order()[0]) == 0
    assert why.base + float(why.scores.sum()) == pytest.approx(why.value)
    assert why.checks["agrees"]


def test_its_answer_is_the_shapley_value_of_the_path_dependent_tree():
    targets = asked([1.0, 1.0], seed=1)
    fitted = GlobalSurrogate(Shapley("features"), depth=2, seed=0).fit(targets)
    why = fitted.explain(targets[3])
    scores = Shapley("features").explain(targets[3]).scores.numpy()
    tree, label = fitted.tree.tree_, 1 - targets[3].predicted()
    column = fitted.tree.classes_.tolist().index(1 - label)

    def value(known, node=0):
        """Expected probability where only the known columns are followed (Lundberg et al. 2020)."""
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            share = tree.value[node][0]
            return share[column] / share.sum()
        if tree.feature[node] in known:
            near = left if np.float32(scores[tree.feature[node]]) <= tree.threshold[node] else right
            return value(known, near)
        weights = tree.weighted_n_node_samples
        return (weights[left] * value(known, left) + weights[right] * value(known, right)) / weights[node]

    first = (value({0}) - value(set()) + value({0, 1}) - value({1})) / 2
    second = (value({1}) - value(set()) + value({0, 1}) - value({0})) / 2
    assert why.scores.tolist() == pytest.approx([first, second])


def test_players_that_an_answer_leaves_out_have_no_credit():
    from explain.explanation import Explanation
    from explain.surrogate import _row, _together
    from explain.types import Players

    one = Explanation(torch.tensor([1.0, 2.0]), Players("features", torch.tensor([0, 3])), 1.0)
    other = Explanation(torch.tensor([5.0]), Players("features", torch.tensor([1])), 1.0)
    players = _together([one, other])
    assert players.index.tolist() == [0, 1, 3]
    assert _row(other, players).tolist() == [0.0, 5.0, 0.0]
    with pytest.raises(ValueError, match="one kind"):
        _together([one, Explanation(torch.tensor([5.0]), Players("edges", torch.tensor([1])), 1.0)])


def test_credit_that_says_nothing_about_the_class_warns():
    class Coin(nn.Module):
        """A class that hangs on a hidden digit of the input, too fine for the credit to show."""

        def forward(self, x):
            bit = ((x[:, :1] * 1e4).round() % 2) * 2 - 1
            return torch.cat([bit, -bit], 1)

    wrapped, draws = explain.wrap(Coin(), task="classification"), torch.Generator().manual_seed(0)
    targets = [wrapped.example(torch.rand(3, generator=draws), 0, payoff=lambda out: out.sum(1)) for _ in range(40)]
    with pytest.warns(UserWarning, match="do not tell the classes apart"):
        GlobalSurrogate(Shapley("features"), seed=0).fit(targets)


@pytest.mark.parametrize(
    ("targets", "message"),
    [(lambda: asked([1.0, 1.0], 5), "at least 8"), (lambda: [asked([1.0, 1.0])[0]] * 10, "same predicted class")],
)
def test_what_cannot_be_fitted_is_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        GlobalSurrogate(Shapley("features"), seed=0).fit(targets())


@pytest.mark.parametrize("setting", [{"depth": 0}, {"leaf": 0}, {"holdout": 1.0}])
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match="need depth"):
        GlobalSurrogate(Shapley("features"), **setting)
    with pytest.raises(TypeError, match="explainer must be"):
        GlobalSurrogate("Shapley")


def test_a_regressor_has_no_classes():
    target = explain.wrap(nn.Linear(2, 1), task="regression").example(torch.ones(2))
    with pytest.raises(explain.Unsupported, match="no classes"):
        GlobalSurrogate(Shapley("features"), seed=0).fit([target] * 10)
