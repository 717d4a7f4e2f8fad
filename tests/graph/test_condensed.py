"""Coalitions that share the farthest nodes, degrees kept by weighted edges, against the whole graph one at a time."""

import pytest
import torch
from graph_cases import doubled, network, random_graph
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GCNConv, MessagePassing
from torch_geometric.utils import degree

from explain.graph.model import GraphModel
from explain.types import Players


class Plain(nn.Module):
    """Two GCN layers behind a forward that takes no weights."""

    def __init__(self, **settings):
        super().__init__()
        self.first, self.second = GCNConv(5, 6, **settings), GCNConv(6, 3, **settings)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Weighted(Plain):
    """The same with weights."""

    def forward(self, x, edge_index, edge_weight=None):
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)


class Sources(MessagePassing):
    """Messages divided by the out-degree of their source, which no edge into it keeps."""

    def __init__(self, columns, outputs):
        super().__init__(aggr="sum")
        self.linear = nn.Linear(columns, outputs)

    def forward(self, x, edge_index, edge_weight=None):
        sent = degree(edge_index[0], len(x), x.dtype).clamp(min=1)
        return self.propagate(edge_index, x=self.linear(x) / sent[:, None])


class ByDegree(nn.Module):
    """Own normalisation by counted edges: a summed weight says nothing to it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x, edge_index):
        for layer in (self.first, self.second):
            scaled = layer(x) / (1 + degree(edge_index[1], len(x), x.dtype))[:, None]
            x = torch.zeros_like(scaled).index_add(0, edge_index[1], scaled[edge_index[0]]) + scaled
        return x


def _graph(kind):
    """Every edge undirected, some doubled, some nodes with one or two stored loops; with ``kind`` also weights."""
    data = doubled(random_graph(30, 44))
    generator = torch.Generator().manual_seed(1)
    again = torch.randperm(data.num_edges, generator=generator)[:20]
    loops = torch.randperm(data.num_nodes, generator=generator)[:12]
    loops = torch.cat([loops, loops[:5]]).repeat(2, 1)
    edge_index = torch.cat([data.edge_index, data.edge_index[:, again], loops], 1)
    edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]
    made = Data(x=data.x, edge_index=edge_index)
    if kind:
        weight = torch.rand(edge_index.size(1), generator=generator, dtype=torch.float64) + 0.2
        weight[::7] = 0
        made[kind] = weight if kind == "edge_weight" else weight[:, None]
    return made


def _generic(net, data, node, players, **options):
    model = GraphModel(net.double().eval(), data, **options)
    model.state()
    model.findings.program = "not asked for"
    target = model.node(node, label=1)
    return target, target.game(players(target) if callable(players) else players)


def _expected(net, data, node, game, masks, weight=None):
    """The logit on the whole graph without the absent, one coalition after another."""
    values = []
    for mask in masks:
        x, keep = data.x, torch.ones(data.num_edges, dtype=torch.bool)
        if game.players.kind == "nodes":
            absent = game.players.index[~mask]
            keep = ~torch.isin(data.edge_index, absent).any(0)
            x = x.index_fill(0, absent, 0)
        else:
            keep[game.players.index] = mask
        weights = () if weight is None else (weight[keep],)
        values.append(net(x, data.edge_index[:, keep], *weights)[node, 1].detach())
    return torch.stack(values).double()


def _masks(game, count=40):
    shares = torch.linspace(0, 1, count)[:, None]
    return torch.rand(count, len(game.players), generator=torch.Generator().manual_seed(0)) < shares


def _with_border(target):
    """Half of the edges that reach the node, and some that only count in a degree."""
    place = target.place
    border = place.edges[~place.reachable]
    own = target.players("edges", degrees=False).index
    return Players("edges", torch.cat([own[::2], border[::3]]))


PLAYERS = pytest.mark.parametrize("players", ["edges", "nodes", _with_border], ids=["edges", "nodes", "border"])


@PLAYERS
@pytest.mark.parametrize("weight", ["", "edge_weight"])
@pytest.mark.parametrize("settings", [{}, {"improved": True}, {"add_self_loops": False}], ids=["", "improved", "none"])
def test_degrees_are_those_of_the_whole_graph(settings, weight, players):
    torch.manual_seed(0)
    data = _graph(weight)
    net = Weighted(**settings) if weight else Plain(**settings)
    for node in (4, 9):  # what the first showed of the model holds for the second
        inputs = {"edge_weight": weight} if weight else None
        _, game = _generic(net, data, node, players, inputs=inputs)
        ignored = "improved" in settings and not weight  # without weights the layer adds loops of weight one
        assert game.checks["boundary"] == ("complete" if ignored else "weighted")
        masks = _masks(game)
        expected = _expected(net, data, node, game, masks, data.edge_weight if weight else None)
        torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)


@PLAYERS
def test_without_degrees_edges_into_shared_nodes_are_left_out(players):
    torch.manual_seed(0)
    data, net = _graph(""), GAT(5, 8, 2, 3, heads=2)
    _, game = _generic(net, data, 4, players)
    assert game.checks["boundary"] == "left out"
    masks = _masks(game)
    torch.testing.assert_close(game(masks), _expected(net, data, 4, game, masks), rtol=1e-9, atol=1e-12)


def test_attention_over_edge_attributes_keeps_them_in_order():
    torch.manual_seed(0)
    data, net = _graph("edge_attr"), GAT(5, 8, 2, 3, edge_dim=1)
    _, game = _generic(net, data, 4, "edges")
    assert game.checks["boundary"] == "left out"
    masks, values = _masks(game, 10), []
    for mask in masks:
        keep = torch.ones(data.num_edges, dtype=torch.bool)
        keep[game.players.index] = mask
        values.append(net(data.x, data.edge_index[:, keep], edge_attr=data.edge_attr[keep])[4, 1].detach())
    torch.testing.assert_close(game(masks), torch.stack(values), rtol=1e-9, atol=1e-12)


def test_a_column_of_attributes_is_a_weight_where_the_model_says_so():
    torch.manual_seed(0)
    data, net = _graph("edge_attr"), GCN(5, 8, 2, 3)
    data.edge_attr = data.edge_attr.view(-1)
    _, game = _generic(net, data, 4, "edges", inputs={"edge_weight": "edge_attr"})
    assert game.checks["boundary"] == "weighted"
    masks = _masks(game)
    torch.testing.assert_close(game(masks), _expected(net, data, 4, game, masks, data.edge_attr), rtol=1e-9, atol=1e-12)


class _Sending(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Sources(5, 6), Sources(6, 3)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


@pytest.mark.parametrize("made", [ByDegree, _Sending])
def test_where_a_weighted_edge_says_something_else_no_edge_is_summed(made):
    torch.manual_seed(0)
    data, net = _graph(""), made()
    _, game = _generic(net, data, 4, "edges")
    assert game.checks["boundary"] == "complete"
    masks = _masks(game)
    torch.testing.assert_close(game(masks), _expected(net, data, 4, game, masks), rtol=1e-9, atol=1e-12)


def test_scores_of_a_pair_share_the_nodes_of_both():
    torch.manual_seed(0)
    data, net = _graph(""), Plain()
    model = GraphModel(
        net.double().eval(), data, task="edge", decoder=lambda z, pairs: (z[pairs[0]] * z[pairs[1]]).sum(1)
    )
    model.state()
    model.findings.program = "not asked for"
    game = model.edge(4, 9).game("edges")
    assert game.checks["boundary"] == "weighted"
    masks, values = _masks(game, 10), []
    for mask in masks:
        keep = torch.ones(data.num_edges, dtype=torch.bool)
        keep[game.players.index] = mask
        z = net(data.x, data.edge_index[:, keep])
        values.append((z[4] * z[9]).sum().detach())
    sign = 1 if model.edge(4, 9).label == 1 else -1
    torch.testing.assert_close(game(masks), sign * torch.stack(values), rtol=1e-9, atol=1e-12)


def test_layers_are_as_before(monkeypatch):
    data, net = doubled(random_graph()), network("gcn", double=True)
    _, game = _generic(net, data, 4, "edges")

    def fails(**arguments):
        raise RuntimeError("in the midst")

    monkeypatch.setattr(net.convs[1], "message", fails)
    with pytest.raises(ValueError, match="in the midst"):
        game(_masks(game, 3))
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_parts_of_any_size_answer_alike(monkeypatch):
    torch.manual_seed(0)
    data, net = _graph(""), Plain()
    _, game = _generic(net, data, 4, "edges")
    masks = _masks(game)
    whole = game(masks)
    monkeypatch.setattr("explain.graph.games.coalitions._TRIMMED", 1)  # one coalition at a time
    torch.testing.assert_close(game(masks), whole, rtol=1e-12, atol=1e-14)


def test_a_border_of_loops_does_not_show_that_degrees_are_unread():
    """A chain 2 -> 1 -> 0 with a loop on 2, and 9 -> 8 -> 7 with three edges into 9."""
    torch.manual_seed(0)
    edge_index = torch.tensor([[1, 2, 2, 8, 9, 4, 5, 6], [0, 1, 2, 7, 8, 9, 9, 9]])
    data = Data(x=torch.randn(12, 5, dtype=torch.float64), edge_index=edge_index)
    model = GraphModel(Plain().double().eval(), data)
    model.state()
    model.findings.program = "not asked for"
    assert model.node(0, label=1).game("edges").checks["boundary"] == "complete"
    game = model.node(7, label=1).game("edges")
    assert game.checks["boundary"] == "weighted"
    masks = _masks(game, 8)
    torch.testing.assert_close(game(masks), _expected(model.module, data, 7, game, masks), rtol=1e-9, atol=1e-12)


def test_a_target_that_differs_is_asked_on_more():
    torch.manual_seed(0)
    data, net = _graph(""), Plain()
    model = GraphModel(net.double().eval(), data)
    model.state()
    model.findings.program = "not asked for"
    model.findings.trims["edges"] = "degrees"  # as if the first target had not told
    game = model.node(4, label=1).game("edges")
    assert game.checks["boundary"] == "complete"
    masks = _masks(game, 8)
    torch.testing.assert_close(game(masks), _expected(net, data, 4, game, masks), rtol=1e-9, atol=1e-12)
