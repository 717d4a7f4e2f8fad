import itertools
import warnings

import graph_cases
import pytest
import torch
from torch import nn

import explain
from explain import Counterfactual


def linear(weight, bias=0.0):
    net = nn.Linear(len(weight), 1).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([weight]))
        net.bias.fill_(bias)
    return explain.wrap(net, task="classification").example(torch.ones(len(weight), dtype=torch.float64))


def smallest(target, players):
    """The size of the smallest set whose absence changes the class, by trying all of them."""
    margins = target.asking(lambda outputs: outputs.topk(2).values.diff()[:, 0].abs())
    label = target.label
    predicted = target.asking(lambda outputs: outputs.argmax(1).double()).game(players)
    assert margins is not target
    for size in range(1, len(players) + 1):
        sets = list(itertools.combinations(range(len(players)), size))
        masks = torch.ones(len(sets), len(players)).bool()
        for row, each in zip(masks, sets, strict=True):
            row[list(each)] = False
        if (predicted(masks) != label).any():
            return size
    return None


@pytest.mark.parametrize("name", ["gcn", "gat", "sage", "gin"])
def test_the_set_found_is_a_smallest_one(name):
    found = 0
    for node in range(8):
        data = graph_cases.doubled(graph_cases.random_graph(nodes=10, edges=12, seed=node))
        target = explain.wrap(graph_cases.network(name, seed=node, double=True), data).node(node)
        players = target.players("edges", undirected=True)
        if not 0 < len(players) <= 12:
            continue
        size = smallest(target, players)
        if size is None:
            with pytest.warns(UserWarning, match="changes the class"):
                why = Counterfactual(players, limit=12).explain(target)
            assert not why.checks["flipped"]
            assert not why.scores.any()
            continue
        why = Counterfactual(players, limit=12).explain(target)
        assert why.checks["flipped"]
        assert why.checks["smallest"]
        assert why.checks["deleted"] == size
        found += 1
    assert found >= 1


def test_of_another_class_it_still_changes_the_predicted_one():
    data = graph_cases.doubled(graph_cases.random_graph(nodes=10, edges=12, seed=6))
    model, node = explain.wrap(graph_cases.network("sage", seed=6, double=True), data), 2
    predicted = model.node(node).label
    other = model.node(node, label=(predicted + 1) % 3)
    players = other.players("edges", undirected=True)
    why = Counterfactual(players, limit=12).explain(other)
    assert why.checks["class"] == predicted
    assert why.checks["margin_before"] >= 0 > why.checks["margin_after"]
    assert why.checks["deleted"] == smallest(model.node(node), players)
    assert torch.equal(why.parts["deleted"], Counterfactual(players).explain(model.node(node)).parts["deleted"])
    left = other.game(players)(~why.parts["deleted"][None])
    assert float(why.scores.sum()) == pytest.approx(why.value - float(left))


def test_scores_are_what_the_deletions_take():
    target = linear([3.0, 1.0, 2.0, -0.5], bias=-1.5)
    why = Counterfactual("features").explain(target)
    deleted = why.parts["deleted"]
    assert deleted.tolist() == [True, False, True, False]
    assert why.checks["deleted_players"] == ["feature 0", "feature 2"]
    left = target.game("features")(~deleted[None])
    assert float(why.scores.sum()) == pytest.approx(why.value - float(left))
    assert why.checks["margin_after"] < 0 < why.checks["margin_before"]


def test_above_the_budget_the_beam_finds_a_set_that_cannot_be_thinned():
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(30, generator=generator).double().tolist()
    target = linear(weight, bias=-sum(weight) * 0.7)
    why = Counterfactual("features", budget=100, limit=20).explain(target)
    assert why.checks["flipped"]
    assert why.checks["tried"] == 1
    assert not why.checks["smallest"]
    needed = 0  # of a linear number the largest weights are the smallest set
    total = sum(weight) * 0.3
    for each in sorted(weight, reverse=True):
        total -= each
        needed += 1
        if total < 0:
            break
    assert why.checks["deleted"] == needed


def test_a_pair_is_deleted_in_both_directions():
    data = graph_cases.doubled(graph_cases.random_graph(nodes=10, edges=12, seed=3))
    target = explain.wrap(graph_cases.network("sage", seed=3, double=True), data).node(0)
    players = target.players("edges", undirected=True)
    why = Counterfactual(players).explain(target)
    assert why.checks["deleted"] == 4
    assert any(len(group) == 2 for group, gone in zip(players.groups, why.parts["deleted"], strict=True) if gone)
    keep = torch.ones(data.num_edges).bool()
    for group, gone in zip(players.groups, why.parts["deleted"], strict=True):
        keep[group] &= not gone
    answer = target.module(data.x, data.edge_index[:, keep])[0].argmax()
    assert int(answer) != target.label


def test_what_has_no_class_is_refused():
    target = explain.wrap(nn.Linear(2, 1), task="regression").example(torch.ones(2))
    with pytest.raises(explain.Unsupported, match=r"say by how much its number, .* Counterfactual\(change="):
        Counterfactual("features").explain(target)
    for change in (0, True, float("nan"), "up"):
        with pytest.raises(ValueError, match="change must be a number other than 0"):
            Counterfactual("features", change=change)


def regressor(weight):
    net = nn.Linear(len(weight), 1).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([weight]))
    return explain.wrap(net, task="regression").example(torch.ones(len(weight), dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "deleted"), [(-2.5, [0]), (-3.5, [0, 2]), (-5.5, [0, 1, 2]), (0.4, [4]), (1.0, [3, 4])]
)
def test_a_number_is_changed_by_a_stated_amount_to_a_stated_side(change, deleted):
    target = regressor([3.0, 1.0, 2.0, -0.5, -0.6])
    why = Counterfactual("features", change=change).explain(target)
    assert why.parts["deleted"].nonzero().view(-1).tolist() == deleted
    left = float(target.game("features")(~why.parts["deleted"][None]))
    assert (left - why.value) * change > change * change
    assert float(why.scores.sum()) == pytest.approx(why.value - left)
    assert (why.checks["change"], why.checks["flipped"], why.checks["smallest"]) == (change, True, True)
    assert "class" not in why.checks


def test_a_change_that_nobody_makes_is_said():
    with pytest.warns(UserWarning, match=r"changes the number by \+9"):
        why = Counterfactual("features", change=9.0).explain(regressor([3.0, 1.0]))
    assert not why.checks["flipped"]


def test_probabilities_are_decided_as_their_logits_are():
    data = graph_cases.doubled(graph_cases.random_graph(nodes=10, edges=12, seed=6))
    data.y = data.y % 2
    net = graph_cases.network("sage", classes=1, seed=6, double=True)
    inside = Sigmoid(net)
    compared = 0
    for node in range(9):
        logit, probability = (explain.wrap(each, data).node(node) for each in (net, inside))
        assert logit.label == probability.label
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some cannot be flipped, by either
            found = [Counterfactual("edges", limit=3).explain(target) for target in (logit, probability)]
        assert found[0].checks["flipped"] == found[1].checks["flipped"]
        assert found[0].checks["deleted"] == found[1].checks["deleted"]
        assert torch.equal(found[0].parts["deleted"], found[1].parts["deleted"])
        compared += found[0].checks["flipped"]
    assert compared


class Sigmoid(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, edge_index):
        return self.net(x, edge_index).sigmoid()


def test_of_several_labels_what_is_said_to_one_is_changed():
    net = nn.Linear(3, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[5.0, 1.0, 1.0], [0.5, -3.0, 0.0]]))
        net.bias.copy_(torch.tensor([1.0, 0.2]))
    hot = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double()
    model = explain.wrap(net, (torch.zeros(2, 3).double(), hot), task="classification")
    why = Counterfactual("features").explain(model.example(torch.ones(3).double(), label=1))
    assert why.checks["class"] == 1
    assert why.parts["deleted"].tolist() == [False, True, False]  # the second output says no, and yes without it


@pytest.mark.parametrize("setting", ["limit", "budget", "width"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_settings_are_checked(setting, value):
    with pytest.raises(ValueError, match=setting):
        Counterfactual(**{setting: value})


def test_no_players_leave_an_empty_answer():
    net = graph_cases.network("gcn")
    target = explain.wrap(net, graph_cases.random_graph()).node(23)  # isolated
    with pytest.warns(UserWarning, match="no edges that matter.* changes the class"):
        why = Counterfactual("edges").explain(target)
    assert len(why.scores) == 0
    assert not why.checks["flipped"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no 4 or fewer features were found whose absence changes the class: every set was tried"),
        ({"limit": 2}, "no 2 or fewer features .*: raise limit, or"),
        ({"limit": 2, "budget": 5, "width": 2}, "no 2 or fewer features .*: raise limit or budget or width, or"),
        ({"budget": 5, "width": 2}, "no 4 or fewer features .*: raise budget or width, or"),
        ({"change": 5.0}, r"no 4 or fewer .* the number by \+5: every set was tried"),
    ],
)
def test_what_was_not_found_is_sought_further_where_there_is_more_to_try(settings, said):
    target = linear([1.0, 1.0, 1.0, 1.0], bias=1.0)  # positive without any of them
    with pytest.warns(UserWarning, match=said):
        why = Counterfactual("features", **settings).explain(target)
    assert not why.checks["flipped"]
