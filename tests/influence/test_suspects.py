"""Where the gradient does not vanish, the loss, the examples and the weight decay are suspected before the training."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import explain
from explain import Influence, SelfInfluence
from explain.influence import group_influence

G = torch.Generator().manual_seed(0)
X = torch.randn(40, 3, generator=G).double()
CLASSES = ((X[:, 0] > 0).long() + torch.randint(2, (40,), generator=G)) % 2
REAL = (X @ torch.tensor([1.0, -1.0, 2.0]).double()).exp() / 10
GRAPH = Data(
    x=torch.randn(30, 4, generator=G).double(),
    edge_index=torch.randint(30, (2, 70), generator=G),
    y=torch.randint(3, (30,), generator=G),
    train_mask=torch.arange(30) < 12,
    val_mask=(torch.arange(30) >= 12) & (torch.arange(30) < 20),
)


def trained(net, loss, decay):
    options = {"max_iter": 400, "tolerance_grad": 1e-10, "tolerance_change": 1e-15, "line_search_fn": "strong_wolfe"}
    optimiser = torch.optim.LBFGS(net.parameters(), **options)

    def closure():
        optimiser.zero_grad()
        total = loss() + decay / 2 * sum(p.square().sum() for p in net.parameters())
        total.backward()
        return total

    optimiser.step(closure)
    return net


def table(outputs, *after):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, outputs), *after).double()


def said(target, ask=lambda target: Influence(curvature="ggn", damping=0.01, seed=0).explain(target)):
    with pytest.warns(UserWarning, match=r"not at a minimum of its training loss \(gradient norm") as heard:
        ask(target)
    return next(text for text in map(str, (w.message for w in heard)) if "not at a minimum" in text)


def test_another_loss_is_named_first():
    net = table(1)
    trained(net, lambda: F.huber_loss(net(X)[:, 0], REAL), 0.05)
    target = explain.wrap(net, (X, REAL), task="regression", weight_decay=0.05).example(X[0])
    assert "Under huber it is" in said(target)
    assert "explain.wrap(..., loss='huber')" in said(target)
    right = explain.wrap(net, (X, REAL), task="regression", weight_decay=0.05, loss="huber").example(X[0])
    assert Influence(curvature="ggn", damping=0.01, seed=0).explain(right).checks["gradient_norm"] < 1e-6


def test_a_softmax_that_was_taken_twice_is_found():
    net = table(2, nn.Softmax(1))
    trained(net, lambda: F.cross_entropy(net(X), CLASSES), 0.05)
    target = explain.wrap(net, (X, CLASSES), task="classification", weight_decay=0.05).example(X[0])
    text = said(target)
    assert "Under cross_entropy on the outputs as if they were logits it is" in text
    assert "explain.wrap(..., outputs='logits')" in text


FOUR = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
YES = FOUR % 2


@pytest.mark.parametrize(
    ("outputs", "labels", "decay", "loss", "name", "remedy"),
    [
        (4, FOUR, 1.0, F.multi_margin_loss, "multi_margin", "loss='multi_margin'"),
        (4, FOUR, 0.05, lambda z, y: (z.softmax(1) - F.one_hot(y)).square().sum(1).mean(), "brier", "loss='brier'"),
        (1, YES, 0.05, lambda z, y: (z[:, 0].sigmoid() - y).square().mean(), "brier", "loss='brier'"),
        (
            4,
            FOUR,
            0.01,
            lambda z, y: (F.cross_entropy(z, y, reduction="none") * (1 - z.softmax(1)[range(40), y]) ** 2).mean(),
            "the focal loss of gamma=2",
            "loss=lambda outputs, labels: ...), with reduction='none'",
        ),
    ],
)
def test_margin_brier_and_focal_losses_are_named(outputs, labels, decay, loss, name, remedy):
    net = table(outputs)
    trained(net, lambda: loss(net(X), labels), decay)
    text = said(explain.wrap(net, (X, labels), task="classification", weight_decay=decay).example(X[0], label=1))
    assert f"Under {name} it is" in text
    assert remedy in text
    if remedy == f"loss={name!r}":
        right = explain.wrap(net, (X, labels), task="classification", weight_decay=decay, loss=name)
        flat = pytest.warns(UserWarning, match="linear in the outputs") if "margin" in name else nullcontext()
        with flat:
            found = Influence(curvature="ggn", damping=0.01, seed=0).explain(right.example(X[0], label=1))
        assert found.checks["gradient_norm"] < 1e-6


def test_a_loss_that_is_flat_at_a_sure_model_has_not_vanished_for_that():
    labels = (X[:, 0] > 0).long()
    net = table(2)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0]]))  # right and sure, and at no minimum
        net[0].bias.zero_()
    text = said(explain.wrap(net, (X, labels), task="classification").example(X[0], label=1))
    assert "it is" not in text.partition("gradient norm")[2]
    assert "nor does brier, nor does the focal loss of gamma=1" in text


def test_a_hinge_that_every_example_meets_is_no_account_of_the_training():
    labels = (X[:, 0] > 0).long()
    net = table(1)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.5, 0.0, 0.0]]))  # cross entropy has not vanished, each margin is above 1
        net[0].bias.zero_()
        apart = net(X)[:, 0].abs() > 1
    target = explain.wrap(net, (X[apart], labels[apart]), task="classification", loss="bce").example(X[0])
    assert "hinge it is" not in said(target)


THREE = torch.arange(40) % 3
WEIGHTS = torch.tensor([1.0, 5.0, 0.5]).double()


@pytest.mark.parametrize(
    ("outputs", "labels", "loss", "name"),
    [
        (3, THREE, lambda z: F.cross_entropy(z, THREE, weight=WEIGHTS), "class weights 0.47, 2.3, 0.23 it"),
        (3, THREE, lambda z: F.cross_entropy(z, THREE, label_smoothing=0.2), "label_smoothing=0.2 it"),
        (
            1,
            CLASSES,
            lambda z: F.binary_cross_entropy_with_logits(z[:, 0], CLASSES.double(), pos_weight=torch.tensor(4.0)),
            "class weights",
        ),
    ],
)
def test_weights_of_the_classes_are_solved_for(outputs, labels, loss, name):
    net = table(outputs)
    trained(net, lambda: loss(net(X)), 0.05)
    target = explain.wrap(net, (X, labels), task="classification", weight_decay=0.05).example(X[0], label=1)
    text = said(target)
    assert f"with {name}" in text
    assert "explain.wrap(..., loss=lambda outputs, labels: ...), with reduction='none'" in text


def test_another_loss_is_named_where_the_number_does_not_hang_on_what_is_left():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    torch.manual_seed(0)
    net, weights = nn.Linear(4, 3).double(), torch.tensor([1.0, 2.0, 5.0]).double()
    trained(net, lambda: F.cross_entropy(net(x), THREE, weight=weights), 0.05)
    target = explain.wrap(net, (x, THREE), task="classification", weight_decay=0.05).example(x[0], label=1)
    with pytest.warns(UserWarning, match=r"with class weights 0\.38, 0\.76, 1\.9 it"):
        why = Influence().explain(target)
    assert abs(why.checks["still_to_move"]) < 0.05 * why.scores.abs().max()


def test_self_influence_names_another_loss_where_little_is_left():
    smoothed = lambda outputs: F.cross_entropy(outputs, THREE, label_smoothing=0.1)  # noqa: E731
    net = table(3)
    trained(net, lambda: smoothed(net(X)), 0.05)
    target = explain.wrap(net, (X, THREE), task="classification", weight_decay=0.05).example(X[0], label=1)
    with pytest.warns(UserWarning, match=r"is at that of another\. Under cross_entropy with label_smoothing=0\.1"):
        why = SelfInfluence().explain(target)
    assert why.checks["still_to_move"] < why.scores.mean()


def test_the_weights_that_are_found_are_those_of_the_training():
    net = table(3)
    trained(net, lambda: F.cross_entropy(net(X), THREE, weight=WEIGHTS), 0.05)
    weights = WEIGHTS / WEIGHTS[THREE].mean()
    wrapped = explain.wrap(
        net,
        (X, THREE),
        task="classification",
        weight_decay=0.05,
        loss=lambda outputs, labels: weights[labels] * F.cross_entropy(outputs, labels, reduction="none"),
    )
    assert Influence(seed=0).explain(wrapped.example(X[0])).checks["gradient_norm"] < 1e-6


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_weight_decay_is_solved_for(decay):
    net = table(2)
    trained(net, lambda: F.cross_entropy(net(X), CLASSES), 0.05)
    target = explain.wrap(net, (X, CLASSES), task="classification", weight_decay=decay).example(X[0])
    assert "With weight_decay=0.05 it is" in said(target)
    grouped = said(target, lambda t: group_influence(t, [[1]], Influence(curvature="ggn", damping=0.01)))
    assert "With weight_decay=0.05 it is" in grouped


def test_another_loss_with_another_weight_decay():
    net = table(1)
    trained(net, lambda: F.mse_loss(net(X)[:, 0], CLASSES.double()), 0.3)
    target = explain.wrap(net, (X, CLASSES), task="classification").example(X[0])
    text = said(target)
    assert "Under mse with weight_decay=0.3 or huber with weight_decay=0.15 it is" in text  # huber is half of it


@pytest.mark.parametrize("name", ["train_mask and val_mask", "all nodes with a label"])
def test_other_examples_of_a_graph_are_named(name):
    torch.manual_seed(0)
    net = GCNConv(4, 3).double()
    mask = GRAPH.train_mask | GRAPH.val_mask if "mask" in name else torch.ones(30).bool()
    trained(net, lambda: F.cross_entropy(net(GRAPH.x, GRAPH.edge_index)[mask], GRAPH.y[mask]), 0.05)
    text = said(explain.wrap(net.eval(), GRAPH, weight_decay=0.05).node(3))
    assert f"Under {name} it is" in text
    assert f"Influence(train=mask), those of {name}" in text


def test_training_on_is_the_last_advice():
    net = table(1)
    with torch.no_grad():
        net[0].weight.mul_(8)
    text = said(explain.wrap(net, (X, CLASSES), task="classification", weight_decay=0.05).example(X[0]))
    assert "First compare loss, examples (40) and weight_decay (0.05) with those of the training" in text
    assert "(no weight decay makes it vanish, nor does mse, nor does mae" in text
    assert text.index("First compare") < text.index("train until the gradient vanishes")


def test_losses_that_know_no_missing_labels_are_not_suspected():
    tasks = (torch.randn(40, 2, generator=torch.Generator().manual_seed(1)) > 0).double()
    tasks[::5, 0] = torch.nan
    target = explain.wrap(table(2), (X, tasks), task="classification", weight_decay=0.1).example(X[0], 1)
    assert "First compare loss" in said(target)
    asked = Influence(curvature="ggn", damping=0.01, seed=0)
    with pytest.warns(UserWarning, match="not at a minimum"):
        scores = asked.explain(target).scores
    assert not scores.isnan().any()
    assert scores[::5].any()  # what a task without a label leaves of the other
