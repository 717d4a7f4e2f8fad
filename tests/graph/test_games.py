"""Coalitions in batches on the cut equal the paper's form: the whole graph, one at a time."""

import pytest
import torch
from graph_cases import LOCAL, doubled, network, random_graph
from reference.graph import edge_game, feature_game, node_game
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GATConv, GCNConv, MessagePassing, SAGEConv

from explain.graph.model import GraphModel
from explain.types import Players, Unsupported


def _masks(game, count=12, seed=0):
    return torch.rand(count, len(game.players), generator=torch.Generator().manual_seed(seed)) < 0.6


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_batched_on_the_cut_equals_looped_on_the_whole_graph(name, kind):
    data = doubled(random_graph())
    net = network(name, double=True)
    target = GraphModel(net, data).node(4, label=2)
    game = target.game(kind)
    masks = _masks(game)
    if kind == "features":
        expected = feature_game(net, data, 4, 2, game.players.index, masks, torch.zeros_like(data.x))
    else:
        expected = {"edges": edge_game, "nodes": node_game}[kind](net, data, 4, 2, game.players.index, masks)
    torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
@pytest.mark.parametrize("removal", ["delete", "message"])
def test_batch_size_never_matters(kind, removal):
    model = GraphModel(network("gat"), random_graph())
    games = [model.node(4, label=1, removal=removal, batch_size=size).game(kind) for size in (None, 1, 5)]
    first, *others = [game(_masks(game)) for game in games]
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gcn", "sage", "gin"])
def test_every_player_present_is_the_value(name):
    target = GraphModel(network(name), random_graph()).node(3)
    for kind in ("edges", "nodes", "features"):
        assert target.game(kind).ends()[1] == pytest.approx(target.value(), rel=1e-5, abs=1e-6)


def test_a_pair_is_one_player():
    data = random_graph()
    net = network("gcn")
    target = GraphModel(net, data).node(4, label=0)
    pairs, single = target.players("edges", undirected=True), target.players("edges")
    assert sum(len(group) for group in pairs.groups) == len(single)
    game = target.game(pairs)
    masks = _masks(game)
    expected = []
    for mask in masks:
        absent = torch.cat([group for group, kept in zip(pairs.groups, mask, strict=True) if not kept])
        present = ~torch.isin(single.index, absent)
        expected.append(edge_game(net, data, 4, 0, single.index, present[None])[0])
    torch.testing.assert_close(game(masks), torch.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("baseline", ["mean", "zeros"])
def test_absent_features(baseline):
    data = doubled(random_graph())
    net = network("gin", double=True)
    target = GraphModel(net, data).node(4, label=0, baseline=baseline)
    game = target.game("features")
    absent = data.x.mean(0).expand_as(data.x) if baseline == "mean" else torch.zeros_like(data.x)
    masks = _masks(game)
    expected = feature_game(net, data, 4, 0, game.players.index, masks, absent)
    torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)


def test_marginal_absence_averages_over_other_nodes():
    """For a linear model without edges the mean over draws of the features is all that matters."""
    data = Data(x=torch.randn(50, 3, dtype=torch.float64), edge_index=torch.zeros(2, 0, dtype=torch.long))
    net = _Rowwise()
    target = GraphModel(net, data).node(0, label=0, baseline="marginal")
    empty, full = target.game(target.players("features", all=True)).ends()
    assert full == pytest.approx(target.value())
    assert abs(empty) < 3 * float(data.x.std() * 3**0.5 / 16**0.5)
    assert empty != 0


class _Rowwise(nn.Module):
    def forward(self, x, edge_index):
        return torch.stack([x.sum(1), -x.sum(1)], 1)


def test_node_features_replaced_keep_the_structure():
    data = doubled(random_graph())
    net = network("gcn", double=True)
    target = GraphModel(net, data).node(4, label=0, removal="features")
    game = target.game("nodes")
    mask = _masks(game, 1)
    x = data.x.clone()
    x[game.players.index[~mask[0]]] = 0
    torch.testing.assert_close(game(mask)[0], net(x, data.edge_index)[4, 0].detach(), rtol=1e-9, atol=1e-12)


class _Weighted(MessagePassing):
    """Sum of messages times given weights: the message game of any sum network, written out."""

    def __init__(self):
        super().__init__(aggr="sum")

    def forward(self, x, edge_index, edge_weight=None):
        weight = torch.ones(edge_index.size(1), dtype=x.dtype) if edge_weight is None else edge_weight
        return self.propagate(edge_index, x=x, edge_weight=weight)

    def message(self, x_j, edge_weight):
        return x_j * edge_weight[:, None]


def test_messages_are_scaled_after_normalisation():
    """A GCN's message game: the normalisation of the whole graph, then absent messages are zero."""
    torch.manual_seed(0)
    data = doubled(random_graph())
    conv = GCNConv(5, 3).double().eval()
    target = GraphModel(conv, data).node(4, label=0, removal="message")
    game = target.game("edges")
    mask = _masks(game, 1)[0]
    degree = 1 + torch.bincount(data.edge_index[1], minlength=data.num_nodes).double()
    h = data.x @ conv.lin.weight.t()
    expected = h[4] / degree[4] + conv.bias
    for e, kept in zip(game.players.index.tolist(), mask.tolist(), strict=True):
        u, v = data.edge_index[:, e].tolist()
        if v == 4 and kept:
            expected = expected + h[u] / (degree[u] * degree[4]).sqrt()
    torch.testing.assert_close(game(mask[None])[0], expected[0].detach(), rtol=1e-9, atol=1e-12)


def test_message_and_deletion_agree_for_sums():
    data = doubled(random_graph())
    target = [GraphModel(network("gin", double=True), data).node(4, label=0, removal=r) for r in ("delete", "message")]
    games = [t.game("edges") for t in target]
    masks = _masks(games[0])
    torch.testing.assert_close(games[0](masks), games[1](masks), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("make", [lambda: GCNConv(5, 3), lambda: GATConv(5, 3), lambda: SAGEConv(5, 3)])
def test_stored_self_loops(where, make):
    """Layers move stored loops; masks still reach the right edges, whichever way absence is defined."""
    torch.manual_seed(0)
    data = random_graph()
    loops = torch.arange(data.num_nodes).repeat(2, 1)
    parts = [loops, data.edge_index] if where == "first" else [data.edge_index, loops]
    data = doubled(Data(x=data.x, edge_index=torch.cat(parts, 1)))
    net = make().double().eval()
    node = 4
    for removal in ("delete", "message"):
        target = GraphModel(net, data).node(node, label=0, removal=removal)
        game = target.game("edges")
        ends = game.players.geometry["ends"]
        for e in range(len(game.players)):
            mask = torch.ones(1, len(game.players), dtype=torch.bool)
            mask[0, e] = False
            loop = bool(ends[0, e] == ends[1, e])
            change = abs(float(game(mask)[0]) - target.value())
            if removal == "delete" and loop and isinstance(net, (GCNConv, GATConv)):
                assert change < 1e-12  # the layer adds the loop again
            else:
                assert change > 1e-9


def test_cached_layers_do_not_answer_from_their_cache():
    torch.manual_seed(0)
    data = doubled(random_graph())
    net = GCN(5, 8, 2, 3, cached=True).double().eval()
    net(data.x, data.edge_index)  # fills the cache
    filled = net.convs[0]._cached_edge_index
    plain = GCN(5, 8, 2, 3).double().eval()
    plain.load_state_dict(net.state_dict())
    game = GraphModel(net, data).node(4, label=0).game("edges")
    masks = _masks(game)
    expected = edge_game(plain, data, 4, 0, game.players.index, masks)
    torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)
    assert net.convs[0]._cached_edge_index is filled


def test_multi_edges_are_players_of_their_own():
    torch.manual_seed(0)
    edge_index = torch.tensor([[1, 1, 2], [0, 0, 0]])
    data = Data(x=torch.tensor([[0.0], [1.0], [5.0]]), edge_index=edge_index)
    game = GraphModel(_Weighted(), data).node(0, label=None, payoff=lambda out: out[:, 0]).game("edges")
    assert len(game.players) == 3
    assert game(torch.tensor([[True, False, False], [True, True, False], [True, True, True]])).tolist() == [1, 2, 7]


def test_edge_weights_travel_with_their_edges():
    data = Data(
        x=torch.tensor([[0.0], [1.0], [5.0]]),
        edge_index=torch.tensor([[1, 2], [0, 0]]),
        edge_weight=torch.tensor([10.0, 100.0]),
    )
    model = GraphModel(_Weighted(), data, inputs={"edge_weight": "edge_weight"})
    game = model.node(0, payoff=lambda out: out[:, 0]).game("edges")
    assert game(torch.tensor([[True, False], [False, True]])).tolist() == [10, 500]


def test_players_that_do_not_fit_are_refused():
    target = GraphModel(network("gcn"), random_graph()).node(4)
    with pytest.raises(ValueError, match="outside this target's computation graph"):
        target.game(Players("nodes", torch.tensor([4])))  # the explained node always stays
    node = target.players("nodes").index[:1]
    with pytest.raises(ValueError, match="each belongs to one player"):
        target.game(Players("nodes", torch.cat([node, node])))
    with pytest.raises(Unsupported, match="graph target plays with"):
        target.game(Players("patches", torch.tensor([0])))
    with pytest.raises(ValueError, match="graph players are"):
        target.players("patches")
    with pytest.raises(ValueError, match="takes"):
        target.players("nodes", undirected=True)
    with pytest.raises(Unsupported, match="keeps every edge"):
        GraphModel(network("gcn"), random_graph()).node(4, removal="features").game("edges")
