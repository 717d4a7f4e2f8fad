"""The cut answers as the whole graph does, and the receptive field is what the model says it is."""

import pytest
import torch
from graph_cases import LOCAL, network, random_graph
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GraphNorm
from torch_geometric.utils import k_hop_subgraph

from explain.graph.model import GraphModel
from explain.graph.tensors.cuts import cut
from explain.graph.tensors.structure import copies

HOPS = {"gcn": 2, "gat": 2, "sage": 2, "gin": 2, "sgc": 3, "appnp": 3}


@pytest.mark.parametrize("name", LOCAL)
def test_every_cut_answers_as_the_whole_graph(name):
    data = random_graph()
    model = GraphModel(network(name), data)
    graph = model.structure(0)
    expected = model.outputs(copies(graph, 1)).detach()
    for node in range(0, data.num_nodes, 3):
        target = model.node(node, label=0)
        small = cut(graph, target.focus, HOPS[name], "in")
        found = target.outputs(small, 1)[0]
        torch.testing.assert_close(found, expected[node], rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", LOCAL)
def test_the_receptive_field_is_probed(name):
    data = random_graph(nodes=40, edges=50)  # sparse, so that nodes lie further than the receptive field
    checks = GraphModel(network(name), data).node(0).place.checks
    assert checks["computation"] == "cut"
    assert checks["hops"] == HOPS[name]
    assert checks["cut_error"] <= 1e-5
    assert checks["batching"] == "together"


def test_boundary_degrees_matter():
    """Cutting at k hops without the edges into the boundary changes what a GCN says; our cut does not."""
    data = random_graph(nodes=40, edges=60)
    net = network("gcn")
    wrong = 0
    for node in range(30):
        nodes, edges, position, _ = k_hop_subgraph(node, 2, data.edge_index, relabel_nodes=True)
        naive = net(data.x[nodes], edges)[position]
        wrong += int((naive - net(data.x, data.edge_index)[node]).abs().max() > 1e-3)
    assert wrong > 10


class _Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = GCNConv(5, 8), GraphNorm(8), GCNConv(8, 3)

    def forward(self, x, edge_index):
        return self.second(self.norm(self.first(x, edge_index)).relu(), edge_index)


class _AllPairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = GATConv(5, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index)[None]
        return self.out(h + self.attention(h, h, h)[0])[0]


class _VirtualNode(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = GCNConv(5, 8), nn.Linear(8, 3)

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index).relu()
        return self.out(h + h.mean(0, keepdim=True))


@pytest.mark.parametrize("make", [_Normed, _AllPairs, _VirtualNode])
def test_models_that_see_everything_use_the_whole_graph_one_by_one(make):
    torch.manual_seed(0)
    data = random_graph()
    net = make().eval()
    target = GraphModel(net, data).node(2, label=1)
    game = target.game("edges")
    assert game.checks["computation"] == "whole graph"
    assert game.checks["batching"] == "one by one"
    masks = torch.rand(4, len(game.players)) < 0.5
    for mask, value in zip(masks, game(masks), strict=True):
        keep = torch.ones(data.edge_index.size(1), dtype=torch.bool)
        keep[game.players.index] = mask
        expected = net(data.x, data.edge_index[:, keep])[2, 1]
        torch.testing.assert_close(value, expected.double(), rtol=1e-5, atol=1e-6)


def test_messages_against_the_arrows():
    """A network whose messages flow from target to source is cut along its own direction."""
    torch.manual_seed(0)
    data = random_graph(nodes=40, edges=50, undirected=False)
    net = _Backwards().eval()
    target = GraphModel(net, data).node(int(data.edge_index[0, 0]), label=0)
    assert target.place.checks["direction"] == "out"
    assert target.place.checks["hops"] == 1
    assert abs(target.game("edges").ends()[1] - target.value()) < 1e-6


class _Backwards(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(5, 3, flow="target_to_source")

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)
