"""Convolutions that are ours are those of their papers; typed edges and recommendations are explained exactly too."""

import pytest
import torch
from graph_cases import random_graph
from reference.networks import normalised_adjacency
from reference.shapley import by_pairs
from torch_geometric.data import Data
from torch_geometric.nn import ChebConv

import explain
from models.convolutions import RGCN, SAGE, SGC, SIGN, Clenshaw, LineGraphNet
from models.datasets import karate_club
from models.lightgcn import LightGCN, train
from models.splits import per_class


@pytest.mark.parametrize("terms", [1, 2, 3, 5])
def test_clenshaw_s_recurrence_is_the_sum_of_chebyshev_s_polynomials(terms):
    torch.manual_seed(0)
    conv, data = Clenshaw(5, 3, terms).double(), random_graph(nodes=9, edges=12)
    x = data.x.double()
    torch.testing.assert_close(conv(x, data.edge_index), ChebConv.forward(conv, x, data.edge_index))
    torch.testing.assert_close(conv(x.to_sparse(), data.edge_index), conv(x, data.edge_index))


@pytest.mark.parametrize("kind", [SAGE, SGC, SIGN])
def test_of_sparse_features_the_weights_come_first_and_nothing_else_changes(kind):
    torch.manual_seed(0)
    net, data = kind(5, 3).double().eval(), random_graph(nodes=9, edges=12)
    x, edges = data.x.double(), data.edge_index[:, data.edge_index[1] > 0]  # node 0 hears nobody
    torch.testing.assert_close(net(x.to_sparse(), edges), net(x, edges))


def test_sign_reads_powers_of_the_adjacency():
    torch.manual_seed(0)
    net, data = SIGN(5, 3, hops=2).double().eval(), random_graph(nodes=9, edges=12)
    x, step = data.x.double(), normalised_adjacency(data.edge_index, 9)
    parts = [layer(torch.linalg.matrix_power(step, hop) @ x) for hop, layer in enumerate(net.each)]
    torch.testing.assert_close(net(x, data.edge_index), net.out(torch.cat(parts, 1).relu()))


def test_edges_of_a_line_graph_follow_one_another():
    edges = torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]])
    assert sorted(LineGraphNet._line(edges).t().tolist()) == [[0, 1], [0, 3], [1, 2], [2, 0], [3, 0]]


@pytest.mark.parametrize("bases", [None, 2])
def test_typed_edges_are_explained_exactly(bases):
    torch.manual_seed(0)
    net = RGCN(3, 2, relations=2, bases=bases).double().eval()
    edges, types = torch.tensor([[0, 1, 2, 3, 2], [1, 2, 3, 1, 1]]), torch.tensor([0, 1, 0, 1, 1])
    data = Data(x=torch.randn(4, 3).double(), edge_index=edges, edge_type=types)
    why = explain.Shapley("edges", estimator="exact").explain(explain.wrap(net, data).node(1, label=0))

    @torch.no_grad()
    def value(coalition):
        kept = torch.ones(5, dtype=torch.bool)
        kept[why.players.index] = False
        kept[why.players.index[list(coalition)]] = True
        return float(net(data.x, edges[:, kept], types[kept])[1, 0])

    torch.testing.assert_close(why.scores.double(), by_pairs(value, len(why.players)), rtol=1e-6, atol=1e-9)


def test_a_recommendation_is_explained_by_what_was_liked():
    """Two groups of users, each with its items: a user's missing item of the group is found, by the likes around."""
    users, items = 6, 6
    alike = [(u, i) for u in range(users) for i in range(items) if u % 2 == i % 2 and (u, i) != (0, 4)]
    likes = torch.tensor([[u, users + i] for u, i in alike]).t()
    net = train(LightGCN(users + items, size=4), likes, users, seed=0, steps=150).requires_grad_(False)
    both = torch.cat([likes, likes.flip(0)], 1)
    asked = torch.stack([torch.zeros(items, dtype=torch.long), users + torch.arange(items)])
    scores = net(both, asked)
    assert scores[4] > scores[[1, 3, 5]].max()

    data = Data(edge_index=both, num_nodes=users + items)
    target = explain.wrap(net, data, task="edge").edge(0, users + 4)
    pairs = target.players("edges", undirected=True)
    own = [p for p, group in enumerate(pairs.groups) if 0 in both[:, group]]
    assert len(own) == 2
    game = target.game(pairs)
    masks = torch.ones(4, len(pairs), dtype=torch.bool)
    masks[1, own[0]] = masks[2, own[1]] = masks[3, own] = False
    for mask, value in zip(masks, game(masks).tolist(), strict=True):
        gone = [int(e) for p, group in enumerate(pairs.groups) if not mask[p] for e in group]
        kept = torch.ones(both.size(1), dtype=torch.bool)
        kept[gone] = False
        assert value == pytest.approx(float(net(both[:, kept], asked[:, 4:5])), rel=1e-5)


def test_a_split_that_takes_more_than_there_is_says_so():
    with pytest.raises(ValueError, match="the graph has 34, of classes"):
        per_class(karate_club(), seed=0)


def test_classes_are_shuffled_one_by_one_then_the_rest_together():
    club = karate_club()
    split = per_class(club, seed=5, labelled=2, validation=10, test=10)
    torch.manual_seed(5)
    first, rest = [], []
    for label in range(4):
        nodes = (club.y == label).nonzero()[:, 0]
        nodes = nodes[torch.randperm(len(nodes))].tolist()
        first, rest = first + nodes[:2], rest + nodes[2:]
    rest = torch.tensor(rest)[torch.randperm(len(rest))].tolist()
    assert sorted(first) == split.train_mask.nonzero()[:, 0].tolist()
    assert sorted(rest[:10]) == split.val_mask.nonzero()[:, 0].tolist()
    assert sorted(rest[10:20]) == split.test_mask.nonzero()[:, 0].tolist()
