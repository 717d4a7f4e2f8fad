"""DCNN: powers of the row-normalised adjacency, and what it learns."""

import torch
from graph_cases import random_graph
from reference.networks import dcnn

from models.datasets import karate_club
from models.dcnn import DCNN
from models.training import Recipe, accuracy, train


def test_it_is_the_paper_s_powers_of_the_adjacency():
    torch.manual_seed(0)
    net = DCNN(5, 3, hops=3).double()
    torch.nn.init.normal_(net.weight)
    data = random_graph(nodes=9, edges=12)
    x = data.x.double()
    torch.testing.assert_close(net(x, data.edge_index), dcnn(net, x, data.edge_index), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(net(x.to_sparse(), data.edge_index), net(x, data.edge_index))


def test_it_learns_the_karate_club():
    club = karate_club(labelled=3)
    net = train(DCNN(34, 4), club, Recipe(epochs=60, lr=0.05, weight_decay=5e-4), seed=0, progress=False)
    assert accuracy(net, club, club.test_mask) >= 0.6  # the largest community is 38 % of the nodes
