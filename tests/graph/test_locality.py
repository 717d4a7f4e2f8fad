"""Exact values of a whole graph's prediction by locality, against every coalition."""

from itertools import pairwise

import pytest
import torch
from graph_cases import random_graph
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    BatchNorm,
    GATConv,
    GCNConv,
    GINConv,
    SAGEConv,
    SGConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)

import explain
from explain import Interactions, Players, Shapley
from explain.types import Unsupported

CONVS = {
    "gcn": lambda i, o: GCNConv(i, o),
    "gat": lambda i, o: GATConv(i, o),
    "sage": lambda i, o: SAGEConv(i, o),
    "gin": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))),
    "sgc": lambda i, o: SGConv(i, o, K=1),
}


class Classifier(nn.Module):
    def __init__(self, conv="gcn", layers=2, pool=global_add_pool, head=None, norm=None, features=5):
        super().__init__()
        torch.manual_seed(0)
        sizes = [features] + [8] * layers
        self.convs = nn.ModuleList(CONVS[conv](i, o) for i, o in pairwise(sizes))
        self.norm = norm(8) if norm else nn.Identity()
        self.head = head or nn.Linear(8, 2)
        self.pool = pool
        self.double().eval()

    def forward(self, x, edge_index, batch):
        for conv in self.convs:
            x = self.norm(conv(x, edge_index)).relu()
        return self.head(self.pool(x, batch))


def chain(nodes, extra=(), seed=0):
    """A path with some more edges."""
    pairs = torch.tensor([[i, i + 1] for i in range(nodes - 1)] + [list(pair) for pair in extra]).t()
    x = torch.randn(nodes, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Data(x=x, edge_index=torch.cat([pairs, pairs.flip(0)], 1))


def asked(module, data, **question):
    return explain.wrap(module, [data], task="graph").graph(0, **{"removal": "features", **question})


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("pool", [global_add_pool, global_mean_pool])
def test_local_is_brute_force(conv, pool):
    target = asked(Classifier(conv, 1 if conv == "sgc" else 2, pool), chain(10, [(0, 2)]))
    found, exact = (Shapley("nodes", name, seed=0).explain(target) for name in ("local", "exact"))
    same(found.scores, exact.scores)
    assert found.checks["hops"] == (1 if conv == "sgc" else 2)
    assert found.checks["locality_error"] < 1e-12


def test_interactions_are_brute_force():
    target = asked(Classifier("gin"), chain(9, [(2, 5)]))
    found, exact = (Interactions("nodes", estimator=name).explain(target) for name in ("local", "exact"))
    same(found.parts["interactions"], exact.parts["interactions"])
    far = found.parts["interactions"][0, 8]
    assert far == 0  # more than four hops apart: they meet in no node


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_thirty_nodes(norm):
    target = asked(Classifier("gcn", 2, global_mean_pool, norm=norm), chain(30))
    why = Shapley("nodes", "local", seed=0).explain(target)
    assert why.calls < 900
    assert why.checks["largest"] == 5
    assert why.checks["efficiency_gap"] < 1e-10
    sampled = Shapley("nodes", "stratified", 1024, seed=0).explain(target)
    assert float(((why.scores - sampled.scores) / sampled.error).square().mean()) < 2


def test_a_separate_part_and_an_isolated_node():
    data = chain(8)
    data.edge_index = data.edge_index[:, (data.edge_index < 7).all(0) & (data.edge_index != 3).any(0)]
    data.edge_index = data.edge_index[:, (data.edge_index != 3).all(0)]
    target = asked(Classifier(), data)
    found, exact = (Shapley("nodes", name, seed=0).explain(target) for name in ("local", "exact"))
    same(found.scores, exact.scores)


def test_directed_edges():
    data = random_graph(10, 12, undirected=False)
    data.x = data.x.double()
    target = asked(Classifier("sage"), data)
    found, exact = (Shapley("nodes", name, seed=0).explain(target) for name in ("local", "exact"))
    same(found.scores, exact.scores)


def test_players_of_several_nodes():
    nodes = torch.arange(9)
    players = Players("nodes", nodes[::3], groups=tuple(nodes.view(3, 3)))
    target = asked(Classifier(), chain(9))
    found, exact = (Shapley(players, name, seed=0).explain(target) for name in ("local", "exact"))
    same(found.scores, exact.scores)


def test_other_absences_are_local_within_more_hops():
    """A deleted node changes the degrees of its neighbours: one hop more; in a mean, everywhere."""
    target = asked(Classifier("gcn", 1), chain(10), removal="delete")
    found, exact = (Shapley("nodes", name, seed=0).explain(target) for name in ("local", "exact"))
    same(found.scores, exact.scores)
    assert found.checks["hops"] == 2


@pytest.mark.parametrize(
    ("module", "question"),
    [
        (Classifier(pool=global_max_pool), {}),
        (Classifier(head=nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))), {}),
        (Classifier(), {"payoff": "probability"}),
    ],
)
def test_what_is_not_a_sum_of_local_parts_is_refused(module, question):
    with pytest.raises(ValueError, match=r"coalitions, .* of 30 players .* readout is not linear .*kernel"):
        Shapley("nodes", "local", seed=0).explain(asked(module, chain(30), **question))


def test_a_single_node_is_no_place_for_it():
    data = chain(6)
    target = explain.wrap(Classifier(pool=lambda x, _: x), data, task="node").node(2, removal="features")
    with pytest.raises(Unsupported, match="whole graph"):
        Shapley("nodes", "local").explain(target)
