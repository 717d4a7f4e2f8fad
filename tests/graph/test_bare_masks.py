"""Masks of graphs without features: of edges as of the same graph with features that say nothing, else refused."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import explain
from explain import Mask

EDGES = torch.tensor([[0, 2, 3, 4, 1, 4], [1, 1, 2, 0, 0, 3]])


class Bare(nn.Module):
    """Two layers over an embedding of each node."""

    def __init__(self):
        super().__init__()
        self.nodes, self.first, self.second = nn.Embedding(5, 3), GCNConv(3, 4), GCNConv(4, 2)

    def forward(self, edge_index):
        return self.second(self.first(self.nodes.weight, edge_index).tanh(), edge_index)


class Given(Bare):
    """The same, told of features: those that the other has within."""

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).tanh(), edge_index)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    bare, given = Bare().double().eval(), Given().double().eval()
    given.load_state_dict(bare.state_dict())
    x = bare.nodes.weight.detach()
    with_x = explain.wrap(given, Data(x=x, edge_index=EDGES), task="node").node(1, label=0)
    return explain.wrap(bare, Data(edge_index=EDGES, num_nodes=5), task="node").node(1, label=0), with_x


def test_masks_of_edges_are_those_of_the_network_that_is_given_its_features(pair):
    bare, given = (Mask("edges", epochs=20, repeats=1, seed=0).explain(one) for one in pair)
    scores = dict(zip(given.players.names, given.scores.tolist(), strict=True))
    assert bare.scores.abs().max() > 0.1
    for name, score in zip(bare.players.names, bare.scores.tolist(), strict=True):
        assert score == pytest.approx(scores.get(name, 0.0), abs=1e-9)


def test_masks_of_what_there_is_not_are_refused(pair):
    for kind, why in (("nodes", "no mask of nodes can be learned"), ("features", "the nodes have no features x")):
        with pytest.raises((ValueError, explain.Unsupported), match=why):
            Mask(kind, epochs=2, repeats=1, seed=0).explain(pair[0])
