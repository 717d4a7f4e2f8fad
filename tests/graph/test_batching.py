"""Coalitions together are coalitions alone are the user's model on the smaller graph, its nodes in order."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    DenseGCNConv,
    EdgePooling,
    GCNConv,
    GraphUNet,
    PairNorm,
    RGCNConv,
    SAGEConv,
    SAGPooling,
    TopKPooling,
    aggr,
    dense_diff_pool,
    global_add_pool,
    global_mean_pool,
)
from torch_geometric.utils import to_dense_adj, to_dense_batch

from explain import Occlusion, Shapley
from explain.graph.model import GraphModel

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # torch, of the U-net's matrices

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 5, 5, 5]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], 1)


class Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.first, self.pool, self.second, self.out = GCNConv(4, 8), pool, GCNConv(8, 8), nn.Linear(8, 2)

    def forward(self, x, edge_index, batch):
        found = self.pool(torch.tanh(self.first(x, edge_index)), edge_index, batch=batch)
        x, edge_index, batch = found[0], found[1], found[2 if isinstance(self.pool, EdgePooling) else 3]
        return self.out(global_mean_pool(torch.tanh(self.second(x, edge_index)), batch))


class Read(nn.Module):
    def __init__(self, readout, width=8):
        super().__init__()
        self.conv, self.readout, self.out = GCNConv(4, 8), readout, nn.Linear(width, 2)

    def forward(self, x, edge_index, batch):
        return self.out(self.readout(torch.tanh(self.conv(x, edge_index)), batch))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.out = GraphUNet(4, 8, 8, 2), nn.Linear(8, 2)

    def forward(self, x, edge_index, batch):
        return self.out(global_mean_pool(self.net(x, edge_index, batch), batch))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.assign, self.out = DenseGCNConv(4, 8), DenseGCNConv(4, 2), nn.Linear(8, 2)

    def forward(self, x, edge_index, batch):
        x, mask = to_dense_batch(x, batch)
        adj = to_dense_adj(edge_index, batch, max_num_nodes=x.size(1))
        pooled = dense_diff_pool(torch.tanh(self.embed(x, adj, mask)), adj, self.assign(x, adj, mask), mask)[0]
        return self.out(pooled.mean(1))


class Numbered(nn.Module):
    """Every node has an embedding of its number: past the end of them where graphs lie side by side."""

    def __init__(self, most=13):
        super().__init__()
        self.embed, self.number, self.out = GCNConv(4, 8), nn.Embedding(most, 8), nn.Linear(8, 2)

    def forward(self, x, edge_index, batch):
        h = torch.tanh(self.embed(x, edge_index)) * self.number(torch.arange(len(x)))
        return self.out(global_add_pool(h, batch))


class LastState(nn.Module):
    """One graph at a time: the last state of a recurrent layer along its nodes."""

    def __init__(self):
        super().__init__()
        self.conv, self.gru, self.out = GCNConv(4, 8), nn.GRU(8, 8), nn.Linear(8, 2)

    def forward(self, x, edge_index):
        return self.out(self.gru(torch.tanh(self.conv(x, edge_index)))[0][-1:])


SINGLY = {
    "top k": lambda: Pooled(TopKPooling(8, 0.5)),
    "attention": lambda: Pooled(SAGPooling(8, 0.5)),
    "edges contracted": lambda: Pooled(EdgePooling(8)),
    "u-net": UNet,
    "sorted": lambda: Read(aggr.SortAggregation(3), 24),
    "lstm": lambda: Read(aggr.LSTMAggregation(8, 8)),
    "gru": lambda: Read(aggr.GRUAggregation(8, 8)),
    "numbered": Numbered,
    "last state": LastState,
}
TOGETHER = {"dense": Dense, "set to set": lambda: Read(aggr.Set2Set(8, 2), 16), "mean": lambda: Read(global_mean_pool)}


def _target(make, **question):
    torch.manual_seed(0)
    x, net = torch.randn(6, 4), make().eval()
    graphs = [Data(x=x, edge_index=EDGES), Data(x=torch.randn(5, 4), edge_index=EDGES[:, :2])]
    return net, x, GraphModel(net, graphs).graph(0, label=1, **question)


def _own(net, x, mask, kind):
    """The user's own call on the graph without the absent edges or nodes."""
    at = torch.arange(len(x)) if kind == "edges" else mask.nonzero().view(-1)
    number = torch.full((len(x),), -1)
    number[at] = torch.arange(len(at))
    kept = mask if kind == "edges" else mask[EDGES[0]] & mask[EDGES[1]]
    batch = [] if isinstance(net, LastState) else [torch.zeros(len(at), dtype=torch.long)]
    with torch.no_grad():
        return net(x[at], number[EDGES[:, kept]], *batch)[0, 1].double()


@pytest.mark.parametrize("kind", ["edges", "nodes"])
@pytest.mark.parametrize("name", [*SINGLY, *TOGETHER])
def test_a_coalition_is_the_model_on_the_smaller_graph(name, kind):
    net, x, target = _target({**SINGLY, **TOGETHER}[name])
    game = target.game(kind)
    assert game.checks["batching"] == ("one by one" if name in SINGLY else "together")
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(10, len(game.players), generator=generator) < torch.rand(10, 1, generator=generator)
    masks = masks[masks.any(1)]
    together, alone = game(masks), torch.cat([game(mask[None]) for mask in masks])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone, torch.stack([_own(net, x, m, kind) for m in masks]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["top k", "u-net", "numbered"])
def test_a_graph_without_nodes_is_what_pooling_says_of_it_beside_others(name):
    _, _, target = _target(SINGLY[name])
    none = target.game("nodes")(torch.zeros(1, 6, dtype=torch.bool))
    torch.testing.assert_close(none, target.module.out.bias[1:].detach().double())


@pytest.mark.parametrize("name", ["lstm", "last state"])
def test_a_graph_without_nodes_that_has_no_answer_is_named(name):
    _, _, target = _target(SINGLY[name])
    with pytest.raises(ValueError, match=r'without any of the 6 nodes: .*removal="message" or "features" keeps every'):
        Shapley("nodes").explain(target)
    _, _, kept = _target(SINGLY[name], removal="features")
    assert Shapley("nodes").explain(kept).checks["efficiency_gap"] < 1e-6


class _Recurrent(nn.Module):
    """Messages in order: an LSTM has no answer where no node has a neighbour."""

    def __init__(self):
        super().__init__()
        self.conv = SAGEConv(4, 2, aggr="lstm")

    def forward(self, x, edge_index):
        return self.conv(x, edge_index[:, edge_index[1].argsort(stable=True)])


def test_a_coalition_that_breaks_the_model_is_named_with_the_remedy():
    torch.manual_seed(0)
    x, net = torch.randn(4, 4), _Recurrent().eval()
    data = Data(x=x, edge_index=torch.tensor([[1, 2, 3], [0, 0, 0]]))
    game = GraphModel(net, data).node(0, label=0).game("edges")
    masks = torch.rand(20, len(game.players), generator=torch.Generator().manual_seed(0)) < 0.5
    masks = masks[masks.any(1)]
    own = [net(x, data.edge_index[:, game.players.index[mask]])[0, 0].detach().double() for mask in masks]
    torch.testing.assert_close(game(masks), torch.stack(own), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"without any of the \d edges: .*LSTM|RNN.*; removal=\"message\" keeps every"):
        game(torch.zeros(1, len(game.players), dtype=torch.bool))


class _Fourth(nn.Module):
    """Reads its fourth node by number."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(4, 2)

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index)
        return h[torch.tensor([3])]


def test_an_index_past_the_end_is_named():
    _, _, target = _target(_Fourth)
    two = torch.tensor([[True, True, False, False, False, False]])
    with pytest.raises(ValueError, match=r"of only nodes 0, 1 \(of 6\): index 3 is out of bounds.*keeps every node"):
        target.game("nodes")(two)


def test_more_copies_than_a_model_has_numbers_for_are_asked_one_by_one():
    net, x, target = _target(lambda: Numbered(most=6))
    assert not target.game("edges").evaluate.place.together
    masks = torch.rand(30, 14, generator=torch.Generator().manual_seed(0)) < 0.5
    own = torch.stack([_own(net, x, mask, "edges") for mask in masks])
    torch.testing.assert_close(target.game("edges")(masks), own, rtol=1e-5, atol=1e-6)


class _Few(nn.Module):
    """Takes no more than so many nodes at once."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(4, 2)

    def forward(self, x, edge_index, batch):
        if len(x) > 100:
            raise IndexError("more nodes than positions")
        return global_add_pool(self.conv(x, edge_index), batch)


def test_a_batch_that_breaks_though_each_coalition_has_an_answer_is_asked_one_by_one():
    net, x, target = _target(_Few)
    game = target.game("edges")
    assert game.checks["batching"] == "together"
    masks = torch.rand(30, 14, generator=torch.Generator().manual_seed(0)) < 0.5
    torch.testing.assert_close(game(masks), torch.stack([_own(net, x, mask, "edges") for mask in masks]))
    torch.testing.assert_close(game.evaluate.one_by_one(masks)[:, 1].double(), game(masks))


class _Middle(nn.Module):
    """Between two layers, something that sees every node."""

    def __init__(self, middle):
        super().__init__()
        self.first, self.middle, self.second = GCNConv(4, 8), middle, GCNConv(8, 2)

    def forward(self, x, edge_index):
        return self.second(self.middle(torch.tanh(self.first(x, edge_index))), edge_index)


class _Along(nn.Module):
    """A recurrent layer along the nodes in order."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 8)

    def forward(self, x):
        return self.gru(x)[0]


class _Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.number = nn.Embedding(6, 8)

    def forward(self, x):
        return x + self.number(torch.arange(x.size(0)))


SEES_ALL = {
    "norm": lambda: _Middle(PairNorm()),
    "along": lambda: _Middle(_Along()),
    "positions": lambda: _Middle(_Positions()),
    "u-net": lambda: GraphUNet(4, 8, 2, 2),
}


@pytest.mark.parametrize("name", SEES_ALL)
def test_a_node_that_is_seen_without_edges_is_gone_with_its_row(name):
    torch.manual_seed(0)
    x, net = torch.randn(6, 4), SEES_ALL[name]().eval()
    game = GraphModel(net, Data(x=x, edge_index=EDGES)).node(2, label=1).game("nodes")
    assert game.players.index.tolist() == [0, 1, 3, 4, 5]
    masks = torch.rand(10, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    own = []
    for mask in masks:
        kept = torch.ones(6, dtype=torch.bool)
        kept[game.players.index] = mask
        number = kept.cumsum(0) - 1
        inside = kept[EDGES[0]] & kept[EDGES[1]]
        own.append(net(x[kept], number[EDGES[:, inside]])[number[2], 1].detach().double())
    torch.testing.assert_close(game(masks), torch.stack(own), rtol=1e-5, atol=1e-6)


class _OwnRows(nn.Module):
    """An embedding of its own for each of six nodes, normalised over all."""

    def __init__(self):
        super().__init__()
        self.rows, self.net = nn.Parameter(torch.randn(6, 4)), _Middle(PairNorm())

    def forward(self, edge_index):
        return self.net(self.rows, edge_index)


def test_a_model_with_rows_of_its_own_keeps_them_and_says_so():
    torch.manual_seed(0)
    target = GraphModel(_OwnRows().eval(), Data(edge_index=EDGES, num_nodes=6)).node(2, label=1)
    why = Shapley("nodes").explain(target)
    assert why.checks["efficiency_gap"] < 1e-6
    assert why.target["assumed"]["nodes"].startswith("one that is absent stays, without features and edges")


class _Users(nn.Module):
    """An embedding of each of six nodes, along edges of two types where there are any; the score of pairs."""

    def __init__(self, conv):
        super().__init__()
        self.table, self.conv = nn.Embedding(6, 4), conv

    def forward(self, edge_index, edge_label_index, edge_type=None):
        z = self.conv(self.table.weight, edge_index, *([] if edge_type is None else [edge_type]))
        return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)


@pytest.mark.parametrize("typed", [False, True])
def test_nodes_known_by_their_numbers_keep_them_where_others_are_absent(typed):
    torch.manual_seed(0)
    net = _Users(RGCNConv(4, 4, 2) if typed else GCNConv(4, 4)).eval()
    types = torch.arange(EDGES.size(1)) % 2
    data = Data(edge_index=EDGES, num_nodes=6, **({"edge_type": types} if typed else {}))
    why = Occlusion("nodes").explain(GraphModel(net, data, task="edge", outputs="logits").edge(2, 4))
    assert why.target["assumed"]["nodes"].startswith("one that is absent stays, without features and edges")
    pair = torch.tensor([[2], [4]])
    for node, found in zip(why.players.index.tolist(), why.scores.tolist(), strict=True):
        kept = (node != EDGES).all(0)
        without = net(EDGES[:, kept], pair, types[kept] if typed else None)
        assert found == pytest.approx(why.value - float(without.detach()), abs=1e-5)


class _AllPairs(nn.Module):
    """Solves with a dense matrix of all pairs of nodes that it makes itself."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, x, edge_index):
        size = x.size(0)
        near = torch.zeros(size, size).index_put((edge_index[1], edge_index[0]), torch.ones(edge_index.size(1)))
        return torch.linalg.solve(2 * torch.eye(size) - near / (1 + near.sum(1, keepdim=True)), self.out(x))


def test_matrices_of_all_pairs_are_kept_small():
    """All 2^14 coalitions together would be a matrix of 98,304 x 98,304."""
    torch.manual_seed(0)
    x, net = torch.randn(6, 4), _AllPairs().eval()
    model = GraphModel(net, Data(x=x, edge_index=EDGES))
    game = model.node(2, label=1).game("edges")
    assert game.batch_size * 6 <= 400
    masks = torch.rand(90, 14, generator=torch.Generator().manual_seed(0)) < 0.5
    own = torch.stack([net(x, EDGES[:, mask])[2, 1].detach().double() for mask in masks])
    torch.testing.assert_close(game(masks), own, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"16384 coalitions in one pass need .* of 36 GB.*batch_size=1024 or less"):
        model.node(2, label=1, batch_size=2**14).game("edges")


def test_memory_that_runs_out_is_said_with_the_remedy(monkeypatch):
    target = _target(_Few)[2]
    game = target.game("edges")
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000000000 bytes.")

    def fails(*arguments, **edits):
        raise error

    monkeypatch.setattr(target, "outputs", fails)
    with pytest.raises(ValueError, match=r"32 coalitions in one pass .*40000000000 bytes.*batch_size=2 or less"):
        game(torch.zeros(32, 14, dtype=torch.bool))
