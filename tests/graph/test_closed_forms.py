"""Shapley values that are known in closed form, and brute force where they are not."""

import pytest
import torch
from graph_cases import doubled, network, random_graph
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference.graph import edge_game, gcn_star, max_star, mean_star, node_game, walk_shares
from reference.shapley import by_pairs
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, SAGEConv, SimpleConv

from explain.graph.model import GraphModel
from explain.shapley import Shapley


def _star(x):
    n = len(x) - 1
    edge_index = torch.stack([torch.arange(1, n + 1), torch.zeros(n, dtype=torch.long)])
    return Data(x=torch.as_tensor(x, dtype=torch.float64)[:, None], edge_index=edge_index)


def _number(outputs):
    return outputs[:, 0]


def _values(net, data, node, kind="edges", **options):
    return Shapley(kind).explain(GraphModel(net.eval(), data).node(node, payoff=_number, **options))


LEAVES = [0.7, 1.3, -2.0, 0.4, 5.0, 0.1]


def test_mean_star():
    net = SAGEConv(1, 1, aggr="mean", root_weight=False, bias=False).double()
    phi = _values(net, _star([9.0, *LEAVES]), 0).scores
    expected = mean_star(torch.tensor(LEAVES, dtype=torch.float64), net.lin_l.weight.item())
    torch.testing.assert_close(phi, expected, rtol=1e-12, atol=1e-12)


def test_max_star():
    net = SAGEConv(1, 1, aggr="max", root_weight=False, bias=False).double()
    nn.init.ones_(net.lin_l.weight)
    leaves = [abs(x) for x in LEAVES]
    phi = _values(net, _star([9.0, *leaves]), 0).scores
    torch.testing.assert_close(phi, max_star(torch.tensor(leaves, dtype=torch.float64)), rtol=1e-12, atol=1e-12)


def test_gcn_star_renormalises():
    net = GCNConv(1, 1, bias=False).double()
    phi = _values(net, _star([3.0, *LEAVES]), 0).scores
    expected = gcn_star(3.0, torch.tensor(LEAVES, dtype=torch.float64), net.lin.weight.item())
    torch.testing.assert_close(phi, expected, rtol=1e-12, atol=1e-12)


class _Walks(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(SimpleConv(aggr="sum") for _ in range(layers))

    def forward(self, x, edge_index):
        for layer in self.layers:
            x = layer(x, edge_index)
        return x


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_walks_of_a_linear_network(layers):
    generator = torch.Generator().manual_seed(layers)
    edge_index = torch.randint(5, (2, 20), generator=generator)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]].unique(dim=1)[:, :12]
    data = Data(x=torch.randn(5, 1, dtype=torch.float64, generator=generator), edge_index=edge_index)
    why = _values(_Walks(layers), data, 0, removal="message")
    expected = walk_shares(edge_index, data.x[:, 0], 0, layers)
    torch.testing.assert_close(why.scores, expected[why.players.index], rtol=1e-10, atol=1e-12)


class _And(nn.Module):
    """1 when every flagged edge into a node is there."""

    def __init__(self, q):
        super().__init__()
        self.q, self.conv = q, SimpleConv(aggr="sum")

    def forward(self, x, edge_index, edge_weight):
        return (self.conv(x, edge_index, edge_weight) - (self.q - 1)).relu()


def test_motif_edges_share_alone():
    q, n = 4, 9
    data = _star([1.0] * (n + 1))
    data.edge_weight = (torch.arange(n) < q).double()
    phi = _values(_And(q), data, 0).scores
    torch.testing.assert_close(phi[:q], torch.full((q,), 1 / q, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (phi[q:].abs() < 1e-15).all()


@pytest.mark.parametrize("name", ["gcn", "gat", "sage", "gin"])
@pytest.mark.parametrize("kind", ["edges", "nodes"])
def test_brute_force(name, kind):
    data = doubled(random_graph(nodes=16, edges=16, seed=3))
    net = network(name, double=True)
    model = GraphModel(net, data)
    counts = {node: len(model.node(node).players(kind)) for node in range(15)}
    node = max((n for n in counts if counts[n] <= 10), key=counts.__getitem__)
    why = Shapley(kind).explain(model.node(node, label=1))
    slow = {"edges": edge_game, "nodes": node_game}[kind]
    count = len(why.players)
    assert count >= 4
    masks = torch.tensor([[code >> i & 1 for i in range(count)] for code in range(2**count)], dtype=torch.bool)
    table = slow(net, data, node, 1, why.players.index, masks)
    expected = by_pairs(lambda coalition: float(table[sum(2**i for i in coalition)]), count)
    torch.testing.assert_close(why.scores, expected, rtol=1e-6, atol=1e-12)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, rel=1e-9)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(["gcn", "gat", "sage", "gin"]))
def test_relabelling_edge_order_and_strangers_change_nothing(seed, name):
    """The same graph with other node numbers, shuffled edges and one more component has the same values."""
    data = doubled(random_graph(nodes=10, edges=9, seed=seed % 7))
    net = network(name, double=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(10, generator=generator)
    place = order.argsort()
    edges = torch.randperm(data.edge_index.size(1), generator=generator)
    stranger = torch.tensor([[10, 11], [11, 10]])
    other = Data(
        x=torch.cat([data.x[order], torch.randn(2, 5, dtype=torch.float64, generator=generator)]),
        edge_index=torch.cat([place[data.edge_index[:, edges]], stranger], 1),
    )
    node = int(data.edge_index[1, 0])
    target = GraphModel(net, data).node(node, label=0)
    assume(len(target.players("edges")) <= 12)
    first = Shapley("edges").explain(target)
    second = Shapley("edges").explain(GraphModel(net, other).node(int(place[node]), label=0))
    ends = {tuple(place[e].tolist()): s for e, s in zip(first.players.geometry["ends"].t(), first.scores, strict=True)}
    for edge, score in zip(second.players.geometry["ends"].t().tolist(), second.scores, strict=True):
        assert float(score) == pytest.approx(float(ends[tuple(edge)]), rel=1e-8, abs=1e-10)


def test_symmetric_edges_earn_the_same():
    data = _star([2.0, 1.0, 1.0, 1.0])
    phi = _values(GCNConv(1, 1).double(), data, 0).scores
    assert float(phi.max() - phi.min()) < 1e-12
