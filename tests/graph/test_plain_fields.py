"""What the data holds beside tensors, as a neighbour loader's ``batch_size``: given as it is, and said."""

import pytest
import torch
from graph_cases import RATES, rated
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, SAGEConv

import explain
from explain.parts import WrongRows

NODE, LABEL, SEEDS = 3, 1, 4


def sampled(**fields):
    """Four seeds and what a loader found around them."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.tensor([[4, 5, 4, 5, 1, 6, 7, 6], [0, 1, 2, 3, 0, 4, 5, 5]])
    return Data(x=torch.randn(8, 4, generator=generator), edge_index=edges, batch_size=SEEDS, **fields)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = GCNConv(4, 5), GCNConv(5, 3)

    def rows(self, x, edge_index):
        return self.last(self.first(x, edge_index).tanh(), edge_index)


class Sliced(Net):
    def forward(self, x, edge_index, batch_size):
        return self.rows(x, edge_index)[:batch_size]


class Scaled(Net):
    def forward(self, x, edge_index, batch_size):
        return self.rows(x, edge_index) / batch_size


class Optional(Net):
    def forward(self, x, edge_index, batch_size=1):
        return self.rows(x, edge_index) / batch_size


class ReadsSeeds(Net):
    def forward(self, data):
        return self.rows(data.x, data.edge_index) + data.x[: data.batch_size, :1].mean()


class Trimmed(Net):
    def forward(self, data):
        h = self.first(data.x, data.edge_index).tanh()
        return self.last(h, data.edge_index[:, : data.num_sampled_edges[0]])


class Cooled(Net):
    def forward(self, data):
        return self.rows(data.x, data.edge_index) / data.temperature


def made(kind):
    torch.manual_seed(0)
    return kind().eval()


def number(model, **where):
    return model.node(NODE, label=LABEL, **where).value()


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (Scaled, lambda net, data: net(data.x, data.edge_index, data.batch_size)),
        (ReadsSeeds, lambda net, data: net(data)),
    ],
)
def test_a_plain_number_of_the_data_is_passed_and_said(kind, call):
    net, data = made(kind), sampled()
    model = explain.wrap(net, data, task="node")
    assert "every coalition" in model.assumed["batch_size"]
    target = model.node(NODE, label=LABEL)
    players = target.players("edges")
    masks = ~torch.eye(len(players), dtype=torch.bool)
    found = target.game(players)(masks)
    with torch.no_grad():
        assert target.value() == pytest.approx(call(net, data)[NODE, LABEL].item(), rel=1e-5)
        for edge, value in zip(players.index.tolist(), found.tolist(), strict=True):
            less = data.clone()
            less.edge_index = data.edge_index[:, torch.arange(data.num_edges) != edge]
            assert value == pytest.approx(call(net, less)[NODE, LABEL].item(), rel=1e-5)


def test_rows_of_the_seeds_alone_are_refused_with_the_remedy():
    net, data = made(Sliced), sampled()
    with pytest.raises(WrongRows, match=r"data.batch_size says: inputs=\{'batch_size': 'num_nodes'\}"):
        number(explain.wrap(net, data, task="node"))
    remedied = explain.wrap(net, data, task="node", inputs={"batch_size": "num_nodes"})
    assert number(remedied) == pytest.approx(net(data.x, data.edge_index, SEEDS)[NODE, LABEL].item(), rel=1e-5)


def test_an_optional_one_is_asked_for():
    net, data = made(Optional), sampled()
    with pytest.raises(TypeError, match=r"given data.batch_size"):
        explain.wrap(net, data)
    for given, expected in (("batch_size", SEEDS), (None, 1)):
        rows = net(data.x, data.edge_index, expected)
        assert number(explain.wrap(net, data, inputs={"batch_size": given})) == pytest.approx(rows[NODE, LABEL].item())


def test_trimmed_layers_are_refused():
    with pytest.raises(ValueError, match="num_sampled_edges, what a loader sampled"):
        explain.wrap(made(Trimmed), sampled(num_sampled_edges=[5, 3], num_sampled_nodes=[4, 2, 2]))


def test_each_graph_of_a_list_has_its_own_and_an_edit_is_seen():
    net, graphs = made(Cooled), [sampled(temperature=2.0), sampled(temperature=4.0)]
    model = explain.wrap(net, graphs, task="node")
    assert number(model, graph=1) == pytest.approx(net(graphs[1])[NODE, LABEL].item())
    target = explain.wrap(net, graphs[0], task="node").node(NODE, label=LABEL)
    before = target.value()
    graphs[0].temperature = 8.0
    assert target.value() == pytest.approx(before / 4)


class Weighted(Net):
    def forward(self, x, edge_index, w, phase):
        return self.first(x + phase[:, None], edge_index, w)[:, :3]


class WeightedData(Weighted):
    def forward(self, data):
        return super().forward(data.x, data.edge_index, data.w, data.phase)


@pytest.mark.parametrize("kind", [Weighted, WeightedData])
@pytest.mark.parametrize("atoms", ["edges", "nodes"])
def test_a_field_of_edges_is_known_where_there_are_as_many_nodes(kind, atoms):
    """A star with a loop: without a leaf it has one node and one edge less, and rows of either would fit."""
    edges = torch.tensor([[1, 2, 3, 4, 5, 0], [0, 0, 0, 0, 0, 0]])
    generator = torch.Generator().manual_seed(0)
    x, w, phase = (torch.rand(*size, generator=generator) + 0.1 for size in ((6, 4), (6,), (6,)))
    net = made(kind)
    target = explain.wrap(net, Data(x=x, edge_index=edges, w=w, phase=phase)).node(0, label=LABEL)
    players = target.players(atoms)
    assert len(players) >= 5
    found = target.game(players)(~torch.eye(len(players), dtype=torch.bool))
    for gone, value in zip(players.index.tolist(), found.tolist(), strict=True):
        kept = torch.arange(6) != gone if atoms == "edges" else (edges != gone).all(0)
        with torch.no_grad():
            rows = Weighted.forward(net, x, edges[:, kept], w[kept], phase)
        assert value == pytest.approx(rows[0, LABEL].item(), rel=1e-5)


class Typed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = SAGEConv((4, 4), 3)

    def forward(self, x_dict, edge_index_dict, u):
        return {"film": self.conv((x_dict["user"], x_dict["film"]), edge_index_dict[RATES]) + u}


class TypedData(Typed):
    def forward(self, data):
        return super().forward(data.x_dict, data.edge_index_dict, data.u)


@pytest.mark.parametrize("kind", [Typed, TypedData])
def test_what_typed_data_holds_for_itself_is_given(kind):
    net, data = made(kind), rated()
    data.u = torch.randn(1, 3)
    expected = Typed.forward(net, data.x_dict, data.edge_index_dict, data.u)["film"][2, LABEL]
    assert explain.wrap(net, data, task="node").node(("film", 2), label=LABEL).value() == pytest.approx(expected.item())
