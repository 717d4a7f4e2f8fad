import itertools

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
    with pytest.raises(explain.Unsupported, match="no classes"):
        Counterfactual("features").explain(target)


@pytest.mark.parametrize("setting", ["limit", "budget", "width"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_settings_are_checked(setting, value):
    with pytest.raises(ValueError, match=setting):
        Counterfactual(**{setting: value})


def test_no_players_leave_an_empty_answer():
    net = graph_cases.network("gcn")
    target = explain.wrap(net, graph_cases.random_graph()).node(23)  # isolated
    with pytest.warns(UserWarning, match="changes the class"):
        why = Counterfactual("edges").explain(target)
    assert len(why.scores) == 0
    assert not why.checks["flipped"]
