"""Attention shares out what was looked at, and says whether it mattered."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import attention as paper
from torch import nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, TransformerConv

from explain.attention.capture import NothingCaptured, capture
from explain.attention.explainer import Attention
from explain.graph.model import GraphModel
from explain.types import Players, Target, Unsupported

EDGES = torch.tensor([[0, 1, 2, 3, 2, 0, 1, 4, 3, 2], [1, 0, 1, 1, 3, 3, 2, 0, 0, 2]])


class Asked(Target):
    """Output 0 of one row of a network of nodes or tokens."""

    kinds: tuple[str, ...] = ()

    def __init__(self, module, *inputs, row=0, kinds=("edges", "nodes")):
        self.module, self.inputs, self.row, self.kinds = module, inputs, row, kinds

    def value(self):
        return float(self.run()[self.row, 0])

    def run(self):
        with torch.no_grad():
            return self.module(*self.inputs)

    def rows(self):
        return torch.tensor([self.row])

    def players(self, kind, **options):
        if kind not in self.kinds:
            raise ValueError(f"players are {self.kinds}, got {kind!r}")
        if kind == "edges":
            edge_index = self.inputs[1]
            return Players("edges", torch.arange(edge_index.size(1)), geometry={"ends": edge_index})
        return Players(kind, torch.arange(len(self.inputs[0])))

    def describe(self):
        return {"row": self.row}


class TwoGAT(nn.Module):
    def __init__(self, build=GATConv):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = build(4, 4, heads=2, concat=False), build(4, 3, heads=2, concat=False)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Tokens(nn.Module):
    """Two blocks of self-attention over ``[tokens, 4]``."""

    def __init__(self, value=1.0):
        super().__init__()
        self.value = value

    def forward(self, x):
        for _ in range(2):
            x = x + F.scaled_dot_product_attention(x[None, None], x[None, None], self.value * x[None, None])[0, 0]
        return x


def features(nodes=5):
    return torch.randn(nodes, 4, generator=torch.Generator().manual_seed(0)) * 2


def matrices(net, *inputs):
    with capture(net) as maps, torch.no_grad():
        net(*inputs)
    return [attention.dense()[0].mean(0) for attention in maps]


def test_edges_get_their_share_of_all_walks_self_loops_apart():
    net, x = TwoGAT().eval(), features()
    walks = paper.walks(matrices(net, x, EDGES), 1) / 2
    found = Attention().explain(Asked(net, x, EDGES, row=1))
    torch.testing.assert_close(found.scores, walks[EDGES[1], EDGES[0]])
    loops = float(walks.diagonal().sum()) - float(
        walks[2, 2]
    )  # edge 2-2 is a player: the layer's own loop stands for it
    assert float(found.scores.sum()) == pytest.approx(1 - loops)
    assert found.checks["mass_on_players"] == pytest.approx(1 - loops)
    assert (found.scores >= 0).all()


@pytest.mark.parametrize("aggregate", ["rollout", "mean", "last"])
def test_every_aggregate_is_what_it_says(aggregate):
    net, x, row = TwoGAT().eval(), features(), 3
    first, second = (matrix.double() for matrix in matrices(net, x, EDGES))
    target = Asked(net, x, EDGES, row=row)
    nodes = {"rollout": (second @ first)[row], "mean": (first + second)[row] / 2, "last": second[row]}
    torch.testing.assert_close(Attention("nodes", aggregate=aggregate).explain(target).scores, nodes[aggregate])
    at_row = torch.zeros_like(second)
    at_row[row] = second[row]
    credit = {"rollout": paper.walks([first, second], row) / 2, "mean": (first + second) / 2, "last": at_row}
    edges = Attention(aggregate=aggregate).explain(target)
    torch.testing.assert_close(edges.scores, credit[aggregate][EDGES[1], EDGES[0]])
    assert edges.checks["mass_on_players"] == pytest.approx(float(edges.scores.sum() / credit[aggregate].sum()))


@pytest.mark.parametrize("residual", ["auto", 0.0, 0.25])
def test_tokens_get_the_rollout(residual):
    net, x = Tokens().eval(), features(6)
    found = Attention(residual=residual).explain(Asked(net, x, row=2, kinds=("tokens",)))
    expected = paper.rollout(matrices(net, x), 0.5 if residual == "auto" else residual)[2]
    torch.testing.assert_close(found.scores, expected)
    assert found.players.kind == "tokens"
    assert float(found.scores.sum()) == pytest.approx(1)


def test_edges_of_dense_maps():
    net, x = Tokens().eval(), features(5)
    target = Asked(net, x, EDGES, row=2)
    target.run = lambda: net(x)
    found = Attention("edges", residual=0.0).explain(target)
    walks = paper.walks(matrices(net, x), 2) / 2
    torch.testing.assert_close(found.scores, walks[EDGES[1], EDGES[0]])


def test_the_maps_come_along_and_the_checks_hold():
    net, x = TwoGAT().eval(), features()
    found = Attention().explain(Asked(net, x, EDGES))
    assert set(found.parts) == {f"attention.{i}{part}" for i in range(2) for part in ("", ".edge_index")}
    assert found.parts["attention.0"].shape == (found.parts["attention.0.edge_index"].size(1), 2)
    assert found.checks["maps"] == 2
    assert found.checks["layers"] == ["first", "second"]
    assert found.checks["row_sum_error"] < 1e-6
    assert found.checks["deviation_from_uniform"] > 0.01
    assert found.checks["unseen"] == 0
    flat = copy.deepcopy(net)
    for layer in (flat.first, flat.second):
        layer.att_src.data.zero_()
        layer.att_dst.data.zero_()
    with torch.no_grad():
        change = float(flat(x, EDGES)[0, 0]) - found.value
    assert found.checks["change_under_uniform"] == pytest.approx(change, rel=1e-4)
    assert abs(change) > 1e-4


def test_a_model_that_does_not_care_says_so():
    found = Attention().explain(Asked(Tokens(value=0.0).eval(), features(), kinds=("tokens",)))
    assert found.checks["change_under_uniform"] == 0


def test_flat_attention_warns():
    net = TwoGAT().eval()
    for layer in (net.first, net.second):
        layer.att_src.data.zero_()
        layer.att_dst.data.zero_()
    with pytest.warns(UserWarning, match="uniform to"):
        found = Attention().explain(Asked(net, features(), EDGES))
    assert found.checks["change_under_uniform"] == pytest.approx(0, abs=1e-6)


def test_undirected_pairs_get_both_ways_and_parallel_edges_their_own():
    net, x = TwoGAT().eval(), features()
    target = Asked(net, x, EDGES, row=1)
    one_way = Attention().explain(target)
    pair = Players(
        "edges", torch.tensor([0]), groups=(torch.tensor([0, 1]),), geometry={"ends": torch.tensor([[0], [1]])}
    )
    both = Attention(pair).explain(target)
    assert float(both.scores[0]) == pytest.approx(float(one_way.scores[0] + one_way.scores[1]))
    edge_index, attributes = torch.tensor([[1, 1, 2], [0, 0, 0]]), torch.tensor([[0.0], [3.0], [1.0]])
    torch.manual_seed(1)
    net = TransformerConv(4, 3, edge_dim=1).eval()
    found = Attention().explain(Asked(net, x, edge_index, attributes))
    torch.testing.assert_close(found.scores, found.parts["attention.0"][:, 0].double())
    assert float((found.scores[0] - found.scores[1]).abs()) > 1e-3


def test_a_model_that_coalesces_parallel_edges_shares_alike():
    class Coalescing(TwoGAT):
        def forward(self, x, edge_index):
            return super().forward(x, torch.unique(edge_index, dim=1))

    net, x = Coalescing().eval(), features()
    once, twice = EDGES[:, :2], EDGES[:, [0, 1, 1]]
    single = Attention().explain(Asked(net, x, once))
    double = Attention().explain(Asked(net, x, twice))
    torch.testing.assert_close(double.scores[1:], (single.scores[1] / 2).expand(2))


def test_a_node_without_edges_and_no_players():
    net = TransformerConv(4, 3).eval()
    found = Attention().explain(Asked(net, features(), EDGES[:, 3:4], row=4))
    assert float(found.scores.abs().sum()) == 0
    assert found.checks["mass_on_players"] is None
    empty = Attention().explain(Asked(TwoGAT().eval(), features(), EDGES[:, :0]))
    assert empty.scores.shape == (0,)


def test_players_that_attention_cannot_speak_of():
    net, x = TwoGAT().eval(), features()
    target = Asked(net, x, EDGES)
    with pytest.raises(ValueError, match="edges, nodes or relations, got 'features'"):
        Attention("features").explain(target)
    with pytest.raises(ValueError, match="0 to 4, got 1 to 7"):
        Attention(Players("nodes", torch.tensor([1, 7]))).explain(target)
    with pytest.raises(ValueError, match="ends"):
        Attention(Players("edges", torch.tensor([1]))).explain(target)
    with pytest.raises(Unsupported, match="whose edges these maps run along"):
        Attention(Players("nodes", torch.tensor([[0, 1]]))).explain(target)
    with pytest.raises(Unsupported, match="needs nodes or tokens"):
        Attention().explain(Asked(Tokens().eval(), x, kinds=("patches",)))
    with pytest.raises(NothingCaptured) as nothing:
        Attention().explain(Asked(GCNConv(4, 3).eval(), x, EDGES))
    assert isinstance(nothing.value, Unsupported)  # one refusal among those of the other explainers


def test_settings_are_checked_when_built():
    with pytest.raises(ValueError, match="aggregate must be one of auto, rollout, mean, last"):
        Attention(aggregate="max")
    with pytest.raises(ValueError, match="residual must be"):
        Attention(residual=1.0)


class Pooled(nn.Module):
    """Five tokens that are looked at by ``queries`` of their own; what looks first, and what last, may be others."""

    def __init__(self, queries, first="tokens", last=""):
        super().__init__()
        torch.manual_seed(0)
        self.queries, self.first_look, self.last_look = nn.Parameter(torch.randn(queries, 4)), first, last
        self.first, self.pool, self.last = (nn.MultiheadAttention(4, 1) for _ in range(3))

    def forward(self, x):
        if self.first_look == "tokens":
            x, asks = self.first(x, x, x)[0], self.queries
        else:
            asks = self.first(self.queries, x, x)[0]
        found = self.pool(asks, x, x)[0]
        return self.last(found, found, found)[0] if self.last_look == "queries" else found


@pytest.mark.parametrize(
    ("queries", "first", "advice"), [(3, "tokens", "last"), (7, "tokens", "last"), (3, "queries", "mean")]
)
def test_an_aggregate_is_advised_that_works(queries, first, advice):
    asked = Asked(Pooled(queries, first).eval(), features(), row=queries - 1, kinds=("nodes",))
    with pytest.raises(ValueError, match=f"do not chain: use aggregate='{advice}'"):
        Attention().explain(asked)
    assert float(Attention(aggregate=advice).explain(asked).scores.sum()) == pytest.approx(1)


def test_where_no_aggregate_works_the_maps_are_advised():
    asked = Asked(Pooled(3, last="queries").eval(), features(), kinds=("nodes",))
    for explainer in (Attention(), Attention(aggregate="mean")):
        with pytest.raises(ValueError, match="no aggregate goes from these maps to nodes; `with capture"):
            explainer.explain(asked)


def test_mixed_maps_warn():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.local, self.overall = TwoGAT().first, Tokens()

        def forward(self, x, edge_index):
            return self.overall(self.local(x, edge_index))

    with pytest.warns(UserWarning, match=r"mixed.*use aggregate=.mean"):
        found = Attention("nodes").explain(Asked(Mixed().eval(), features(), EDGES))
    assert found.checks["mixed"] is True
    assert float(found.scores.sum()) == pytest.approx(1)


@pytest.mark.parametrize("build", [GATConv, TransformerConv])
def test_on_a_graph_model_with_stored_loops(build):
    edge_index = torch.cat([torch.arange(5).repeat(2, 1), EDGES[:, :9]], 1)
    net, x = TwoGAT(build).eval(), features()
    target = GraphModel(net, Data(x=x, edge_index=edge_index)).node(1)
    walks = paper.walks(matrices(net, x, edge_index), 1) / 2
    found = Attention().explain(target)
    ends = found.players.geometry["ends"]
    torch.testing.assert_close(found.scores, walks[ends[1], ends[0]])
    assert found.checks["mass_on_players"] == pytest.approx(1)
    nodes = Attention("nodes").explain(target)
    assert float(nodes.scores.sum()) == pytest.approx(nodes.checks["mass_on_players"])
    pairs = Attention(target.players("edges", undirected=True)).explain(target)
    assert float(pairs.scores.sum()) == pytest.approx(1)


@pytest.mark.parametrize("players", ["edges", "nodes"])
def test_an_isolated_node_of_a_graph_model_has_an_empty_answer(players):
    data = Data(x=features(3), edge_index=torch.tensor([[0], [1]]))
    found = Attention(players).explain(GraphModel(TwoGAT().eval(), data).node(2))
    assert found.scores.shape == (0,)
