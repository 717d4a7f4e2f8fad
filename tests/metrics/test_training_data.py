"""Measures of scores of training examples, against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import explain
from explain import SelfInfluence
from explain.explanation import Explanation
from explain.metrics import mislabel_detection, mixed_data, same_class
from explain.types import Players


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_against_scikit_learn():
    scores, truth = drawn(4, 30), drawn(30, seed=1) > 0.5
    assert mislabel_detection(scores[0], truth) == pytest.approx(roc_auc_score(truth, scores[0]))
    expected = sum(average_precision_score(truth, row) for row in scores) / 4
    assert mixed_data(scores, truth) == pytest.approx(expected)
    ties = scores.round()
    assert mislabel_detection(ties[0], truth) == pytest.approx(roc_auc_score(truth, ties[0]))
    assert mixed_data(ties, truth) == pytest.approx(sum(average_precision_score(truth, row) for row in ties) / 4)


def test_same_class_by_hand():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    labels, asked = torch.tensor([0, 1, 1]), torch.tensor([1, 1])
    assert same_class(scores, labels, asked) == 0.5
    assert same_class(scores, labels, asked, top=2) == (1.0 + 0.5) / 2
    assert same_class(scores, labels, asked, top=3) == pytest.approx(2 / 3)


def test_explanations_are_scores():
    scores, players = drawn(2, 5), Players("train", torch.arange(5))
    whys = [Explanation(row, players, value=0.0, method="Influence") for row in scores]
    truth = torch.tensor([True, False, True, False, False])
    assert mixed_data(whys, truth) == mixed_data(scores, truth)
    assert mislabel_detection(whys[0], truth) == mislabel_detection(scores[0], truth)


def test_self_influence_finds_wrong_labels():
    x = drawn(40, 2)
    labels = (x[:, 0] > 0).long()
    wrong = torch.zeros(40).bool()
    wrong[:5] = True
    given = torch.where(wrong, 1 - labels, labels)
    net = torch.nn.Linear(2, 2).double()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        penalty = sum(p.square().sum() for p in net.parameters())
        loss = torch.nn.functional.cross_entropy(net(x), given) + 0.05 * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    target = explain.wrap(net, task="classification", train=(x, given), weight_decay=0.1).example(x[0])
    why = SelfInfluence().explain(target)
    assert mislabel_detection(why, wrong) > 0.9
    assert mislabel_detection(-why.scores, wrong) < 0.1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mislabel_detection(drawn(3), torch.ones(3).bool()), "some examples, and not every one"),
        (lambda: mislabel_detection(drawn(3), torch.tensor([0, 1, 1])), "bool"),
        (lambda: mixed_data(drawn(2, 3) / 0, torch.tensor([True, False, False])), "finite"),
        (lambda: mixed_data(drawn(2, 3), torch.tensor([True, False])), r"bool \[3\]"),
        (lambda: same_class(drawn(2, 3), torch.ones(3), torch.ones(3)), "3 labels and 2 classes"),
        (lambda: same_class(drawn(2, 3), torch.ones(3), torch.ones(2), top=4), "top must be from 1 to 3"),
    ],
)
def test_what_does_not_fit(call, said):
    with pytest.raises(ValueError, match=said):
        call()
