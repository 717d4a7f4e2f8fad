"""The glass box: its terms are its Shapley values, whoever plays, and it learns."""

import pytest
import torch
from graph_cases import doubled, random_graph

import explain
from models.additive import Additive
from models.datasets import karate_club
from models.training import Recipe, accuracy, train

NODE, LABEL = 4, 1


@pytest.fixture(scope="module")
def box():
    torch.manual_seed(0)
    data = doubled(random_graph(nodes=9, edges=14))
    net = Additive(5, 3).double()
    own, told = (part.detach()[..., LABEL] for part in net.contributions(data.x, data.edge_index))
    return explain.wrap(net, data).node(NODE, label=LABEL), own[NODE], told, data.edge_index


def scores(target, players):
    why = explain.Shapley(players).explain(target)
    assert why.value - why.base == pytest.approx(float(why.scores.sum()), abs=1e-9)
    return why.players.index.tolist(), why.scores.tolist()


def test_features_bring_their_own_terms_and_those_they_told(box):
    target, own, told, edge_index = box
    expected = own + told[edge_index[1] == NODE].sum(0)
    index, found = scores(target, "features")
    assert found == pytest.approx(expected[index].tolist(), abs=1e-9)


def test_edges_and_neighbours_bring_what_is_told_along_them(box):
    target, _, told, edge_index = box
    along = told.sum(1) * (edge_index[1] == NODE)
    index, found = scores(target, "edges")
    assert found == pytest.approx(along[index].tolist(), abs=1e-9)
    index, found = scores(target, "nodes")
    assert found == pytest.approx([float(along[edge_index[0] == node].sum()) for node in index], abs=1e-9)


def test_every_explainer_agrees_where_nothing_acts_together(box):
    target = box[0]
    exact = scores(target, "features")[1]
    for explainer in (
        explain.Occlusion("features"),
        explain.Banzhaf("features"),
        explain.Lime("features", samples=64, seed=0),
        explain.Gradient("features", method="integrated_gradients", steps=300),
    ):
        assert explainer.explain(target).scores.tolist() == pytest.approx(exact, rel=0.02, abs=2e-3)


def test_it_learns_the_karate_club():
    club = karate_club(labelled=4)
    net = train(Additive(34, 4), club, Recipe(epochs=100, lr=0.02, weight_decay=1e-3), seed=0, progress=False)
    assert accuracy(net, club, club.test_mask) >= 0.55  # the largest community is 38 % of the nodes
