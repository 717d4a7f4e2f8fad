"""Data and parameters that were edited after wrap are read anew: labels, numbers, players and scores are today's."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, GATConv, HeteroConv, SAGEConv

import explain
from explain import Shapley
from explain.types import Players


def graph(seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 4], [1, 2, 3, 4, 5, 0, 0, 2]])
    return Data(3 * torch.randn(6, 4, generator=generator), index, edge_weight=torch.ones(8))


def copied(data, net):
    data.x.copy_(graph(1).x)


def through_data(data, net):
    data.x.data[:] = graph(2).x


def through_numpy(data, net):
    data.x.numpy()[:] = graph(3).x.numpy()


def two_rows(data, net):
    data.x.data[:] = data.x[[1, 0, 2, 3, 5, 4]].clone()


def assigned(data, net):
    data.x = graph(4).x


def edges(data, net):
    data.edge_index[0] = data.edge_index[0].roll(3)


def other_edges(data, net):
    data.edge_index, data.edge_weight = data.edge_index[:, 2:], data.edge_weight[2:]


def weights(data, net):
    data.edge_weight[2:5] = 3.0


def parameters(data, net):
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(-1)


def parameters_through_data(data, net):
    for p in net.parameters():
        p.data.mul_(-1)


EDITS = [copied, through_data, through_numpy, two_rows, assigned, edges, other_edges, weights]
EDITS += [parameters, parameters_through_data]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_new_question_is_of_todays_data(edit):
    torch.manual_seed(0)
    data, net = graph(), GCN(4, 8, 2, 3).eval()
    model = explain.wrap(net, data, inputs={"edge_weight": "edge_weight"})
    for node in range(6):
        model.node(node).value()
    Shapley("edges").explain(model.node(2))
    edit(data, net)
    with torch.no_grad():
        rows = net(data.x, data.edge_index, edge_weight=data.edge_weight)
    assert [model.node(node).label for node in range(6)] == rows.argmax(1).tolist()
    fresh = explain.wrap(net, data, inputs={"edge_weight": "edge_weight"})
    for players in ("edges", "nodes"):
        got, true = (Shapley(players).explain(each.node(2, label=1)) for each in (model, fresh))
        assert torch.equal(got.players.index, true.players.index)
        assert torch.allclose(got.scores, true.scores, atol=1e-6)
        assert got.value == pytest.approx(float(rows[2, 1]), abs=1e-5)


@pytest.mark.parametrize("edit", [copied, assigned, edges, weights, parameters], ids=lambda edit: edit.__name__)
def test_a_question_asked_before_keeps_its_label_and_reads_anew(edit):
    torch.manual_seed(0)
    data, net = graph(), nn.ModuleList([GATConv(4, 3, edge_dim=1)])[0].eval()  # without a fast path
    model = explain.wrap(net, data, inputs={"edge_attr": "edge_weight"})
    target = model.node(2)
    label = target.label
    Shapley("edges").explain(target)
    edit(data, net)
    true = explain.wrap(net, data, inputs={"edge_attr": "edge_weight"}).node(2, label=label)
    assert target.label == label
    assert target.value() == pytest.approx(true.value(), abs=1e-6)
    got, expected = Shapley("edges").explain(target), Shapley("edges").explain(true)
    assert torch.allclose(got.scores, expected.scores, atol=1e-6)
    assert got.value == pytest.approx(float(got.scores.sum()) + got.base, abs=1e-5)


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_typed_graphs():
    torch.manual_seed(0)

    class Typed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = HeteroConv({("a", "to", "b"): SAGEConv((4, 4), 2)})

        def forward(self, x_dict, edge_index_dict):
            return self.conv(x_dict, edge_index_dict)["b"]

    data = HeteroData()
    for kind in "ab":
        data[kind].x = torch.randn(4, 4)
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1, 2], [1, 1, 0]])
    net = Typed().eval()
    model = explain.wrap(net, data)
    assert all(model.node(("b", node)).label is not None for node in range(4))
    data["b"].x.mul_(-1)
    rows = net(data.x_dict, data.edge_index_dict)
    assert [model.node(("b", node)).label for node in range(4)] == rows.argmax(1).tolist()


def test_nothing_is_kept_for_players_that_were_asked_once():
    target = explain.wrap(GCN(4, 8, 2, 3).eval(), graph(), inputs={"edge_weight": None}).node(2, label=0)
    for number in range(1, 4):
        game = target.game(Players("edges", torch.arange(number)))
        assert len(game.players) == number
    target.game("edges")
    assert len(target._games) == 2
