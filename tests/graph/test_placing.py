"""Where coalitions are evaluated, what is left out of them, and every coalition at once."""

import pytest
import torch
from graph_cases import LOCAL, doubled, network, random_graph
from reference.graph import edge_game, node_game
from torch import nn
from torch_geometric.data import Data
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GAT, GCN, GCNConv, GraphNorm, SAGEConv

from explain import Shapley
from explain.graph.games.trimming import distinct, parts, relevant
from explain.graph.model import GraphModel
from explain.graph.place import placing
from explain.graph.tensors.cuts import hop_distance
from explain.shapley.exact import coalitions, table_of
from explain.types import Players


def _graph(nodes=150, edges=170):
    return doubled(random_graph(nodes, edges))


def _generic(target, kind):
    """The game without the fast path."""
    target.model.findings.program = "not asked for"
    return target.game(kind)


def _asked(model, monkeypatch):
    """Nodes of every graph that the model is asked about from now on."""
    sizes, outputs = [], model.outputs

    def counted(made, *rest):
        sizes.append(made.structure.num_nodes // made.count)
        return outputs(made, *rest)

    monkeypatch.setattr(model, "outputs", counted)
    return sizes


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(placing, "LARGE", 10)


@pytest.mark.parametrize("name", LOCAL)
def test_on_a_large_graph_the_whole_is_never_run(small_is_large, monkeypatch, name):
    data, net = _graph(), network(name, double=True)
    model = GraphModel(net, data)
    sizes = _asked(model, monkeypatch)
    target = model.node(4, label=1)
    game = target.game("edges")
    assert game.checks["cut_against"] == "cut two hops larger"
    masks = torch.rand(6, len(game.players), generator=torch.Generator().manual_seed(0)) < 0.6
    expected = edge_game(net, data, 4, 1, game.players.index, masks)
    torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)
    assert target.value() == pytest.approx(float(net(data.x, data.edge_index)[4, 1].detach()), rel=1e-9)
    assert max(sizes) < data.num_nodes


class _Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = GCNConv(5, 3), GraphNorm(3)

    def forward(self, x, edge_index):
        return self.norm(self.conv(x, edge_index))


def test_a_large_graph_that_is_seen_as_a_whole_is_run_as_a_whole(small_is_large):
    torch.manual_seed(0)
    data, net = _graph(40, 60), _Normed().double().eval()
    target = GraphModel(net, data).node(4, label=1)
    assert target.place.checks["computation"] == "whole graph"
    assert target.value() == pytest.approx(float(net(data.x, data.edge_index)[4, 1].detach()))


def test_later_targets_share_what_the_first_one_learned(monkeypatch):
    data, net = _graph(), network("gcn", double=True)
    model = GraphModel(net, data)
    assert model.node(4).place.checks["cut_against"] == "whole graph"
    sizes = _asked(model, monkeypatch)
    target = model.node(7, label=0)
    assert sizes == []  # its answer is known from the first
    game = target.game("edges")
    assert game.checks["cut_against"] == "cut two hops larger"
    assert data.num_nodes not in sizes
    masks = torch.rand(5, len(game.players), generator=torch.Generator().manual_seed(0)) < 0.6
    expected = edge_game(net, data, 7, 0, game.players.index, masks)
    torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)


def test_a_changed_model_forgets_what_was_shared():
    data, net = _graph(), network("gcn", double=True)
    model = GraphModel(net, data)
    first = model.node(4, label=0).value()
    with torch.no_grad():
        net.convs[1].bias.add_(1)
    assert model.node(4, label=0).value() == pytest.approx(first + 1)
    assert float(model.node(4, label=0).answer[0]) == pytest.approx(first + 1)


def test_players_do_not_hang_on_what_was_asked_before():
    data = KarateClub()[0]
    torch.manual_seed(0)
    net = GAT(34, 8, 3, 4).eval()  # three layers: no node lies farther from the first ones
    model = GraphModel(net, data)
    before = [model.node(node).players("edges").index for node in range(2)]
    model.node(16).players("edges")  # it sees a part of the graph only
    for node in range(2):
        now = model.node(node).players("edges").index
        alone = GraphModel(net, data).node(node).players("edges").index
        assert now.tolist() == before[node].tolist() == alone.tolist()
        assert len(now) < data.num_edges


def test_hops_are_counted_as_breadth_first_search_counts_them():
    data = random_graph(undirected=False)
    graph = GraphModel(network("gcn"), data).whole_structure
    for direction in ("in", "out", "both"):
        expected = torch.full((data.num_nodes,), torch.iinfo(torch.int32).max)
        expected[3] = 0
        for hop in range(data.num_nodes):
            for u, v in data.edge_index.t().tolist():
                for near, far in {"in": [(v, u)], "out": [(u, v)], "both": [(u, v), (v, u)]}[direction]:
                    if expected[near] == hop:
                        expected[far] = min(int(expected[far]), hop + 1)
        found = hop_distance(graph, torch.tensor([3]), direction)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["edges", "nodes"])
@pytest.mark.parametrize("name", LOCAL)
def test_trimmed_copies_answer_as_complete_ones(name, kind):
    data, net = _graph(40, 50), network(name, double=True)  # sparse: nodes lie farther than the receptive field
    game = _generic(GraphModel(net, data).node(4, label=2), kind)
    assert game.checks["fast_path"] == "no: not asked for"
    masks = torch.rand(40, len(game.players), generator=torch.Generator().manual_seed(0)) < 0.4
    paper = {"edges": edge_game, "nodes": node_game}[kind]
    expected = paper(net, data, 4, 2, game.players.index, masks)
    torch.testing.assert_close(game(masks), expected, rtol=1e-9, atol=1e-12)
    # the layers that normalise by degree look at the edges into the farthest nodes, the others do not
    assert game.evaluate.trimming == ("weighted" if name in ("gcn", "sgc", "appnp") else "degrees")


def test_coalitions_alike_in_what_matters_are_asked_once():
    """A path 2 -> 1 -> 0: without 1 -> 0 the other edge does not matter."""
    torch.manual_seed(0)
    data = Data(x=torch.randn(5, 5), edge_index=torch.tensor([[1, 2, 3, 4], [0, 1, 2, 3]]))
    net = nn.ModuleList([SAGEConv(5, 4), SAGEConv(4, 3)])

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = net

        def forward(self, x, edge_index):
            return self.layers[1](self.layers[0](x, edge_index).relu(), edge_index)

    target = GraphModel(Two().eval(), data).node(0, label=0)
    place = target.place
    keep = torch.ones(4, place.graph.num_edges, dtype=torch.bool)
    first, second = ((place.edges == e).nonzero().item() for e in (0, 1))
    keep[1, first] = keep[2, second] = False
    keep[3, [first, second]] = False
    kinds, which = distinct(relevant(place, keep))
    assert len(kinds) == 3
    assert which[1] == which[3]


def test_parts_cover_all_copies_within_the_budget():
    sizes = torch.tensor([5, 1, 9, 3, 3])
    groups = parts(sizes, 9)
    assert torch.cat(groups).sort().values.tolist() == [0, 1, 2, 3, 4]
    assert len(groups) == 3


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("kind", "removal"), [("edges", "delete"), ("edges", "message"), ("nodes", "delete")])
def test_the_table_is_the_game_at_every_coalition(kind, removal, fast):
    torch.manual_seed(0)
    data, net = doubled(random_graph(24, 15)), GCN(5, 8, 2, 3).double().eval()
    target = GraphModel(net, data).node(4, label=0, removal=removal)
    who = target.players(kind)
    who = Players(kind, who.index[:12])
    game = target.game(who) if fast else _generic(target, who)
    players = len(game.players)
    assert players >= 4
    assert (game.table is None) == (not fast and removal == "message")
    expected = game(coalitions(players, 0, 2**players))
    torch.testing.assert_close(table_of(game, False), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", ["gcn", "gat", "sage"])
def test_in_the_table_who_only_counts_in_a_degree_counts(name, fast):
    target = GraphModel(network(name, double=True), doubled(random_graph(nodes=12, edges=20))).node(2, label=0)
    beyond = [e for e in range(target.place.graph.num_edges) if not target.place.reachable[e]]
    edges = target.place.edges[beyond]  # into nodes at the border of the receptive field
    own = target.players("edges", degrees=False).index
    for players in (target.players("nodes"), Players("edges", torch.cat([own[:6], edges[edges >= 0][:5]]))):
        game = target.game(players) if fast else _generic(target, players)
        assert game.table is not None
        expected = game(coalitions(len(players), 0, 2 ** len(players)))
        torch.testing.assert_close(table_of(game, False), expected, rtol=1e-9, atol=1e-12)


def test_pairs_of_edges_in_the_table():
    data, net = doubled(random_graph(24, 15)), network("sage", double=True)
    target = GraphModel(net, data).node(4, label=0)
    game = target.game(target.players("edges", undirected=True))
    expected = game(coalitions(len(game.players), 0, 2 ** len(game.players)))
    torch.testing.assert_close(table_of(game, False), expected, rtol=1e-9, atol=1e-12)


def test_exact_values_count_every_coalition():
    data = doubled(random_graph(24, 15))
    why = Shapley("edges", estimator="exact").explain(GraphModel(network("gcn", double=True), data).node(4))
    assert why.checks["coalitions"] == 2 ** len(why.scores)
    assert why.checks["efficiency_gap"] < 1e-12
