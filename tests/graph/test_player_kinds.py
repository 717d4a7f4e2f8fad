"""Relations, motifs, entries of x and edge features as players: the paper's form on the whole graph, one at a time."""

import networkx as nx
import pytest
import torch
from graph_cases import Typed, doubled, network, random_graph
from reference.shapley import by_pairs, of_masks
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GATConv, GINEConv, RGCNConv, SAGEConv

import explain
from explain import Gradient, Lime, Players, Shapley, Unsupported
from explain.plot import picture


class Relational(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = RGCNConv(5, 8, 3), RGCNConv(8, 3, 3)

    def forward(self, x, edge_index, edge_type):
        return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)


class Attributed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = GINEConv(nn.Linear(5, 5), edge_dim=3)
        self.second = GATConv(5, 3, edge_dim=3)

    def forward(self, x, edge_index, edge_attr):
        return self.second(self.first(x, edge_index, edge_attr).tanh(), edge_index, edge_attr)


def relational():
    data = doubled(random_graph())
    data.edge_type = torch.randint(3, (data.num_edges,), generator=torch.Generator().manual_seed(0))
    return Relational().double().eval(), data


def attributed():
    data = doubled(random_graph())
    data.edge_attr = torch.randn(data.num_edges, 3, generator=torch.Generator().manual_seed(0)).double()
    return Attributed().double().eval(), data


def typed():
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["author"].x, data["paper"].x = torch.randn(4, 3, generator=generator), torch.randn(6, 4, generator=generator)
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 2, 3, 0], [0, 0, 1, 2, 5]])
    data["paper", "cites", "paper"].edge_index = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 1, 2, 4]])
    return Typed().eval(), data


def masks_of(game, count=10):
    return torch.rand(count, len(game.players), generator=torch.Generator().manual_seed(1)) < 0.5


def without(net, data, gone, label, node=4):
    """The logit on the whole graph with these edges taken out."""
    keep = torch.ones(data.num_edges).bool()
    keep[gone] = False
    fields = [data[name][keep] for name in ("edge_type", "edge_attr") if name in data]
    with torch.no_grad():
        return float(net(data.x, data.edge_index[:, keep], *fields)[node, label])


def absent(players, mask):
    gone = [group for group, here in zip(players.groups, mask.tolist(), strict=True) if not here]
    return torch.cat(gone) if gone else torch.zeros(0, dtype=torch.long)


def test_a_relation_is_all_its_edges():
    net, data = relational()
    game = explain.wrap(net, data).node(4, label=1).game("relations")
    players = game.players
    assert players.names == ("relation 0", "relation 1", "relation 2")
    for kind, group in zip(players.index.tolist(), players.groups, strict=True):
        assert (data.edge_type[group] == kind).all()
    masks = masks_of(game)
    expected = [without(net, data, absent(players, mask), 1) for mask in masks]
    assert game(masks).tolist() == pytest.approx(expected, rel=1e-9)


def test_relations_of_a_heterogeneous_graph():
    net, data = typed()
    target = explain.wrap(net, data).node(("paper", 0), label=1)
    why = Shapley("relations").explain(target)
    assert why.players.names == ("author-writes-paper", "paper-cites-paper")
    values = []
    for writes, cites in ((0, 0), (1, 0), (0, 1), (1, 1)):
        edges = dict(data.edge_index_dict)
        for kind, here in zip(edges, (writes, cites), strict=True):
            edges[kind] = edges[kind] if here else edges[kind][:, :0]
        with torch.no_grad():
            values.append(float(net(data.x_dict, edges)["paper"][0, 1]))
    first = (values[1] - values[0] + values[3] - values[2]) / 2
    second = (values[2] - values[0] + values[3] - values[1]) / 2
    assert why.scores.tolist() == pytest.approx([first, second], abs=1e-5)


def test_blocks_are_ring_systems_and_bridges_and_share_no_edge():
    ring = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 5), (5, 3), (5, 6)]
    both = torch.tensor([*ring, *((v, u) for u, v in ring), (6, 6)]).t()
    data = Data(x=torch.randn(7, 5), edge_index=both)
    target = explain.wrap(network("gin", seed=1), data).node(2)
    players = target.players("motifs")
    reached = target.players("edges")
    assert sorted(torch.cat(players.groups).tolist()) == reached.index.tolist()
    sets = {frozenset(both[:, group].flatten().tolist()) for group in players.groups}
    blocks = {frozenset(nodes) for nodes in nx.biconnected_components(nx.Graph(both[:, reached.index].t().tolist()))}
    assert sets - {frozenset({6})} == blocks
    assert "0–1–2" in players.names


def test_motifs_of_ones_own_are_the_edges_among_their_nodes():
    net, data = network("gcn", double=True), doubled(random_graph())
    target = explain.wrap(net, data).node(4, label=1)
    ends = data.edge_index[:, target.players("edges").index]
    first = {int(node) for node in ends[:, 0]}
    game = target.game(target.players("motifs", motifs=[first]))
    edges = [i for i in target.players("edges").index.tolist() if set(data.edge_index[:, i].tolist()) <= first]
    expected = [without(net, data, torch.tensor(edges), 1), without(net, data, torch.zeros(0).long(), 1)]
    assert game(torch.tensor([[False], [True]])).tolist() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="share an edge"):
        target.players("motifs", motifs=[first, first | {4}])
    with pytest.raises(ValueError, match="no edge that can reach"):
        target.players("motifs", motifs=[{23}])


@pytest.mark.parametrize("motifs", [[0, 1], [[0, 1.5]], [{"a"}], [{0, 99}], [{-1, 0}]])
def test_motifs_that_are_no_sets_of_nodes(motifs):
    with pytest.raises((TypeError, ValueError), match="motifs must"):
        explain.wrap(network("gcn"), random_graph()).node(4).players("motifs", motifs=motifs)


def test_a_large_motif_has_a_short_name():
    ring = torch.stack([torch.arange(30), (torch.arange(30) + 1) % 30])
    data = Data(x=torch.randn(30, 5), edge_index=torch.cat([ring, ring.flip(0)], 1))
    players = explain.wrap(network("sgc"), data).node(4).players("motifs")
    assert all(len(name) < 40 for name in players.names)
    whole = explain.wrap(network("sgc"), data).node(4).players("motifs", motifs=[range(30)])
    assert whole.names == ("0–1–2–3–4–5–6–7–… (30 nodes)",)


def test_one_relation_is_a_relation():
    data = HeteroData()
    data["a"].x = torch.randn(3, 4)
    data["a", "to", "a"].edge_index = torch.tensor([[0, 1], [1, 2]])

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = SAGEConv(4, 2)

        def forward(self, x_dict, edge_index_dict):
            return {"a": self.conv(x_dict["a"], edge_index_dict["a", "to", "a"])}

    assert explain.wrap(One(), data).node(("a", 1)).players("relations").names == ("a-to-a",)


def test_an_entry_is_one_number_of_x():
    net, data = network("gat", double=True), doubled(random_graph())
    target = explain.wrap(net, data).node(4, label=1)
    game = target.game("node_features")
    players = game.players
    assert players.index.shape == (len(players), 2)
    assert len(players) == 5 * (len(target.players("nodes")) + 1)  # the explained node's own are among them
    masks = masks_of(game)
    expected = []
    for mask in masks:
        x = data.x.clone()
        node, column = players.index[~mask].unbind(1)
        x[node, column] = 0
        expected.append(float(net(x, data.edge_index)[4, 1].detach()))
    assert game(masks).tolist() == pytest.approx(expected, rel=1e-9)
    assert players.names[0] == f"{int(players.index[0, 0])} feature {int(players.index[0, 1])}"


def test_entries_of_typed_nodes():
    net, data = typed()
    game = explain.wrap(net, data).node(("paper", 0), label=1).game("node_features")
    kinds = list(data.x_dict)
    masks = masks_of(game)
    expected = []
    for mask in masks:
        x = {kind: value.clone() for kind, value in data.x_dict.items()}
        for kind, node, column in game.players.index[~mask].tolist():
            x[kinds[kind]][node, column] = 0
        expected.append(float(net(x, data.edge_index_dict)["paper"][0, 1].detach()))
    assert game(masks).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("baseline", ["zeros", "mean"])
def test_an_edge_feature_is_a_column_on_every_edge(baseline):
    net, data = attributed()
    game = explain.wrap(net, data).node(4, label=1, baseline=baseline).game("edge_features")
    assert game.players.index.tolist() == [0, 1, 2]
    masks = masks_of(game)
    gone = data.edge_attr.mean(0) if baseline == "mean" else torch.zeros(3).double()
    expected = []
    for mask in masks:
        attributes = torch.where(mask, data.edge_attr, gone)
        expected.append(float(net(data.x, data.edge_index, attributes)[4, 1].detach()))
    assert game(masks).tolist() == pytest.approx(expected, rel=1e-9)
    assert game.checks["removal"] == "features"


def test_an_edge_weight_is_an_edge_feature_too():
    from torch_geometric.nn import GCNConv

    data = doubled(random_graph())
    data.edge_weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0)).double()
    net = GCNConv(5, 3).double()
    model = explain.wrap(net, data, inputs={"edge_weight": "edge_weight"})
    game = model.node(4, label=0).game("edge_features")
    expected = float(net(data.x, data.edge_index, 0 * data.edge_weight)[4, 0].detach())
    assert game.ends()[0] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["relations", "motifs", "node_features", "edge_features"])
def test_exact_values_are_those_of_the_definition_and_batches_do_not_matter(kind):
    net, data = relational() if kind == "relations" else attributed()
    model = explain.wrap(net, data)
    players = model.node(4, label=1).players(kind)
    if len(players) > 6:
        players = Players(kind, players.index[:6], groups=players.groups and players.groups[:6])
    games = [model.node(4, label=1, batch_size=size).game(players) for size in (None, 1)]
    masks = masks_of(games[0])
    assert games[0](masks).tolist() == pytest.approx(games[1](masks).tolist(), rel=1e-9)
    why = Shapley(players).explain(model.node(4, label=1))
    assert why.scores.tolist() == pytest.approx(
        by_pairs(of_masks(games[0], len(players)), len(players)).tolist(), abs=1e-9
    )
    assert Lime(players, samples=64, seed=0).explain(model.node(4, label=1)).value == pytest.approx(why.value)


@pytest.mark.parametrize("kind", ["relations", "motifs", "node_features"])
def test_gradients_close_the_gap_of_messages_and_entries(kind):
    net, data = relational() if kind == "relations" else (network("gin", double=True), doubled(random_graph()))
    why = Gradient(kind, steps=400).explain(explain.wrap(net, data).node(4, label=1))
    assert why.checks["completeness_gap"] < 0.02
    assert why.checks["removal"] == ("features" if kind == "node_features" else "message")


def test_what_cannot_play_says_so():
    net, data = network("gcn"), random_graph()
    target = explain.wrap(net, data).node(4)
    for kind, message in (("relations", "typed edges"), ("edge_features", "reads no"), ("atoms", "graph players are")):
        with pytest.raises(ValueError, match=message):
            target.players(kind)
    with pytest.raises(Unsupported, match="edge_attr"):
        Gradient("edge_features").explain(explain.wrap(*attributed()).node(4))
    with pytest.raises(Unsupported, match="keeps every edge"):
        explain.wrap(*relational()).node(4, removal="features").game("relations")


@pytest.mark.parametrize("kind", ["relations", "motifs", "node_features", "edge_features"])
def test_pictures_tables_and_files(kind, tmp_path):
    net, data = relational() if kind == "relations" else attributed()
    why = Shapley(kind, estimator="permutation", samples=2000, seed=0).explain(explain.wrap(net, data).node(4))
    assert picture(why).get_title(loc="left") or picture(why).get_title()
    why.save(tmp_path / "why.safetensors")
    again = explain.Explanation.load(tmp_path / "why.safetensors")
    assert again.players.kind == kind
    assert torch.equal(again.scores, why.scores)
    if kind in ("relations", "motifs"):
        drawn = why.to_networkx()
        scored = [edge["player"] for _, _, edge in drawn.edges(data=True) if "player" in edge]
        assert set(scored) == set(why.players.names)
        assert len(scored) == sum(map(len, why.players.groups))
