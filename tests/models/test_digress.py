"""A network of DiGress' type: its cycle features against networkx, and that it learns what a graph is made of."""

import networkx as nx
import pytest
import torch

from models.communities import communities
from models.digress import DiGress, Recipe, cycles, generate, padded, symmetric, train


def test_cycles_through_each_node_are_those_of_networkx():
    upper = (torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float().triu(1)
    A = upper + upper.transpose(1, 2)
    expected = torch.zeros(4, 8, 3)
    for row, graph in enumerate(A):
        for cycle in nx.simple_cycles(nx.from_numpy_array(graph.numpy()), length_bound=5):
            expected[row, cycle, len(cycle) - 3] += 1
    assert torch.equal(cycles(A), expected)
    assert expected.sum() > 100


def test_padding_and_the_order_of_nodes_change_nothing():
    torch.manual_seed(0)
    net = DiGress(steps=10).double().eval()
    small, large = sorted(communities(2, seed=1), key=len)
    assert len(small) < len(large)
    classes, real = padded([small, large])
    E = torch.nn.functional.one_hot(classes, 2).double()
    t = torch.tensor([4, 4])
    together = net(E, t, real)
    for row, graph in enumerate((small, large)):
        n = len(graph)
        alone = net(E[row : row + 1, :n, :n], t[:1])
        torch.testing.assert_close(together[row, :n, :n], alone[0])
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(1))
    own = E[1:, : len(large), : len(large)]
    turned = net(own[:, order][:, :, order], t[:1])
    torch.testing.assert_close(turned, net(own, t[:1])[:, order][:, :, order])
    torch.testing.assert_close(turned, turned.transpose(1, 2))


def test_training_lowers_the_loss_and_runs_end_in_graphs():
    before = torch.get_rng_state()
    graphs = communities(12, sizes=(6, 8))
    short, longer = (train(graphs, Recipe(updates, batch=8, steps=10), seed=0, progress=False) for updates in (2, 40))
    assert torch.equal(torch.get_rng_state(), before)
    assert longer.loss < short.loss
    found = generate(longer.net, longer.process, 8, 3, torch.Generator().manual_seed(0))
    assert torch.equal(found, found.transpose(1, 2))
    assert not found.diagonal(dim1=1, dim2=2).any()
    share = sum(float(graph.float().mean()) for graph in graphs) / 12
    assert float(longer.process.limit[1]) == pytest.approx(share * 8 / 7, rel=0.2)


def test_noise_of_a_pair_is_that_of_both_directions():
    noise = symmetric(torch.rand(2, 5, 5, 3))
    assert torch.equal(noise, noise.transpose(1, 2))
