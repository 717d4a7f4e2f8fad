"""Clusters of pooling layers as players, against every coalition by hand."""

import pytest
import torch
from graph_cases import random_graph
from reference.shapley import by_pairs

import explain
from explain.analysis import clusters
from models.pooling import DiffPool, SAGPool


def _asked(kind, **sizes):
    torch.manual_seed(0)
    net = kind(5, 2, hidden=4, **sizes).double().eval()
    graph = random_graph(nodes=8, edges=12)
    graph.x = graph.x.double()
    return net, graph, explain.wrap(net, graph, task="graph")


@pytest.mark.parametrize(("kind", "layer", "read"), [(DiffPool, "assign", "softmax"), (SAGPool, "pools.0", "kept")])
def test_all_nodes_of_a_cluster_come_and_go_together(kind, layer, read):
    net, graph, model = _asked(kind)
    found = clusters(net, graph.x, graph.edge_index, layer=layer)
    target = model.graph(label=1, removal="features", baseline="zeros")
    assert found.read == read
    torch.testing.assert_close(found.shares.sum(1), torch.ones(8).to(found.shares))
    players = found.players(target)
    assert sorted(torch.cat(players.groups).tolist()) == list(range(8))
    for group in players.groups:
        assert len(found.of[group].unique()) == 1

    def value(present):
        x = graph.x.clone()
        for player, group in enumerate(players.groups):
            if player not in present:
                x[group] = 0
        return net(x, graph.edge_index, torch.zeros(8, dtype=torch.long))[0, 1].item()

    why = explain.Shapley(players, estimator="exact").explain(target)
    expected = by_pairs(value, len(players))
    torch.testing.assert_close(torch.as_tensor(why.scores).double(), expected, rtol=1e-6, atol=1e-9)


def test_an_assignment_is_what_the_layer_gives():
    net, graph, model = _asked(DiffPool, clusters=3)
    found = clusters(net, graph.x, graph.edge_index, layer="assign")
    adjacency = torch.zeros(8, 8).double()
    adjacency[graph.edge_index[0], graph.edge_index[1]] = 1
    expected = net.assign(graph.x[None], adjacency[None], torch.ones(1, 8, dtype=torch.bool))[0].softmax(1)
    torch.testing.assert_close(found.shares, expected)
    torch.testing.assert_close(found.certainty, expected.amax(1))
    edges = found.players(model.graph(label=0), "edges")
    assert edges.kind == "edges"
    for group in edges.groups:
        assert len(found.of[graph.edge_index[0, group]].unique()) == 1


def test_what_is_no_assignment_says_so():
    net, graph, model = _asked(DiffPool)
    with pytest.raises(ValueError, match="no module 'asign'; it has embed"):
        clusters(net, graph.x, graph.edge_index, layer="asign")
    with pytest.raises(ValueError, match=r"gave \[1, 2\], and clusters of 8 nodes are read from \[8, clusters\]"):
        clusters(net, graph.x, graph.edge_index, layer="out")
    with pytest.raises(ValueError, match="does not run 'assign'"):
        clusters(net, graph.x, graph.edge_index, layer="assign", call=lambda net: None)
    with pytest.raises(ValueError, match='"nodes" or "edges"'):
        clusters(net, graph.x, graph.edge_index, layer="assign").players(model.graph(label=1), "features")
