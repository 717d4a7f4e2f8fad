"""Of a large graph only what the training nodes see is evaluated, and the answer is that of the whole."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, GraphNorm, HeteroConv, SAGEConv

import explain
from explain import Influence
from explain.graph.training import predictions


def large(nodes=9_000, edges=12_000):
    generator = torch.Generator().manual_seed(0)
    return Data(
        x=torch.randn(nodes, 4, generator=generator, dtype=torch.float64),
        edge_index=torch.randint(0, nodes, (2, edges), generator=generator),
        y=torch.randint(0, 2, (nodes,), generator=generator),
        train_mask=torch.arange(nodes) < 40,
    )


class Normed(nn.Module):
    """Looks at the whole graph."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = GCN(4, 4, 1, 2), GraphNorm(2)

    def forward(self, x, edge_index):
        return self.norm(self.conv(x, edge_index))


class Shy(nn.Module):
    """At its trained parameters the neighbours do not count."""

    def __init__(self):
        super().__init__()
        self.own, self.near = nn.Linear(4, 2), SAGEConv(4, 2)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, edge_index):
        return self.own(x) + self.weight * self.near(x, edge_index)


class Numbered(nn.Module):
    """Has a row of its own for each node of the graph."""

    def __init__(self):
        super().__init__()
        self.rows, self.conv = nn.Embedding(9_000, 4), GCN(4, 4, 1, 2)

    def forward(self, x, edge_index):
        return self.conv(x + self.rows.weight, edge_index)


def evaluated(monkeypatch, net, data):
    """Scores of an answer, and on how many nodes the training losses were evaluated."""
    sizes, model = [], explain.wrap(net, data, weight_decay=0.1)
    usual = type(model).outputs

    def outputs(self, made, *args, **kwargs):
        sizes.append(made.structure.num_nodes)
        return usual(self, made, *args, **kwargs)

    target = model.node(3, 1)
    monkeypatch.setattr(type(model), "outputs", outputs)
    objective = target.objective()
    sizes.clear()
    objective.train_loss(objective.params, torch.arange(objective.size))
    monkeypatch.setattr(type(model), "outputs", usual)
    return Influence(curvature="ggn", damping=0.1, solver="cg", seed=0).explain(target).scores, sizes[-1]


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
@pytest.mark.parametrize(
    ("build", "cut"), [(lambda: GCN(4, 4, 2, 2), True), (Normed, False), (Shy, True), (Numbered, False)]
)
def test_the_part_that_training_nodes_see_answers_as_the_whole(build, cut, monkeypatch):
    torch.manual_seed(0)
    net, data = build().double(), large()
    found, size = evaluated(monkeypatch, net, data)
    assert (size < data.num_nodes / 2) == cut
    monkeypatch.setattr(predictions, "WORTH", 10**9)
    right, size = evaluated(monkeypatch, net, data)
    assert size == data.num_nodes
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-12)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_of_typed_graphs_too(monkeypatch):
    class Typed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = HeteroConv({("a", "to", "b"): SAGEConv((4, 4), 2), ("b", "to", "a"): SAGEConv((4, 4), 2)})

        def forward(self, x_dict, edge_index_dict):
            return self.conv(x_dict, edge_index_dict)["b"]

    torch.manual_seed(0)
    plain, data = large(), HeteroData()
    for kind in ("a", "b"):
        data[kind].x = plain.x[:5_000] if kind == "a" else plain.x[4_000:]
        data[kind].y, data[kind].train_mask = plain.y[:5_000], plain.train_mask[:5_000]
    for edge in (("a", "to", "b"), ("b", "to", "a")):
        data[edge].edge_index = plain.edge_index % 5_000
    model = explain.wrap(Typed().double(), data, weight_decay=0.1)
    given = Influence(curvature="ggn", damping=0.1, solver="cg", seed=0)
    found = given.explain(model.node(("b", 3), 1)).scores
    monkeypatch.setattr(predictions, "WORTH", 10**9)
    torch.testing.assert_close(found, given.explain(model.node(("b", 3), 1)).scores, rtol=1e-6, atol=1e-12)
