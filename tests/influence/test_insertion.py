"""Edges that are not there: what adding them to the graph that was trained on would do to a number."""

import copy

import pytest
import torch
from graph_cases import DECAY, doubled, graph_ridge, random_graph, ridge_target, squared
from torch_geometric.nn import GCNConv
from torch_geometric.utils import to_undirected

import explain
from explain import Influence, Shapley
from explain.types import Unsupported


def absent(data, count):
    """So many pairs without an edge, ``[2, count]``, from all over a graph that has both directions of each."""
    here = {*map(tuple, data.edge_index.T.tolist())}
    nodes = range(data.num_nodes)
    found = [(u, v) for u in nodes for v in nodes if u < v and (u, v) not in here]
    return torch.tensor(found[:: len(found) // count][:count]).T


def with_edges(data, added):
    made = copy.copy(data)
    made.edge_index = torch.cat([data.edge_index, added, added.flip(0)], 1)
    return made


@pytest.fixture(scope="module")
def target():
    return ridge_target()


def risen(target, added, gone=None):
    """What training again on the graph with these edges, and without those, does to the number, in closed form."""
    data = with_edges(target.model.data if gone is None else without_edges(target.model.data, gone), added)
    again = graph_ridge(data, int(data.train_mask.sum()))
    return float(again(data.x, data.edge_index)[4, 0].detach()) - target.value()


def test_a_newton_step_is_training_again_on_the_graph_with_the_edge(target):
    added = absent(target.model.data, 12)
    found = Influence(add=added, newton=True, seed=0).explain(target)
    expected = torch.tensor([risen(target, added[:, [i]]) for i in range(12)], dtype=torch.float64)
    torch.testing.assert_close(found.scores, expected, rtol=0, atol=1e-9)
    assert found.players.names[0] == "{}–{}".format(*added[:, 0].tolist())
    first = Influence(add=added, seed=0).explain(target)
    torch.testing.assert_close(found.parts["first_order"], first.parts["learned"])
    torch.testing.assert_close(first.scores, first.parts["structural"] + first.parts["learned"])


def test_groups_are_one_player_each(target):
    added = absent(target.model.data, 9)
    groups = [added[:, :3], added[:, 3:4], added[:, 4:]]
    found = Influence(add=groups, newton=True, seed=0).explain(target)
    expected = torch.tensor([risen(target, group) for group in groups], dtype=torch.float64)
    torch.testing.assert_close(found.scores, expected, rtol=0, atol=1e-9)


def present(data, count):
    """So many pairs with an edge, ``[2, count]``, from all over the graph."""
    pairs = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    return pairs[:, :: pairs.size(1) // count][:, :count]


def without_edges(data, gone):
    made = copy.copy(data)
    u, v = data.edge_index[:, None]
    here = ((u == gone[0][:, None]) & (v == gone[1][:, None]) | (u == gone[1][:, None]) & (v == gone[0][:, None])).any(
        0
    )
    made.edge_index = data.edge_index[:, ~here]
    assert made.num_edges == data.num_edges - 2 * gone.size(1)
    return made


@pytest.mark.parametrize("exact", [{"newton": True}, {"proximal": 50}])
def test_edits_that_add_and_remove_and_share_edges(target, exact):
    data = target.model.data
    added, gone = absent(data, 6), present(data, 6)
    add, remove = [added[:, :4], added[:, 2:], added[:, :1]], [gone[:, :2], gone[:, 1:5], gone[:, 5:]]
    found = Influence(add=add, remove=remove, seed=0, **exact).explain(target)
    rises = [risen(target, more, less) for more, less in zip(add, remove, strict=True)]
    torch.testing.assert_close(found.scores, torch.tensor(rises, dtype=torch.float64), rtol=0, atol=1e-8)
    u, v, a, b = *added[:, 0].tolist(), *gone[:, 5].tolist()
    assert found.players.names[2] == f"+ {u}–{v} − {a}–{b}"
    first = Influence(add=add, remove=remove, seed=0).explain(target)
    torch.testing.assert_close(found.parts["first_order"], first.parts["learned"])
    assert (first.scores - found.scores).abs().max() > 1e-3  # five edges at once are more than first order tells


def test_edges_by_their_ends_are_the_players_that_own_them(target):
    pairs = target.players("edges", undirected=True, all=True)
    by_ends = Influence(remove=pairs.geometry["ends"], seed=0).explain(target)
    torch.testing.assert_close(by_ends.scores, Influence(remove=pairs, seed=0).explain(target).scores)
    assert by_ends.players.names == tuple(f"− {name}" for name in pairs.names)
    one_way = target.players("edge_edits", remove=pairs.geometry["ends"], undirected=False)
    directed = target.players("edges", all=True)
    kept = [directed.names.index("→".join(map(str, pair))) for pair in pairs.geometry["ends"].T.tolist()]
    torch.testing.assert_close(
        Influence(remove=one_way, seed=0).explain(target).scores,
        Influence(remove=directed, seed=0).explain(target).scores[kept],
    )


def test_the_number_rises_by_what_it_would_fall_without_the_edge_again(target):
    data, added = target.model.data, absent(target.model.data, 1)
    fuller = explain.wrap(target.module, with_edges(data, added), weight_decay=DECAY, loss=squared).node(4, label=0)
    rises = Influence(add=added, seed=0).explain(target).parts["structural"]
    pairs = fuller.players("edges", undirected=True, all=True)
    falls = Influence(remove=pairs, seed=0).explain(fuller).parts["structural"]
    assert float(rises) == pytest.approx(
        float(falls[pairs.names.index("{}–{}".format(*added[:, 0].tolist()))]), abs=1e-12
    )


class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = GCNConv(5, 4), GCNConv(4, 3)

    def forward(self, x, edge_index, edge_weight):
        return self.last(self.first(x, edge_index, edge_weight).tanh(), edge_index, edge_weight)


def weighted(**options):
    data = doubled(random_graph(nodes=12, edges=18))
    data.edge_index = to_undirected(data.edge_index)
    data.edge_weight = torch.rand(data.num_edges, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    return explain.wrap(Weighted().double().eval(), data, weight_decay=0.01).node(3, **options)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_both_directions_with_their_weight_where_the_graph_has_both():
    asked = weighted(label=1)
    data, pairs = asked.model.data, absent(asked.model.data, 5)
    weights = torch.linspace(0.2, 1.0, 5, dtype=torch.float64)
    players = asked.players("absent_edges", ends=pairs, edge_weight=weights)
    found = Influence(add=players, curvature="ggn", damping=1e-3, seed=0).explain(asked)
    assert found.target["added"] == "both directions"
    assert found.players.names[0] == "{}–{}".format(*pairs[:, 0].tolist())
    for i in range(5):
        both = torch.cat([pairs[:, [i]], pairs[:, [i]].flip(0)], 1)
        with torch.no_grad():
            there = asked.module(
                data.x, torch.cat([data.edge_index, both], 1), torch.cat([data.edge_weight, weights[[i, i]]])
            )
        assert float(found.parts["structural"][i]) == pytest.approx(float(there[3, 1]) - found.value, abs=1e-10)
    one_way = asked.players("absent_edges", ends=pairs, undirected=False, edge_weight=weights)
    assert Influence(add=one_way, curvature="ggn", damping=1e-3).explain(asked).target["added"] == "one direction"


def test_what_cannot_be_added_is_said(target):
    data, pair = target.model.data, absent(target.model.data, 2)
    for add, match in (
        (data.edge_index[:, :1], "is in the graph: ask what it is worth with remove="),
        ([pair[:, [0, 0]]], "is added twice by one player"),
        (torch.tensor([[0], [16]]), "from 0 to 15, got 0 to 16"),
        (torch.zeros(2, 0, dtype=torch.long), "at least one"),
    ):
        with pytest.raises(ValueError, match=match):
            Influence(add=add).explain(target)
    with pytest.raises(TypeError, match="whole numbers"):
        Influence(add=pair.double()).explain(target)
    with pytest.raises(ValueError, match="have edge_weight: give target"):
        Influence(add=torch.tensor([[0], [0]])).explain(weighted())
    with pytest.raises(ValueError, match="add= beside remove= takes the ends of edges in both"):
        Influence(add=pair, remove="edges")
    with pytest.raises(ValueError, match="need as many of each, got 2 and 1"):
        Influence(add=pair, remove=data.edge_index[:, :1]).explain(target)
    with pytest.raises(ValueError, match="is not in the graph: ask what it would be worth with add="):
        Influence(remove=pair).explain(target)
    with pytest.raises(ValueError, match="is removed twice by one player"):
        Influence(remove=[data.edge_index[:, [0, 0]]]).explain(target)
    with pytest.raises(ValueError, match="neither to add nor to remove"):
        target.players("edge_edits")
    with pytest.raises(ValueError, match="Players or ends of edges, got int"):
        Influence(remove=3)
    with pytest.raises(ValueError, match="got edges, which are: say remove="):
        Influence(add=target.players("edges"))
    with pytest.raises(ValueError, match="got edges that are not: say add="):
        Influence(remove=target.players("absent_edges", ends=pair))
    with pytest.raises(Unsupported, match="keeps every edge and so adds none"):
        Influence(add=pair).explain(target.model.node(4, label=0, removal="features"))
    with pytest.raises(Unsupported, match="plays with edges"):
        Shapley(target.players("absent_edges", ends=pair)).explain(target)


def test_it_is_drawn_saved_and_read(target, tmp_path):
    found = Influence(add=absent(target.model.data, 4), seed=0).explain(target)
    found.plot()
    found.save(tmp_path / "added.safetensors")
    assert explain.Explanation.load(tmp_path / "added.safetensors").players.names == found.players.names
