"""Players and exact values against brute force over every edge of the whole graph, by the user's own call."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from reference.shapley import by_weight_vector
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import ChebConv, DirGNNConv, GATConv, GCNConv, GINConv, SAGEConv
from torch_geometric.utils import to_undirected

from explain import Lime, Occlusion, Shapley
from explain.graph.model import GraphModel

MOST = 7  # edges of a drawn graph
EXAMPLES, PARTS = 500, 10


class Stack(nn.Module):
    """Layers of one convolution, tanh between them; ``edges`` is what forward makes of its edges."""

    def __init__(self, make, depth, edges=lambda edge_index, nodes: edge_index):
        super().__init__()
        self.convs = nn.ModuleList(make(3 if i == 0 else 4, 4) for i in range(depth))
        self.edges = edges

    def forward(self, x, edge_index):
        edge_index = self.edges(edge_index, x.size(0))
        for conv in self.convs:
            x = torch.tanh(conv(x, edge_index))
        return x


def _undirected(edge_index, nodes):
    return to_undirected(edge_index, num_nodes=nodes)


def _reversed(edge_index, nodes):
    return edge_index.flip(0)


CONVOLUTIONS = {
    "gcn": (GCNConv,),
    "gcn without loops": (lambda i, o: GCNConv(i, o, add_self_loops=False),),
    "sage": (SAGEConv,),
    "sage by maximum": (lambda i, o: SAGEConv(i, o, aggr="max"),),
    "gat": (GATConv,),
    "gin": (lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.Tanh(), nn.Linear(o, o))),),
    "directed": (lambda i, o: DirGNNConv(SAGEConv(i, o)),),
    "directed gcn": (lambda i, o: DirGNNConv(GCNConv(i, o, add_self_loops=False)),),
    "chebyshev": (lambda i, o: ChebConv(i, o, K=2),),
    "undirected inside": (GCNConv, _undirected),
    "undirected sage": (SAGEConv, _undirected),
    "reversed inside": (SAGEConv, _reversed),
}

# where one node shows less of the model than another
MISLEADING = ("undirected inside", "undirected sage", "directed", "directed gcn", "sage by maximum")


def drawn(draw: random.Random) -> tuple[int, Tensor]:
    """Nodes and edges of a small graph of a random kind."""
    kind = draw.choice(["complete", "star", "ring", "path", "random", "apart", "loops", "doubled"])
    nodes = draw.randint(2, 7)
    if kind == "complete":
        nodes = draw.choice([2, 3])
        pairs = list(itertools.permutations(range(nodes), 2))
    elif kind == "star":
        pairs = [draw.choice([(0, i), (i, 0)]) for i in range(1, nodes)]
    elif kind == "ring":
        pairs = [(i, (i + 1) % nodes) for i in range(nodes)]
    elif kind == "path":
        pairs = [draw.choice([(i, i + 1), (i + 1, i + 1 - 1)]) for i in range(nodes - 1)]
    elif kind == "apart":
        nodes = 6
        pairs = [(draw.randrange(3), draw.randrange(3)) for _ in range(4)] + [(3, 4), (4, 5), (5, 3)]
    else:
        pairs = [(draw.randrange(nodes), draw.randrange(nodes)) for _ in range(draw.randint(1, MOST))]
    if kind == "loops":
        pairs = pairs[: MOST - 2] + [(node, node) for node in draw.sample(range(nodes), 2)]
    if kind == "doubled":
        pairs = pairs[: MOST - 2] + draw.choices(pairs, k=2)
    draw.shuffle(pairs)
    return nodes, torch.tensor(pairs[:MOST]).t()


def brute_force(net: nn.Module, x: Tensor, edge_index: Tensor, node: int, label: int) -> tuple[Tensor, Tensor]:
    """The number for all ``2^E`` graphs without some of the edges, side by side, and the Shapley values of it."""
    edges, nodes = edge_index.size(1), len(x)
    masks = torch.arange(2**edges)[:, None] >> torch.arange(edges) & 1
    copy, kept = masks.nonzero(as_tuple=True)
    with torch.no_grad():
        rows = net(x.repeat(len(masks), 1), edge_index[:, kept] + copy * nodes)
    table = rows[node + nodes * torch.arange(len(masks)), label]
    return table, by_weight_vector(table)


def check(seed: int) -> tuple[str, float]:
    """One drawn graph and network: its name, and the largest difference of the values."""
    draw = random.Random(seed)
    nodes, edge_index = drawn(draw)
    name = draw.choice(list(CONVOLUTIONS))
    make, *inside = CONVOLUTIONS[name]
    torch.manual_seed(seed)
    net = Stack(make, draw.randint(1, 5), *inside).double().eval()
    x, node = torch.randn(nodes, 3, dtype=torch.float64), draw.randrange(nodes)
    target = GraphModel(net, Data(x=x, edge_index=edge_index), outputs="logits").node(node, label=0)
    why = Shapley("edges", estimator="exact").explain(target)
    table, expected = brute_force(net, x, edge_index, node, 0)
    with torch.no_grad():  # the copies side by side are the user's own call
        assert torch.allclose(net(x, edge_index)[node, 0], table[-1], rtol=0, atol=1e-12)
    found = torch.zeros_like(expected)
    found[why.players.index] = why.scores
    return name, float((found - expected).abs().max())


@pytest.mark.parametrize("part", range(PARTS))
def test_values_are_those_of_every_edge_of_the_whole_graph(part):
    wrong = {seed: found for seed in range(part, EXAMPLES, PARTS) if (found := check(seed))[1] > 1e-6}
    assert not wrong


def _named(net, data, order):
    """The edges that play for each of the nodes, asked in this order."""
    model = GraphModel(net, data, outputs="logits")
    return {node: model.node(node, label=0).players("edges").names for node in order}


@pytest.mark.parametrize("part", range(3))
def test_players_are_the_same_whatever_was_asked_before(part):
    for seed in range(part, 30, 3):
        draw = random.Random(seed)
        nodes, edge_index = drawn(draw)
        make, *inside = CONVOLUTIONS[draw.choice(MISLEADING)]
        torch.manual_seed(seed)
        net = Stack(make, draw.randint(1, 5), *inside).double().eval()
        data = Data(x=torch.randn(nodes, 3, dtype=torch.float64), edge_index=edge_index)
        order = draw.sample(range(nodes), nodes)
        forwards, backwards = _named(net, data, order), _named(net, data, order[::-1])
        alone = _named(net, data, order[-1:])
        assert forwards == backwards, seed
        assert alone[order[-1]] == forwards[order[-1]], seed


class _Dense(nn.Module):
    """Two layers of a graph convolution on a dense matrix: zero times NaN is NaN in it, whoever is linked."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, adj):
        x = torch.tanh(adj.t() @ self.first(x) + x[:, :1])
        return adj.t() @ self.second(x) / (1 + adj.sum(0)[:, None])


def test_in_a_dense_matrix_the_entries_play_that_can_matter():
    torch.manual_seed(0)
    path = torch.stack([torch.arange(11), torch.arange(1, 12)])
    edge_index = torch.cat([path, torch.tensor([[0, 3, 11], [11, 3, 9]])], 1)
    adj = torch.zeros(12, 12, dtype=torch.float64).index_put((edge_index[0], edge_index[1]), torch.ones(14).double())
    x, net = torch.randn(12, 3, dtype=torch.float64), _Dense().double().eval()
    target = GraphModel(net, Data(x=x, adj=adj), outputs="logits", task="node").node(5, label=0)
    why = Shapley("edges", estimator="exact").explain(target)
    edges = adj.nonzero()
    table = torch.empty(2 ** len(edges), dtype=torch.float64)
    for first in range(0, len(table), 2048):
        masks = (torch.arange(first, first + 2048)[:, None] >> torch.arange(len(edges)) & 1).double()
        kept = torch.zeros(2048, 12, 12, dtype=torch.float64)
        kept[:, edges[:, 0], edges[:, 1]] = masks
        with torch.no_grad():
            inner = torch.tanh(kept.mT @ net.first(x) + x[:, :1])
            table[first : first + 2048] = (kept.mT @ net.second(inner) / (1 + kept.sum(1)[..., None]))[:, 5, 0]
    expected = by_weight_vector(table)
    found = torch.zeros_like(expected)
    found[why.players.index] = why.scores
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert set(why.players.names) == {"4→5", "3→4"}
    assert why.checks["left_out_edges"] == len(edges) - 2


class _ReadsFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(3, 2)

    def forward(self, x, edge_index):
        return self.out(x)


@pytest.mark.parametrize("kind", ["edges", "nodes", "motifs"])
@pytest.mark.parametrize("explainer", [Shapley, Lime, Occlusion])
def test_a_model_that_reads_features_alone_has_an_empty_answer_in_words(explainer, kind):
    torch.manual_seed(0)
    data = Data(x=torch.randn(5, 3), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
    net = _ReadsFeatures()
    why = explainer(kind).explain(GraphModel(net, data).node(1, label=0))
    assert len(why.scores) == 0
    assert why.value == why.base == pytest.approx(float(net(data.x, None)[1, 0].detach()))
    assert why.target["assumed"][kind] == (
        "none: whatever edges are taken out of the graph, the model's answer stays as it is"
    )
    assert kind in str(why)


def test_who_does_not_play_is_said_of_the_answers_that_ask_for_them_alone():
    torch.manual_seed(0)
    data = Data(x=torch.randn(5, 3), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
    target = GraphModel(_ReadsFeatures(), data).node(1, label=0)
    nobody = target.players("edges")
    assert list(Shapley(nobody).explain(target).target["assumed"]) == ["edges"]
    assert "assumed" not in Shapley("features").explain(target).target
    assert list(Shapley("nodes").explain(target).target["assumed"]) == ["nodes"]
