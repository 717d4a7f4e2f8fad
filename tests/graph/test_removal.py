"""Nodes, edges and features taken away from the graph of the training loss: one by one, and many in one pass."""

import pytest
import torch
import torch.nn.functional as F
from graph_cases import doubled, network, random_graph
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, GCNConv, HeteroConv, SAGEConv, global_mean_pool

from explain.graph.model import GraphModel
from explain.graph.training.edited_loss import GraphRemoval
from explain.types import Edits, Players, Unsupported

DECAY = 0.01


def removal(target, kind, **options):
    return target.objective(remove=target.players(kind, all=True, **options))


def without(data, **gone):
    """The data after an edit, by hand: ``node``, ``edges`` (columns) or ``feature``."""
    made = Data(**data.to_dict())
    if "node" in gone:
        made.edge_index = data.edge_index[:, (data.edge_index != gone["node"]).all(0)]
        made.x = data.x.clone()
        made.x[gone["node"]] = 0
    if "edges" in gone:
        kept = torch.ones(data.num_edges, dtype=torch.bool)
        kept[gone["edges"]] = False
        made.edge_index = data.edge_index[:, kept]
    if "feature" in gone:
        made.x = data.x.clone()
        made.x[:, gone["feature"]] = 0
    return made


def losses_by_hand(net, data, train, gone=None):
    out = net(data.x, data.edge_index)
    losses = F.cross_entropy(out[train], data.y[train], reduction="none")
    return losses * (train != gone) if gone is not None else losses


def changes(objective, players):
    """``L' - L`` of each player, from the pieces."""
    total = torch.zeros(len(objective.players), dtype=torch.float64)
    for change in objective.loss_changes(players):
        total.index_add_(0, change.players, change.of(objective.params).detach().double())
    return total[players]


def check_against_one_by_one(objective, tolerance=1e-12):
    """Many edits in one pass are the same as each by itself on the whole graph."""
    everyone, (batch,) = torch.arange(len(objective.players)), objective.batches()
    before = objective.train_loss(objective.params, batch)
    edited = [objective.edited(player) for player in everyone.tolist()]
    expected = torch.stack([(one.train_loss(one.params, batch) - before).sum() / objective.size for one in edited])
    torch.testing.assert_close(changes(objective, everyone), expected.detach().double(), rtol=0, atol=tolerance)
    numbers = torch.stack([one.measurement(one.params) for one in edited]).detach()
    found = objective.numbers(objective.params, everyone).detach()
    moving = objective.moving()
    torch.testing.assert_close(found[moving], numbers[moving], rtol=0, atol=tolerance)
    base = objective.measurement(objective.params).detach()
    torch.testing.assert_close(numbers[~moving], base.expand(int((~moving).sum())), rtol=0, atol=tolerance)
    return expected.detach(), numbers


class Ending(nn.Module):
    """A graph network that takes the softmax itself."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, edge_index):
        return self.net(x, edge_index).softmax(1)


def test_edits_do_not_ask_whether_the_softmax_is_in_the_network_or_in_the_loss():
    data, net = doubled(random_graph(edges=30)), network("gcn", double=True)
    objectives = [removal(GraphModel(each, data).node(4, label=0), "nodes") for each in (net, Ending(net))]
    within, inside = (check_against_one_by_one(objective)[0] for objective in objectives)
    torch.testing.assert_close(inside, within)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gcn", "nodes"), ("gat", "nodes"), ("appnp", "nodes"), ("sage", "edges"), ("gin", "edges"), ("sgc", "features")],
)
def test_many_edits_are_each_edit(name, kind):
    data = doubled(random_graph(edges=30))
    objective = removal(GraphModel(network(name, double=True), data, weight_decay=DECAY).node(4, label=0), kind)
    assert isinstance(objective, Edits)
    assert not objective.local
    check_against_one_by_one(objective)


@pytest.mark.parametrize("kind", ["nodes", "edges", "features"])
def test_the_edited_loss_is_that_of_the_edited_data(kind):
    data = doubled(random_graph())
    data.edge_index = torch.cat([data.edge_index, data.edge_index[:, :1], torch.tensor([[2, 4], [2, 4]])], 1)
    net, train = network("gcn", double=True), data.train_mask.nonzero().view(-1)
    objective = removal(GraphModel(net, data, weight_decay=DECAY).node(4, label=0), kind)
    (batch,) = objective.batches()
    for player, atom in list(enumerate(objective.players.index.tolist()))[:: 5 if kind == "edges" else 1]:
        other = without(data, **{{"nodes": "node", "edges": "edges", "features": "feature"}[kind]: atom})
        edited = objective.edited(player)
        expected = losses_by_hand(net, other, train, atom if kind == "nodes" else None)
        torch.testing.assert_close(edited.train_loss(edited.params, batch), expected)
        number = net(other.x, other.edge_index)[4, 0]
        torch.testing.assert_close(edited.measurement(edited.params), number)
        assert edited.size == len(train)


def test_players_are_all_of_the_graph_but_the_explained_node():
    data = random_graph()
    target = GraphModel(network("gcn"), data).node(4, label=0)
    nodes, edges, features = (target.objective(remove=kind).players for kind in ("nodes", "edges", "features"))
    assert nodes.index.tolist() == [node for node in range(24) if node != 4]
    assert edges.index.tolist() == list(range(data.num_edges))
    assert features.index.tolist() == list(range(5))
    pairs = target.players("edges", all=True, undirected=True)
    assert 2 * len(pairs) == data.num_edges
    assert {"edge_index", "focus", "ends"} <= set(edges.geometry)


def test_a_pair_is_both_directions():
    data = doubled(random_graph())
    net = network("gcn", double=True)
    objective = removal(GraphModel(net, data).node(4, label=0), "edges", undirected=True)
    check_against_one_by_one(objective)
    (batch,), train = objective.batches(), data.train_mask.nonzero().view(-1)
    for player in (0, 7):
        other = without(data, edges=objective.players.groups[player])
        edited = objective.edited(player)
        torch.testing.assert_close(edited.train_loss(edited.params, batch), losses_by_hand(net, other, train))


def test_what_reaches_neither_loss_nor_number_is_not_evaluated():
    data = doubled(random_graph())
    data.train_mask = torch.zeros(24, dtype=torch.bool)
    data.train_mask[[1, 5]] = True
    line = torch.stack([torch.arange(23), torch.arange(1, 24)])
    data.edge_index = torch.cat([line, line.flip(0)], 1)
    objective = removal(GraphModel(network("sage", double=True), data).node(4, label=0), "nodes")
    evaluated = torch.cat([change.players for change in objective.loss_changes(torch.arange(23))]).unique()
    nodes = objective.players.index
    assert nodes[objective.moving()].tolist() == [1, 2, 3, 5, 6, 7]  # two hops, and whose edges end there
    assert set(nodes[evaluated].tolist()) <= {0, 1, 2, 3, 5, 6, 7, 8}
    check_against_one_by_one(objective)


class Global(nn.Module):
    """Every node is seen by every other, in a mean."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(5, 3)

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index)
        return h - h.mean(0)


@pytest.mark.parametrize("net", [lambda: network("gcn", double=True), lambda: Global().double()], ids=["local", "all"])
def test_a_row_that_stays_though_its_node_is_gone_is_said_where_it_is_seen(net):
    torch.manual_seed(0)
    data, net = doubled(random_graph(edges=30)), net()
    target = GraphModel(net, data).node(4, label=0)
    objective = removal(target, "nodes")
    gone = int(objective.players.index.view(-1)[-1])
    kept = torch.arange(24) != gone
    smaller = data.subgraph(kept)
    without = objective.edited(len(objective.players) - 1)
    found = float(without.measurement(without.params).detach())
    seen = isinstance(net, Global)
    assert (found == pytest.approx(float(net(smaller.x, smaller.edge_index)[4, 0].detach()), rel=1e-9)) is not seen
    assert ("nodes" in target.told.get("assumed", {})) is seen
    replaced = GraphModel(net, data).node(4, label=0, removal="features")
    removal(replaced, "nodes")
    assert "nodes" not in replaced.told.get("assumed", {})


def test_the_parts_of_the_graph_are_what_the_model_needs():
    data = doubled(random_graph(edges=30))
    local = removal(GraphModel(network("gcn", double=True), data).node(4, label=0), "nodes").sites
    assert local.hops == 2
    assert len(local.apart) == int(data.train_mask.sum())

    torch.manual_seed(0)
    spread = removal(GraphModel(Global().double(), data).node(4, label=0), "edges")
    assert spread.sites.hops is None
    assert spread.moving().all()
    check_against_one_by_one(spread)


class Link(nn.Module):
    def __init__(self):
        super().__init__()
        self.gcn = GCN(5, 8, 2, 4)

    def encode(self, x, edge_index):
        return self.gcn(x, edge_index)

    def decode(self, z, pairs):
        return (z[pairs[0]] * z[pairs[1]]).sum(1)


def test_a_node_takes_its_training_pairs_along():
    torch.manual_seed(0)
    data, net = doubled(random_graph()), Link().double().eval()
    pairs, labels = torch.tensor([[0, 1, 2, 0], [3, 4, 5, 1]]), torch.tensor([1, 0, 1, 0]).double()
    target = GraphModel(net, data, task="edge").edge(6, 7, label=1)
    objective = target.objective((pairs, labels), remove="nodes")
    expected, _ = check_against_one_by_one(objective)
    assert expected.count_nonzero() > 4
    player = objective.players.index.tolist().index(1)
    edited, other = objective.edited(player), without(data, node=1)
    losses = F.binary_cross_entropy_with_logits(
        net.decode(net.encode(other.x, other.edge_index), pairs), labels, reduction="none"
    )
    kept = torch.tensor([True, False, True, False])  # pairs 1-4 and 0-1 go with node 1
    torch.testing.assert_close(edited.train_loss(edited.params, torch.arange(4)), losses * kept)
    check_against_one_by_one(target.objective((pairs, labels), remove="edges"))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = GCNConv(5, 4), nn.Linear(4, 2)

    def forward(self, x, edge_index, batch):
        return self.out(global_mean_pool(self.conv(x, edge_index).tanh(), batch))


@pytest.mark.parametrize("kind", ["nodes", "edges", "features"])
def test_one_graph_of_many(kind):
    torch.manual_seed(0)
    graphs = [doubled(random_graph(nodes=8, edges=9, seed=s)) for s in range(4)]
    for graph in graphs:
        graph.y, graph.train_mask = torch.randint(2, (1,)), None
    net = Pooled().double()
    target = GraphModel(net, graphs).graph(1, label=1)
    objective = target.objective(remove=kind)
    check_against_one_by_one(objective)
    if kind == "nodes":  # out of the mean, too
        kept = torch.tensor([node for node in range(8) if node != 2])
        other = graphs[1].subgraph(kept)
        expected = net(other.x, other.edge_index, torch.zeros(7, dtype=torch.long))[0, 1]
        torch.testing.assert_close(objective.edited(2).measurement(objective.params), expected)
    fewer = changes(target.objective(graphs[:3], remove=kind), torch.arange(4))
    torch.testing.assert_close(fewer, 4 / 3 * changes(objective, torch.arange(4)))
    untrained = target.objective(graphs[2:], remove=kind)  # the explained graph is not among them
    assert not list(untrained.loss_changes(torch.arange(len(untrained.players))))
    assert (
        untrained.edited(0)
        .train_loss(untrained.params, torch.arange(2))
        .equal(untrained.train_loss(untrained.params, torch.arange(2)))
    )


@pytest.mark.parametrize("kind", ["nodes", "edges", "relations", "node_features"])
def test_types_of_nodes(kind):
    torch.manual_seed(0)
    data = HeteroData()
    data["author"].x, data["paper"].x = torch.randn(5, 3).double(), torch.randn(7, 4).double()
    data["paper"].y, data["paper"].train_mask = torch.randint(2, (7,)), torch.arange(7) < 4
    writes = torch.stack([torch.randint(5, (12,)), torch.randint(7, (12,))])
    data["author", "writes", "paper"].edge_index = writes
    data["paper", "by", "author"].edge_index = writes.flip(0)

    class Typed(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [{"author": 3, "paper": 4}, {"author": 4, "paper": 4}]
            self.convs = nn.ModuleList(
                HeteroConv({(u, r, v): SAGEConv((size[u], size[v]), 4) for u, r, v in data.edge_types})
                for size in sizes
            )

        def forward(self, x_dict, edge_index_dict):
            for conv in self.convs:
                x_dict = {name: x.tanh() for name, x in conv(x_dict, edge_index_dict).items()}
            return x_dict["paper"][:, :2]

    target = GraphModel(Typed().double(), data).node(("paper", 5), label=0)
    objective = target.objective(remove=kind)
    expected, numbers = check_against_one_by_one(objective)
    assert expected.count_nonzero() > 3 or kind == "relations"
    assert expected.any()
    assert len(numbers.unique()) >= min(4, len(objective.players))
    assert len(objective.players) == {"nodes": 11, "edges": 24, "relations": 2, "node_features": 43}[kind]
    assert target.objective().players.names == ("paper 0", "paper 1", "paper 2", "paper 3")


def test_a_dense_model_and_layers_that_cache():
    data = doubled(random_graph())

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x, adj):
            spread = adj.T / adj.sum(0).clamp_min(1)[:, None]
            return self.second(spread @ self.first(x).tanh())

    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(5, 3, cached=True)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    torch.manual_seed(0)
    for net in (Dense().double(), Cached().double()):
        with torch.no_grad():
            net(data.x, torch.zeros(24, 24).double() if isinstance(net, Dense) else data.edge_index)
        objective = removal(GraphModel(net, data).node(4, label=0), "edges")
        expected, _ = check_against_one_by_one(objective)
        assert expected.count_nonzero() > 5


@pytest.mark.parametrize("removal_of", ["message", "features"])
def test_other_kinds_of_absence(removal_of):
    data = doubled(random_graph())
    net = network("gcn", double=True)
    target = GraphModel(net, data).node(4, label=0, removal=removal_of, baseline="mean")
    objective = target.objective(remove="nodes")
    check_against_one_by_one(objective)
    if removal_of == "features":
        player, train = 3, data.train_mask.nonzero().view(-1)
        node = int(objective.players.index[player])
        other = Data(**data.to_dict())
        other.x = data.x.clone()
        other.x[node] = data.x.mean(0)
        edited = objective.edited(player)
        expected = losses_by_hand(net, other, train, node)
        torch.testing.assert_close(edited.train_loss(edited.params, torch.arange(len(train))), expected)


def test_the_batch_size_changes_nothing():
    data = doubled(random_graph())
    net, everyone = network("gcn", double=True), torch.arange(3, 9)
    targets = [GraphModel(net, data).node(4, label=0, batch_size=size) for size in (None, 1, 5)]
    for kind in ("nodes", "edges"):
        whole, *parts = (changes(target.objective(remove=kind), everyone) for target in targets)
        for part in parts:
            torch.testing.assert_close(part, whole, rtol=0, atol=1e-13)


def test_what_cannot_be_removed():
    data = random_graph()
    model = GraphModel(network("gcn"), data)
    target = model.node(4, label=0)
    with pytest.raises(ValueError, match='remove must be "labels", "nodes", "edges", "features", "node_f'):
        target.objective(remove="walls")
    with pytest.raises(ValueError, match="outside this target's computation graph"):
        target.objective(remove=Players("nodes", torch.tensor([4])))
    with pytest.raises(ValueError, match="two players own the same one"):
        target.objective(remove=Players("edges", torch.tensor([4, 4])))
    with pytest.raises(Unsupported, match="what can be removed from a graph"):
        target.objective(remove=Players("patches", torch.tensor([4])))
    with pytest.raises(Unsupported, match="keeps every edge"):
        model.node(4, label=0, removal="features").objective(remove="edges")
    with pytest.raises(ValueError, match="training needs one"):
        model.node(4, label=0, baseline="marginal").objective(remove="nodes")
    objective = target.objective(remove="nodes")
    assert isinstance(objective, GraphRemoval)
    with pytest.raises(IndexError, match="player must be from 0 to 22, got 23"):
        objective.edited(23)


@pytest.mark.parametrize("kind", ["relations", "motifs", "node_features"])
def test_groups_of_edges_and_entries_of_features(kind):
    data = doubled(random_graph(nodes=12, edges=14))
    data.edge_type = torch.arange(data.num_edges) % 3

    class Typed(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(GCNConv(5, 3) for _ in range(3))

        def forward(self, x, edge_index, edge_type):
            return sum(conv(x, edge_index[:, edge_type == i]) for i, conv in enumerate(self.convs)).tanh()

    torch.manual_seed(0)
    net, train = Typed().double(), data.train_mask.nonzero().view(-1)
    objective = GraphModel(net, data).node(4, label=0).objective(remove=kind)
    expected, numbers = check_against_one_by_one(objective)
    assert expected.count_nonzero() > 2
    assert len(numbers.unique()) > 1
    players, (batch,) = objective.players, objective.batches()
    owned = {"relations": data.num_edges, "motifs": data.num_edges, "node_features": 60}[kind]
    assert sum(map(len, players.groups)) == owned if players.groups else len(players) == owned
    for player in range(0, len(players), 1 if players.groups else 7):
        x, kept = data.x.clone(), torch.ones(data.num_edges, dtype=torch.bool)
        if kind == "node_features":
            x[tuple(players.index[player])] = 0
        else:
            kept[players.groups[player]] = False
        losses = F.cross_entropy(
            net(x, data.edge_index[:, kept], data.edge_type[kept])[train], data.y[train], reduction="none"
        )
        edited = objective.edited(player)
        torch.testing.assert_close(edited.train_loss(edited.params, batch), losses)
