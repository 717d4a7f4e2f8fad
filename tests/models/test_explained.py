"""Each network of `models/` is explained exactly: Shapley values of edges, nodes and features by the paper's formula.

Brute force on the user's own call: each coalition a graph of its own, without the absent edges or nodes, or with the
absent columns at zero, and Shapley's weighted sum over all of them.
"""

import pytest
import torch
from graph_cases import doubled
from reference.shapley import by_pairs
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

import explain
from models import convolutions, dcnn, difformer, gat, gcn, graph_bert, janossy, nodeformer
from models.additive import Additive

FEATURES, CLASSES, NODE, LABEL = 3, 2, 1, 1
NODEWISE = {
    "GCN": gcn.GCN,
    "GAT": gat.GAT,
    "ChebNet": convolutions.ChebNet,
    "SAGE mean": convolutions.SAGE,
    "SAGE max": lambda *sizes: convolutions.SAGE(*sizes, aggregation="max"),
    "MoNet": convolutions.MoNet,
    "SGC": convolutions.SGC,
    "JK cat": lambda *sizes: convolutions.JK(*sizes, hidden=6, layers=3),
    "JK max": lambda *sizes: convolutions.JK(*sizes, hidden=6, layers=3, jump="max"),
    "JK lstm": lambda *sizes: convolutions.JK(*sizes, hidden=6, layers=3, jump="lstm"),
    "APPNP": lambda *sizes: convolutions.APPNP(*sizes, hops=3),
    "SIGN": convolutions.SIGN,
    "line graph": convolutions.LineGraphNet,
    "GPS": convolutions.GPS,
    "SGFormer": convolutions.SGFormer,
    "DIFFormer-s": lambda *sizes: difformer.DIFFormer(*sizes, hidden=6, layers=2, norm="rows"),
    "DIFFormer-a": lambda *sizes: difformer.DIFFormer(*sizes, hidden=6, layers=2, kernel="a"),
    "NodeFormer": lambda *sizes: nodeformer.NodeFormer(*sizes, hidden=6, heads=2),
    "DCNN": dcnn.DCNN,
    "Graph-BERT": lambda *sizes: graph_bert.GraphBert(*sizes, hidden=6, k=2),
    "Janossy": lambda *sizes: janossy.Janossy(*sizes, hidden=4),
    "additive": Additive,
}


def small():
    """Five nodes in a ring of one direction, and one edge of the other."""
    edges = torch.tensor([[0, 1, 2, 3, 4, 2], [1, 2, 3, 4, 0, 1]])
    return doubled(Data(x=torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0)), edge_index=edges))


SINGLE = "SGFormer"  # torch_geometric's holds a number of its own in float32


def made(name):
    """The network and its graph, in float64 where it can be."""
    torch.manual_seed(0)
    net, data = NODEWISE[name](FEATURES, CLASSES).eval(), small()
    if name == SINGLE:
        data.x = data.x.float()
        return net, data
    return net.double(), data


@torch.no_grad()
def worth(net, data, players, kept):
    """The logit in the graph that a coalition leaves."""
    x, edges, node = data.x, data.edge_index, NODE
    gone = players.index[[i for i in range(len(players)) if i not in kept]]
    if players.kind == "edges":
        keep = torch.ones(edges.size(1), dtype=torch.bool).index_fill(0, gone, False)
        edges = edges[:, keep]
    elif players.kind == "features":
        x = x.index_fill(1, gone, 0.0)
    else:
        stay = torch.ones(len(x), dtype=torch.bool).index_fill(0, gone, False)
        edges, _ = subgraph(stay, edges, relabel_nodes=True)
        node = int(stay[:NODE].sum())
        x = x[stay]
    return float(net(x, edges)[node, LABEL])


@pytest.mark.parametrize("name", NODEWISE)
@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_exact_shapley_values_are_those_of_brute_force(name, kind):
    net, data = made(name)
    why = explain.Shapley(kind, estimator="exact").explain(explain.wrap(net, data, task="node").node(NODE, label=LABEL))
    known = {}

    def value(coalition):
        if coalition not in known:
            known[coalition] = worth(net, data, why.players, coalition)
        return known[coalition]

    expected = by_pairs(value, len(why.players))
    assert len(why.players) >= 2
    digits = {"rtol": 1e-3, "atol": 1e-5} if name == SINGLE else {"rtol": 1e-6, "atol": 1e-8}
    torch.testing.assert_close(why.scores.double(), expected, **digits)
