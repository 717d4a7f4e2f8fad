"""Graph-BERT: each node's surroundings one by one, and what it learns."""

import pytest
import torch
from graph_cases import random_graph
from reference.networks import graph_bert

import explain
from explain import Attention
from models.datasets import karate_club
from models.graph_bert import Asked, GraphBert, intimacy, load_or_train
from models.training import Recipe, accuracy, train


@pytest.mark.parametrize("residual", ["graph", "raw"])
def test_it_is_a_transformer_over_the_most_intimate_nodes(residual):
    torch.manual_seed(0)
    net = GraphBert(5, 3, hidden=8, k=3, residual=residual).double().eval()
    data = random_graph(nodes=11, edges=12, undirected=False)
    x = data.x.double()
    torch.testing.assert_close(net(x, data.edge_index), graph_bert(net, x, data.edge_index), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(net(x.to_sparse(), data.edge_index), net(x, data.edge_index))


def test_nodes_of_another_part_are_not_attended_to():
    torch.manual_seed(0)
    net = GraphBert(5, 3, hidden=8, k=7).double().eval()
    data = random_graph(nodes=6, edges=7)
    x = data.x.double()
    alone = net(x, data.edge_index)
    beside = net(torch.cat([x, 2 * x]), torch.cat([data.edge_index, data.edge_index + 6], 1))[:6]
    torch.testing.assert_close(beside, alone, rtol=1e-9, atol=1e-12)
    near = intimacy(data.edge_index, 6, 0.15)
    torch.testing.assert_close(near.sum(1), torch.ones(6).double())
    assert near[:5, 5].abs().max() == 0  # nobody hears the last


def test_it_learns_the_karate_club():
    club = karate_club(labelled=3)
    net = GraphBert(34, 4, hidden=16, dropout=0.2)
    train(net, club, Recipe(epochs=60, lr=0.01, weight_decay=5e-4), seed=0, progress=False)
    assert accuracy(net, club, club.test_mask) >= 0.6  # the largest community is 38 % of the nodes


def test_of_nodes_that_are_asked_about_the_logits_are_those_of_all():
    torch.manual_seed(0)
    club = karate_club(labelled=3)
    club.val_mask = club.test_mask
    net = GraphBert(34, 4, hidden=8, k=3, dropout=0.0).double()
    x = club.x.double()
    every, asked = net(x, club.edge_index), Asked(net, club)
    torch.testing.assert_close(net.of(torch.tensor([5, 0]), x, club.edge_index), every[[5, 0]])
    for mode, mask in ((True, club.train_mask), (False, club.val_mask)):
        found = asked.train(mode)(x, club.edge_index)
        torch.testing.assert_close(found[mask], every[mask])
        assert not found[~mask].any()


def test_trained_on_the_nodes_that_count_it_is_kept_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    club = karate_club(labelled=3)
    club.val_mask = club.train_mask
    recipe = Recipe(epochs=60, lr=0.01, weight_decay=5e-4)
    first, again = (load_or_train(club, recipe, seed=0, progress=False, hidden=16, dropout=0.2) for _ in range(2))
    assert first.facts["test_accuracy"] >= 0.6
    assert again.cached
    assert accuracy(again.module, club, club.test_mask) == pytest.approx(first.facts["test_accuracy"])


def test_another_residual_is_refused():
    with pytest.raises(ValueError, match='"graph" or "raw", got \'none\''):
        GraphBert(5, 3, residual="none")


@pytest.mark.parametrize("players", ["nodes", "edges"])
def test_its_maps_are_over_lists_and_not_over_nodes(players):
    torch.manual_seed(0)
    data = random_graph(nodes=11, edges=12)
    asked = explain.wrap(GraphBert(5, 3, hidden=8, k=3).eval(), data, task="node", outputs="logits").node(0)
    with pytest.raises(ValueError, match=r"positions of the attention map, 0 to 3, .* a list of its own.*Shapley"):
        Attention(players).explain(asked)


@pytest.mark.parametrize("players", ["nodes", "edges"])
def test_lists_as_long_as_the_graph_are_doubted(players):
    torch.manual_seed(0)
    data = random_graph(nodes=6, edges=14)
    asked = explain.wrap(GraphBert(5, 3, hidden=8, k=7).eval(), data, task="node", outputs="logits").node(0)
    with pytest.warns(UserWarning, match="a list of its own"):
        Attention(players).explain(asked)
