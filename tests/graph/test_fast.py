"""The fast path answers as the model does, on the whole graph and one coalition at a time; or it is not taken."""

import pytest
import torch
import torch.nn.functional as F
from graph_cases import doubled, network, random_graph
from reference.graph import edge_game, feature_game, node_game
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    GCNConv,
    GraphConv,
    GraphSAGE,
    MessagePassing,
    global_add_pool,
    global_mean_pool,
)

from explain import Shapley
from explain.graph.model import GraphModel

STACKS = {
    "gcn": lambda: network("gcn", double=True),  # with BatchNorm
    "sage": lambda: network("sage", double=True),
    "gin": lambda: network("gin", double=True),
    "sgc": lambda: network("sgc", double=True),
    "appnp": lambda: network("appnp", double=True),
    "gat": lambda: network("gat", double=True),
    "residual": lambda: GAT(5, 6, 3, 3, heads=2, residual=True, act="elu").double(),
    "jumping": lambda: GCN(5, 6, 3, 3, jk="cat", act="elu").double(),
    "largest": lambda: GraphSAGE(5, 6, 2, 3, jk="max", project=True, normalize=True).double(),
    "deep": lambda: GIN(5, 6, 3, 3, norm="batch_norm").double(),
    "widening": lambda: GCN(5, 3, 2, 9).double(),
}


def _masks(game, count=10):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(count, len(game.players), generator=generator) < torch.rand(count, 1, generator=generator)
    masks[0], masks[1] = True, False
    return masks


def _generic(game, masks):
    """The same game on the model itself."""
    coalitions = game.evaluate
    return coalitions.number.read(torch.cat([coalitions.untrimmed(m) for m in masks.split(1)]).double()).detach()


def _on_fast_path(game):
    return not game.checks["fast_path"].startswith("no")


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
@pytest.mark.parametrize("name", STACKS)
def test_fast_equals_generic_equals_the_whole_graph(name, kind):
    torch.manual_seed(0)
    data, net = doubled(random_graph()), STACKS[name]().eval()
    game = GraphModel(net, data).node(4, label=2).game(kind)
    assert _on_fast_path(game)
    masks = _masks(game)
    played = (net, data, 4, 2, game.players.index, masks)
    paper = {"edges": edge_game, "nodes": node_game, "features": feature_game}[kind]
    expected = paper(*played, torch.zeros_like(data.x)) if kind == "features" else paper(*played)
    found = game(masks)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, _generic(game, masks), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "appnp", "gat"])
@pytest.mark.parametrize(
    ("removal", "baseline", "kinds"),
    [("message", "zeros", ("edges", "nodes")), ("features", "mean", ("nodes",)), ("delete", "mean", ("nodes",))],
)
def test_every_removal(name, removal, baseline, kinds):
    torch.manual_seed(0)
    model = GraphModel(STACKS[name]().eval(), doubled(random_graph()))
    for kind in kinds:
        game = model.node(4, label=0, removal=removal, baseline=baseline).game(kind)
        assert _on_fast_path(game)
        masks = _masks(game)
        torch.testing.assert_close(game(masks), _generic(game, masks), rtol=1e-9, atol=1e-12)


class _Weighted(nn.Module):
    def __init__(self, conv, **settings):
        super().__init__()
        self.first, self.second = conv(5, 6, **settings), conv(6, 3, **settings)

    def forward(self, x, edge_index, edge_weight=None):
        h = F.relu(self.first(x, edge_index, edge_weight))
        h = F.dropout(h, 0.5, training=self.training)
        return self.second(h, edge_index, edge_weight)


def _rough(weights, twice=True):
    """Loops, double edges (and isolated nodes) in random order."""
    data = doubled(random_graph())
    loops = torch.arange(16).repeat(2, 1)
    edge_index = torch.cat([data.edge_index, data.edge_index[:, :9] if twice else loops[:, :0], loops], 1)
    edge_index = edge_index[:, torch.randperm(edge_index.size(1))]
    made = Data(x=data.x, edge_index=edge_index)
    if weights:
        made.edge_weight = torch.rand(edge_index.size(1), dtype=torch.float64) + 0.1
    return made


ROUGH = {
    "improved": lambda: _Weighted(GCNConv, improved=True),
    "without loops": lambda: _Weighted(GCNConv, add_self_loops=False),
    "unnormalised": lambda: _Weighted(GCNConv, normalize=False),
    "cached": lambda: _Weighted(GCNConv, cached=True),
    "sum": lambda: _Weighted(GraphConv),
    "mean": lambda: _Weighted(GraphConv, aggr="mean"),
    "sage": lambda: GraphSAGE(5, 6, 2, 3),
    "gat": lambda: GAT(5, 6, 2, 3, heads=2),
    "gat without loops": lambda: GAT(5, 6, 2, 3, add_self_loops=False),
}


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", ROUGH)
def test_loops_double_edges_weights_and_isolated_nodes(name, weights):
    torch.manual_seed(0)
    inputs = {"edge_weight": "edge_weight" if weights else None}
    model = GraphModel(ROUGH[name]().double().eval(), _rough(weights), inputs=inputs)
    for node, removal in ((4, "delete"), (4, "message"), (23, "delete")):
        for kind in ("edges", "nodes"):
            game = model.node(node, label=0, removal=removal).game(kind)
            assert _on_fast_path(game)
            masks = _masks(game)
            torch.testing.assert_close(game(masks), _generic(game, masks), rtol=1e-9, atol=1e-12)


class _Pooled(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.conv, self.out, self.mean = GCNConv(5, 6), nn.Linear(6, 3), mean

    def forward(self, x, edge_index, batch):
        h = self.conv(x, edge_index).relu()
        return self.out(global_mean_pool(h, batch) if self.mean else global_add_pool(h, batch))


@pytest.mark.parametrize("mean", [True, False])
def test_a_pooled_graph(mean):
    torch.manual_seed(0)
    model = GraphModel(_Pooled(mean).double().eval(), [doubled(random_graph())])
    for removal in ("delete", "message"):
        for kind in ("edges", "nodes"):
            game = model.graph(0, label=0, removal=removal).game(kind)
            assert _on_fast_path(game)
            masks = torch.cat([_masks(game), torch.zeros(1, len(game.players)).bool()])  # and a graph without nodes
            torch.testing.assert_close(game(masks), _generic(game, masks), rtol=1e-9, atol=1e-12)


class _Halved(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j / 2


class _Odd(GCNConv):
    def message(self, x_j, edge_weight):
        return x_j.abs() * edge_weight[:, None]


class _Noisy(nn.Module):
    """A forward hook that no trace sees."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(5, 3)
        self.conv.register_forward_hook(lambda module, given, out: out + 1)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


class _Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(5, 3)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index) * (len(x) > 0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_Counted, "no: torch.fx cannot trace _Counted: the length of a tensor is asked for"),
        (lambda: GCN(5, 8, 2, 3, norm="GraphNorm"), "GraphNorm has no fast path"),
        (_Halved, "_Halved has no fast path"),
        (lambda: _Odd(5, 3), "_Odd has no fast path"),
        (_Noisy, "differs from the model by"),
        (lambda: GCNConv(5, 3, flow="target_to_source"), "against the arrows"),
        (lambda: GraphSAGE(5, 8, 2, 3, aggr="max"), "with aggr='max'"),
    ],
)
def test_other_models_take_the_generic_path_and_say_why(make, reason):
    torch.manual_seed(0)
    game = GraphModel(make().eval(), random_graph()).node(4, label=0).game("edges")
    assert game.checks["fast_path"].startswith("no: ")
    assert reason in game.checks["fast_path"]
    masks = _masks(game)
    torch.testing.assert_close(game(masks), _generic(game, masks), rtol=1e-5, atol=1e-6)


def _changes():
    def in_place(net):
        with torch.no_grad():
            net.convs[0].lin.weight.mul_(2)

    def through_data(net):
        net.convs[1].bias.data += 1

    def replaced(net):
        net.convs[0].lin.weight = nn.Parameter(-net.convs[0].lin.weight.detach())

    def setting(net):
        net.convs[0].add_self_loops = False

    return [in_place, through_data, replaced, setting]


@pytest.mark.parametrize("change", _changes(), ids=lambda change: change.__name__)
def test_a_changed_model_is_looked_at_anew(change):
    data, net = doubled(random_graph()), GCN(5, 8, 2, 3).double().eval()
    target = GraphModel(net, data).node(4, label=0)
    before = target.game("edges")
    masks = _masks(before)
    was = before(masks)
    change(net)
    game = target.game("edges")
    assert _on_fast_path(game)
    expected = edge_game(net, data, 4, 0, game.players.index, masks)
    assert not torch.allclose(expected, was)
    torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)
    if change.__name__ in ("in_place", "replaced"):  # a game in hand sees it too
        torch.testing.assert_close(before(masks), expected, rtol=1e-9, atol=1e-12)


def test_a_model_that_became_another_kind_loses_its_fast_path():
    net = GCN(5, 8, 2, 3).eval()
    target = GraphModel(net, random_graph()).node(4, label=0)
    assert _on_fast_path(target.game("edges"))
    net.convs[0] = _Odd(5, 8)
    game = target.game("edges")
    assert not _on_fast_path(game)
    masks = _masks(game)
    torch.testing.assert_close(game(masks), _generic(game, masks), rtol=1e-5, atol=1e-6)


def test_training_mode_is_explained_as_eval_mode():
    torch.manual_seed(0)
    net, data = GCN(5, 8, 2, 3, dropout=0.5).double(), doubled(random_graph())
    net.train()
    game = GraphModel(net, data).node(4, label=0).game("edges")
    assert _on_fast_path(game)
    masks = _masks(game)
    found = game(masks)
    assert net.training
    net.eval()
    torch.testing.assert_close(found, edge_game(net, data, 4, 0, game.players.index, masks), rtol=1e-9, atol=1e-12)


def test_explanations_say_which_path_they_took():
    checks = Shapley("edges", seed=0).explain(GraphModel(network("gcn"), random_graph()).node(4)).checks
    assert checks["fast_path"].startswith("GCNConv, agreement ")
