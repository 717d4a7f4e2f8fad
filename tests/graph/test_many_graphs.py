"""Nodes of many graphs, as inductive classifiers and forecasters are trained on: influence follows retraining."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import SAGEConv, global_mean_pool

import explain
from explain import Influence, SelfInfluence, Shapley
from explain.types import Unsupported

DECAY = 1.0


class Inductive(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        torch.manual_seed(0)
        self.conv = SAGEConv(3, outputs)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def drawn(count, real=False, mask=False):
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for i in range(count):
        n = 4 + i % 3
        x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        y = x.sum(1) + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
        graphs.append(
            Data(x=x, edge_index=torch.randint(0, n, (2, 9), generator=generator), y=y if real else (y > 0).long())
        )
        if mask:
            graphs[-1].train_mask = torch.arange(n) % 2 == 0
    return graphs


def fitted(graphs, left_out=None, real=False):
    net = Inductive(1 if real else 2).double()
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    total = sum(int(graph.get("train_mask", graph.y >= -1e9).sum()) for graph in graphs)

    def loss():
        optimiser.zero_grad()
        found = 0.5 * DECAY * sum((p**2).sum() for p in net.parameters())
        for i, graph in enumerate(graphs):
            out, mask = net(graph.x, graph.edge_index), graph.get("train_mask", torch.ones(len(graph.y)) > 0).clone()
            if left_out is not None and left_out[0] == i:
                mask[left_out[1]] = False
            each = (out[:, 0] - graph.y) ** 2 if real else nn.functional.cross_entropy(out, graph.y, reduction="none")
            found = found + each[mask].sum() / total
        found.backward()
        return found

    optimiser.step(loss)
    return net


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_scores_are_those_of_retraining(real, mask):
    graphs = drawn(3, real, mask)
    model = explain.wrap(fitted(graphs, real=real), graphs, task="node", weight_decay=DECAY)
    target = model.node(2, graph=1)
    why = Influence(newton=True, seed=0).explain(target)
    players = [tuple(row) for row in why.players.index.tolist()]
    assert players == [(g, n) for g, graph in enumerate(graphs) for n in range(len(graph.y)) if not mask or n % 2 == 0]
    assert why.players.names[0] == "graph 0, node 0"
    assert why.target["graph"] == 1
    assert ("no train_mask" in why.target["assumed"]["examples"]) != mask
    for player in ((0, 0), (1, 2), (2, 4)):
        other = fitted(graphs, player, real)
        with torch.no_grad():
            now = other(graphs[1].x, graphs[1].edge_index)[2, target.label or 0]
        assert why.scores[players.index(player)] == pytest.approx(target.value() - float(now), rel=0.05, abs=1e-3)


def test_a_loader_of_snapshots_and_self_influence():
    graphs = drawn(6)
    model = explain.wrap(fitted(graphs[:4]), graphs, task="node", weight_decay=DECAY)
    target = model.node(1, graph=5)
    why = Influence(train=DataLoader(graphs, 2, sampler=[0, 1, 2, 3]), seed=0).explain(target)
    right = Influence(train=graphs[:4], seed=0).explain(target)
    torch.testing.assert_close(why.scores, right.scores)
    own = SelfInfluence(Influence(train=graphs[:4], seed=0)).explain(target)
    assert (own.scores >= 0).all()


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_a_forward_that_takes_the_batch_itself_has_the_scores_of_one_that_takes_its_fields():
    class Fields(Inductive):
        def forward(self, x, edge_index, batch):
            return global_mean_pool(super().forward(x, edge_index), batch)

    class Whole(Fields):
        def forward(self, batch):
            return super().forward(batch.x, batch.edge_index, batch.batch)

    graphs = drawn(6)
    for i, graph in enumerate(graphs):
        graph.y = torch.tensor([i % 2])
    whys = [
        [
            ask.explain(explain.wrap(net.double(), graphs, task="graph", weight_decay=DECAY).graph(2, label=1))
            for net in (Fields(), Whole())
        ]
        for ask in (Influence(seed=0), SelfInfluence(Influence(seed=0)))
    ]
    for fields, whole in whys:
        assert fields.scores.abs().max() > 0
        torch.testing.assert_close(whole.scores, fields.scores)


def test_other_questions_of_one_of_many_graphs():
    graphs = drawn(3)
    net = fitted(graphs)
    one = explain.wrap(net, graphs[1], task="node").node(2, 1)
    of_many = explain.wrap(net, graphs, task="node").node(2, 1, graph=1)
    torch.testing.assert_close(Shapley("edges").explain(of_many).scores, Shapley("edges").explain(one).scores)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_a_recurrent_forecaster_with_a_number_a_node():
    class Forecaster(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cell, self.conv, self.out = nn.GRU(1, 4, batch_first=True), SAGEConv(4, 4), nn.Linear(4, 1)

        def forward(self, x, edge_index):  # x [nodes, 3]: three steps of one signal
            return self.out(torch.tanh(self.conv(self.cell(x[:, :, None])[0][:, -1], edge_index)))

    graphs = drawn(4, real=True)
    model = explain.wrap(Forecaster().double(), graphs, task="node", weight_decay=1.0, loss="mse", outputs="values")
    why = Influence(curvature="ggn", damping=0.1, seed=0).explain(model.node(0, graph=0))
    assert len(why.scores) == sum(len(graph.y) for graph in graphs)
    assert why.scores.abs().max() > 0


def test_what_does_not_fit_is_said():
    graphs = drawn(3)
    model = explain.wrap(Inductive().double(), graphs, task="node")
    with pytest.raises(ValueError, match="graph= says which graph of a list has the node"):
        model.node(0)
    with pytest.raises(ValueError, match=r"graph must be a whole number from 0 to 2, got 3"):
        model.node(0, graph=3)
    with pytest.raises(ValueError, match="got graph=0 and one graph"):
        explain.wrap(Inductive().double(), graphs[0]).node(0, graph=0)
    with pytest.raises(Unsupported, match="wrap one graph to edit it"):
        model.node(0, graph=0).objective(remove="edges")
    graphs[1].train_mask = torch.ones(5, 2) > 0
    with pytest.raises(ValueError, match="choose a column"):
        model.node(0, graph=0).objective()
    graphs[1].train_mask, graphs[1].y = None, torch.zeros(1).long()
    with pytest.raises(ValueError, match=r"need a label a node, y \[5\]"):
        explain.wrap(Inductive().double(), graphs, task="node").node(0, 1, graph=0).objective()
