"""Nodes, edges and features taken away from the graph of the training loss: one by one, and many in one pass."""

import pytest
import torch
import torch.nn.functional as F
from graph_cases import doubled, network, random_graph
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, GCNConv, HeteroConv, SAGEConv, global_mean_pool

from explain.graph.model import GraphModel
from explain.graph.removal import GraphRemoval
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


@pytest.mark.parametrize("name", ["gcn", "gat", "sage", "gin", "sgc", "appnp"])
@pytest.mark.parametrize("kind", ["nodes", "edges", "features"])
def test_many_edits_are_each_edit(name, kind):
    data = doubled(random_graph(nodes=40, edges=44))
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
    for player, atom in enumerate(objective.players.index.tolist()):
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


def test_the_parts_of_the_graph_are_what_the_model_needs():
    data = doubled(random_graph(nodes=40, edges=44))
    local = removal(GraphModel(network("gcn", double=True), data).node(4, label=0), "nodes").sites
    assert local.hops == 2
    assert len(local.apart) == int(data.train_mask.sum())

    class Global(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(5, 3)

        def forward(self, x, edge_index):
            h = self.conv(x, edge_index)
            return h - h.mean(0)

    torch.manual_seed(0)
    spread = removal(GraphModel(Global().double(), data).node(4, label=0), "edges")
    assert spread.sites.hops is None
    assert spread.moving().all()
    check_against_one_by_one(spread)
