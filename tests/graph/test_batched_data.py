"""One data object that is several graphs: its own ``batch`` goes on through every edit, as in the user's own call."""

import random

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import (
    GCNConv,
    GINConv,
    GraphNorm,
    GraphSizeNorm,
    LSTMAggregation,
    PairNorm,
    SAGEConv,
    global_max_pool,
    global_mean_pool,
)

import explain
from explain import Occlusion, Shapley

LABEL, DRAWN = 1, 12  # coalitions that are held against the user's own call


def one(nodes, edges, seed, **fields):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, nodes, (2, edges), generator=generator).unique(dim=1)
    x = torch.randn(nodes, 4, generator=generator, dtype=torch.float64)
    u = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    return Data(x=x, edge_index=index, u=u, **fields)


def several():
    return Batch.from_data_list([one(5, 7, 1), one(3, 4, 2), one(6, 8, 3)])


def as_fields():
    """The same as plain data that says its graphs."""
    data = several()
    return Data(x=data.x, edge_index=data.edge_index, u=data.u, batch=data.batch)


class Normed(nn.Module):
    """A norm over each graph."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = GCNConv(4, 6), GraphNorm(6), GCNConv(6, 3)

    def forward(self, x, edge_index, batch):
        return self.last(self.norm(self.first(x, edge_index), batch).relu(), edge_index)

    def of(self, data):
        return self(data.x, data.edge_index, data.batch)


class Told(nn.Module):
    """Each node is told the mean of its graph, and what is known of that."""

    def __init__(self):
        super().__init__()
        self.first, self.last = SAGEConv(4, 6), nn.Linear(14, 3)

    def forward(self, x, edge_index, batch, u, num_graphs):
        h = self.first(x, edge_index).tanh()
        return self.last(torch.cat([h, global_mean_pool(h, batch, num_graphs)[batch], u[batch]], 1))

    def of(self, data):
        return self(data.x, data.edge_index, data.batch, data.u, 3)


class Sized(Normed):
    """A norm by the number of nodes: one that no path leads from counts, too."""

    def __init__(self):
        super().__init__()
        self.norm = GraphSizeNorm()


class Padded(Normed):
    """A recurrent summary, padded to the largest of the graphs beside it."""

    def __init__(self):
        super().__init__()
        self.norm = LSTMAggregation(6, 6)

    def forward(self, x, edge_index, batch):
        h = self.first(x, edge_index)
        return self.last(h + self.norm(h, batch)[batch], edge_index)


class OfData(nn.Module):
    """All from the data object: a norm by pairs, and a maximum that is given back by ``ptr``."""

    def __init__(self):
        super().__init__()
        make = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.first, self.norm, self.last = GINConv(make), PairNorm(), nn.Linear(12, 3)

    def forward(self, data):
        h = self.norm(self.first(data.x, data.edge_index), data.batch)
        most = global_max_pool(h, data.batch, data.num_graphs)
        return self.last(torch.cat([h, most.repeat_interleave(data.ptr.diff(), 0)], 1))

    def of(self, data):
        return self(data)


def made(kind):
    torch.manual_seed(0)
    return kind().double().eval()


def without_edges(data, kept):
    found = data.clone()
    found.edge_index = data.edge_index[:, kept]
    return found


def without_nodes(data, kept):
    """The smaller data, in which every node is of the graph that it was of."""
    found, number = data.clone(), kept.cumsum(0) - 1
    inside = kept[data.edge_index].all(0)
    found.x, found.batch = data.x[kept], data.batch[kept]
    found.edge_index, found.num_nodes = number[data.edge_index[:, inside]], int(kept.sum())
    if "ptr" in data:
        found.ptr = torch.cat([data.ptr[:1], torch.bincount(found.batch, minlength=3).cumsum(0)])
    return found


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Normed, several),
        (Normed, as_fields),
        (Told, several),
        (Told, as_fields),
        (OfData, several),
        (Sized, several),
        (Padded, several),
    ],
)
@pytest.mark.parametrize("atoms", ["edges", "nodes"])
def test_every_coalition_is_the_users_own_call_on_the_edited_data(kind, make, atoms):
    net, data, draw = made(kind), make(), random.Random(0)
    node, size = 6, data.num_edges if atoms == "edges" else data.num_nodes
    target = explain.wrap(net, data, task="node").node(node, label=LABEL)
    with torch.no_grad():
        assert target.value() == pytest.approx(net.of(data)[node, LABEL].item(), abs=1e-9)
    players = target.players(atoms)
    masks = torch.tensor([[draw.random() < 0.6 for _ in range(len(players))] for _ in range(DRAWN)])
    masks[0], masks[1] = True, False
    expected = []
    for mask in masks:
        kept = torch.tensor([draw.random() < 0.7 for _ in range(size)])  # others change nothing
        kept[: draw.choice([0, 5])] = False  # not even a whole graph
        kept[players.index] = mask
        kept[node] |= atoms == "nodes"
        edited = without_edges(data, kept) if atoms == "edges" else without_nodes(data, kept)
        row = node if atoms == "edges" else int(kept[:node].sum())
        with torch.no_grad():
            expected.append(net.of(edited)[row, LABEL])
    assert torch.allclose(target.game(players)(masks), torch.stack(expected), rtol=0, atol=1e-9)


def test_an_optional_batch_is_passed_and_said():
    class Optional(Normed):
        def forward(self, x, edge_index, batch=None):
            return super().forward(x, edge_index, batch)

    net, data = made(Optional), several()
    model = explain.wrap(net, data)
    assert model.node(6, label=LABEL).value() == pytest.approx(net.of(data)[6, LABEL].item())
    assert "several graphs" in model.assumed["batch"]
    off = explain.wrap(net, data, inputs={"batch": None}).node(6, label=LABEL)
    assert off.value() == pytest.approx(net(data.x, data.edge_index)[6, LABEL].item())
    by_call = explain.wrap(net, data, call=lambda net, data: net(data.x, data.edge_index, data.batch))
    assert by_call.node(6, label=LABEL).value() == pytest.approx(net.of(data)[6, LABEL].item())


def test_the_list_of_graphs_says_the_same():
    net, data = made(Normed), several()
    alone = explain.wrap(net, data.to_data_list(), task="node").node(1, label=LABEL, graph=1)
    together = explain.wrap(net, data, task="node").node(6, label=LABEL)
    assert alone.value() == pytest.approx(together.value())
    first = int((data.edge_index[0] < 5).sum())  # edges of graph 0
    found, expected = torch.zeros(data.num_edges).double(), torch.zeros(data.num_edges).double()
    for target, scores, start in ((together, found, 0), (alone, expected, first)):
        why = Shapley("edges", estimator="exact").explain(target)
        scores[why.players.index + start] = why.scores
    assert expected.any()
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)


def test_pairs_of_a_batch():
    class Scores(Normed):
        def forward(self, x, edge_index, edge_label_index, batch):
            h = super().forward(x, edge_index, batch)
            return (h[edge_label_index[0]] * h[edge_label_index[1]]).sum(1)

    net, data = made(Scores), several()
    target = explain.wrap(net, data, task="edge").edge(5, 6)
    with torch.no_grad():
        pair = torch.tensor([[5], [6]])
        assert target.value() == pytest.approx(net(data.x, data.edge_index, pair, data.batch).item())
        why = Occlusion("edges").explain(target)
        for edge, score in zip(why.players.index.tolist(), why.scores.tolist(), strict=True):
            kept = torch.arange(data.num_edges) != edge
            less = net(data.x, data.edge_index[:, kept], pair, data.batch).item()
            assert score == pytest.approx(target.value() - less, abs=1e-9)


def test_influence_on_a_batch_is_that_of_its_own_loss():
    net, data = made(Normed), several()
    data.y, data.train_mask = torch.arange(14) % 3, torch.arange(14) % 2 == 0
    trained = explain.wrap(net, data, loss="cross_entropy", weight_decay=0.1).node(6, label=LABEL).objective()
    rows = trained.outputs(trained.params, torch.arange(trained.size))
    assert torch.allclose(rows, net.of(data)[data.train_mask])


class Pools(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = GCNConv(4, 6), nn.Linear(6, 3)

    def forward(self, x, edge_index, batch):
        return self.last(global_mean_pool(self.first(x, edge_index).relu(), batch))


class PoolsOfData(Pools):
    def forward(self, data):
        return super().forward(data.x, data.edge_index, data.batch)


@pytest.mark.parametrize("kind", [Pools, PoolsOfData])
@pytest.mark.parametrize("task", ["graph", None])
def test_graphs_of_a_batch_are_those_of_its_list(kind, task):
    net, data = made(kind), several()
    graphs = data.to_data_list()
    data.y = torch.tensor([0, 1, 2])  # which to_data_list() does not know
    for graph, label in zip(graphs, data.y, strict=True):
        graph.y = label
    model, listed = explain.wrap(net, data, task=task), explain.wrap(net, graphs)
    assert (model.task, len(model.data)) == ("graph", 3)
    target = model.graph(1, label=LABEL)
    one = Shapley("nodes", estimator="exact").explain(target)
    other = Shapley("nodes", estimator="exact").explain(listed.graph(1, label=LABEL))
    assert target.value() == pytest.approx(listed.graph(1, label=LABEL).value())
    assert torch.allclose(one.scores, other.scores)
    losses = [each.graph(1).objective(train) for each, train in ((model, None), (listed, None), (listed, data))]
    rows = [each.outputs(each.params, torch.arange(each.size)) for each in losses]
    expected = Pools.forward(net, data.x, data.edge_index, data.batch)
    assert all(torch.allclose(each, expected) for each in rows)
    data.x += 1.0  # read from the batch, not kept
    with torch.no_grad():
        now = Pools.forward(net, data.x, data.edge_index, data.batch)[1, LABEL]
    assert model.graph(1, label=LABEL).value() == pytest.approx(now.item())


@pytest.mark.parametrize("data", [as_fields(), [several(), one(3, 4, 2)]])
def test_several_graphs_in_one_of_a_graph_task_are_refused(data):
    with pytest.raises(ValueError, match=r"3 graphs in one, .*give them as a list"):
        explain.wrap(made(Pools), data, task="graph")
    added = several()
    added.odd = torch.zeros(5, 7)
    with pytest.raises(ValueError, match="odd was added to a Batch"):
        explain.wrap(made(Pools), added, task="graph")
    apart = Batch(x=torch.zeros(2, 4), edge_index=torch.zeros(2, 0).long(), batch=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="cannot be taken apart"):
        explain.wrap(made(Pools), apart, task="graph")


def test_a_typed_batch():
    class Typed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = GraphNorm(4), nn.Linear(4, 3)

        def forward(self, x_dict, edge_index_dict, batch_dict):
            return {kind: self.last(self.norm(x, batch_dict[kind])) for kind, x in x_dict.items()}

    def typed(seed):
        torch.manual_seed(seed)
        data = HeteroData()
        data["a"].x, data["b"].x = torch.randn(3, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
        data["a", "to", "b"].edge_index = torch.tensor([[0, 1], [1, 0]])
        return data

    net, data = made(Typed), Batch.from_data_list([typed(1), typed(2)])
    target = explain.wrap(net, data, task="node").node(("a", 4), label=LABEL)
    expected = net(data.x_dict, data.edge_index_dict, data.batch_dict)["a"][4, LABEL].item()
    assert target.value() == pytest.approx(expected)
