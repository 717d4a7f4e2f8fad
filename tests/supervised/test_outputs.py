"""What outputs of tables' models mean, and the losses that they were trained with."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import explain
from explain import Influence, Shapley

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
Y = (X[:, 0] > 0).long()
TASKS = (torch.rand(40, 4, generator=torch.Generator().manual_seed(1)) > 0.5).double()


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def linear(outputs, *after):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, outputs), *after).double()


def trained(net, loss):
    """At the minimum of the loss with a weight decay of .05."""
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=300, tolerance_grad=1e-11, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        total = loss(net(X)) + 0.025 * sum(p.square().sum() for p in net.parameters())
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(closure)
    return net


@pytest.mark.parametrize("data", [None, X, (X, Y)])
def test_a_sigmoid_inside(data):
    net = linear(1, nn.Sigmoid())
    model, out = explain.wrap(net, data, task="classification"), net(X)[:, 0]
    for x, p in zip(X[:10], out, strict=False):
        target = model.example(x, payoff="probability")
        assert target.label == int(p > 0.5)
        assert target.value() == pytest.approx(max(float(p), 1 - float(p)))
        assert target.describe()["assumed"]["outputs"] == "probabilities: the model ends in sigmoid"
    why = Shapley("features").explain(model.example(X[0], label=0, payoff="logit"))
    assert why.value == pytest.approx(-float(net[0](X[:1])))
    torch.testing.assert_close(why.scores, -net[0].weight[0].detach() * X[0] if data is None else why.scores)


@pytest.mark.parametrize("after", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_softmax_inside(after):
    net, model = linear(4), explain.wrap(linear(4, after), task="classification")
    expected = net(X[:1]).log_softmax(1)[0]
    assert model.example(X[0], payoff="probability").value() == pytest.approx(float(expected.max().exp()))
    assert model.example(X[0], label=2, payoff="loss").value() == pytest.approx(-float(expected[2]))
    assert model.example(X[0]).describe()["payoff"] == (
        "probability" if isinstance(after, nn.Softmax) else "log_probability"
    )


def test_what_is_said_goes_before_what_is_found():
    net = linear(4, nn.Softmax(1))
    target = explain.wrap(net, task="classification", outputs="logits").example(X[0], label=2, payoff="probability")
    assert target.value() == pytest.approx(float(net(X[:1]).softmax(1)[0, 2]))
    assert "assumed" not in target.describe()
    with pytest.raises(ValueError, match=r"outputs='values' do not go with task='classification'"):
        explain.wrap(net, task="classification", outputs="values")
    with pytest.raises(ValueError, match="outputs must be one of logits, probabilities"):
        explain.wrap(net, task="classification", outputs="scores")


@pytest.mark.parametrize("many", [lambda x, y: (x, y), TensorDataset, lambda x, y: DataLoader(TensorDataset(x, y), 8)])
def test_several_labels_of_a_row(many):
    net = trained(linear(4), lambda out: F.binary_cross_entropy_with_logits(out, TASKS))
    ask = lambda **options: explain.wrap(net, many(X, TASKS), task="classification", weight_decay=0.05, **options)  # noqa: E731
    assert ask().example(X[0], label=2, payoff="probability").value() == pytest.approx(
        float(net(X[:1])[0, 2].sigmoid())
    )
    why = Influence().explain(ask().example(X[0], label=1))
    assert why.checks["gradient_norm"] < 1e-4
    assert (why.target["loss"], why.target["assumed"]["loss"][:3]) == ("bce", "bce")
    by_hand = lambda out, y: F.binary_cross_entropy_with_logits(out, y, reduction="none").mean(1)  # noqa: E731
    torch.testing.assert_close(Influence().explain(ask(loss=by_hand).example(X[0], label=1)).scores, why.scores)


def test_labels_of_any_type_are_the_same_classes():
    net = trained(linear(1), lambda out: F.binary_cross_entropy_with_logits(out[:, 0], Y.double()))
    found = [
        Influence().explain(explain.wrap(net, (X, labels), task="classification", weight_decay=0.05).example(X[0], 1))
        for labels in (Y, Y.double(), Y.bool(), Y[:, None], Y.double()[:, None])
    ]
    assert found[0].checks["gradient_norm"] < 1e-4
    for why in found[1:]:
        torch.testing.assert_close(why.scores, found[0].scores)


@pytest.mark.parametrize(("after", "kind"), [(nn.Softmax(1), "probabilities"), (nn.LogSoftmax(1), "log_probabilities")])
def test_influence_of_a_softmax_inside_is_that_of_its_logits(after, kind):
    labels = torch.arange(40) % 3
    net = trained(linear(3), lambda out: F.cross_entropy(out, labels))
    inside = nn.Sequential(net, after)
    found = [
        Influence().explain(
            explain.wrap(each, (X, labels), task="classification", weight_decay=0.05).example(X[0], 1, payoff="loss")
        )
        for each in (net, inside)
    ]
    assert found[1].target["outputs"] == kind
    torch.testing.assert_close(found[0].scores, found[1].scores)


@pytest.mark.parametrize(
    ("loss", "expected"), [(None, F.mse_loss), ("mse", F.mse_loss), ("huber", F.huber_loss), ("mae", F.l1_loss)]
)
def test_losses_of_a_regressor(loss, expected):
    labels = X @ torch.tensor([1.0, -2.0, 0.5]).double()
    net = linear(1)
    objective = explain.wrap(net, (X, labels), task="regression", loss=loss).example(X[0]).objective()
    found = objective.train_loss(objective.params, torch.arange(40))
    torch.testing.assert_close(found, expected(net(X)[:, 0], labels, reduction="none"))


def test_a_classifier_trained_by_squared_errors_stays_one():
    target = explain.wrap(linear(1, nn.Sigmoid()), (X, Y), task="classification", loss="mse").example(X[0])
    assert (target.meaning.kind, target.has_classes) == ("probabilities", True)
    loss = target.objective()
    out = target.module(X)[:, 0]
    torch.testing.assert_close(loss.train_loss(loss.params, torch.arange(40)), (out - Y).square())


def test_a_hidden_state_before_the_logits_is_asked_about_or_seen_by_its_columns():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.hidden, self.out = nn.Linear(3, 6).double(), nn.Linear(6, 3).double()

        def forward(self, x):
            hidden = self.hidden(x).tanh()
            return hidden, self.out(hidden)

    net = Both()
    with pytest.raises(ValueError, match="several parts that may be the outputs"):
        explain.wrap(net, task="classification").example(X[0])
    expected = float(net(X[:1])[1][0, 2])
    seen = explain.wrap(net, (X, torch.arange(40) % 3), task="classification").example(X[0], label=2)
    assert seen.value() == pytest.approx(expected)
    assert seen.describe()["assumed"]["output"] == "part 1 of 2: the only part with 3 columns, as there are classes"
    given = explain.wrap(net, task="classification", output=1).example(X[0], label=2)
    assert given.value() == pytest.approx(expected)
    assert "assumed" not in given.describe()


@pytest.mark.parametrize(
    ("after", "payoff", "own", "said"),
    [
        ((), None, lambda out: -out, "the number is minus the model's output"),
        ((), "value", lambda out: -out, "the number is minus the model's output"),
        ((nn.Sigmoid(),), None, lambda out: 1 - out, "the number is 1 - the model's output"),
        ((nn.LogSigmoid(),), None, lambda out: (1 - out.exp()).log(), "the number is log(1 - exp(the model's output))"),
        ((), "probability", lambda out: (-out).sigmoid(), "the number is its probability, the model's output is that"),
    ],
)
def test_one_output_turned_round_for_a_class_that_was_not_asked_for_is_said(after, payoff, own, said):
    net = linear(1, *after)
    net[0].bias.fill_(-5.0)  # class 0 everywhere
    model = explain.wrap(net, X, task="classification")
    target, number = model.example(X[0], payoff=payoff), float(own(net(X[:1])))
    why = Shapley("features").explain(target)
    assert why.value == pytest.approx(number)
    assert f"  assumed label: 0, the predicted class: {said}" in str(why)
    for shown in (repr(why), why._repr_html_()):
        assert "label 0" in shown
        assert f"value {number:.4g}" in shown
    assert target.asking(payoff or "value").describe()["assumed"]["label"] == target.describe()["assumed"]["label"]
    for label in (0, 1):
        assert "label" not in model.example(X[0], label, payoff=payoff).describe().get("assumed", {})


def test_a_class_that_the_output_is_of_or_one_of_several_needs_no_word():
    net = linear(1)
    net[0].bias.fill_(5.0)
    for model in (net, linear(3)):
        target = explain.wrap(model, X, task="classification").example(X[0])
        assert "label" not in target.describe().get("assumed", {})
    regressor = explain.wrap(net, X, task="regression").example(X[0])
    assert "label" not in repr(Shapley("features").explain(regressor))
