"""The task of one graph's network, where the user names none, is read from the rows of its answer."""

import pytest
import torch
from graph_cases import RATES, Rating, RatingOfData, random_graph, rated
from torch import nn
from torch_geometric.nn import GCNConv

import explain


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(5, 3)

    def pairs(self, x, edge_index, pairs):
        z = self.conv(x, edge_index)
        return (z[pairs[0]] * z[pairs[1]]).sum(1)


class Pairs(Net):
    def forward(self, x, edge_index, edge_label_index):
        return self.pairs(x, edge_index, edge_label_index)


class OfData(Net):
    def forward(self, data):
        return self.pairs(data.x, data.edge_index, data.edge_label_index)


class EitherOfData(Net):
    def forward(self, data):
        if "edge_label_index" in data:
            return self.pairs(data.x, data.edge_index, data.edge_label_index)
        return self.conv(data.x, data.edge_index)


class OtherName(Net):
    def forward(self, x, edge_index, ends):
        return self.pairs(x, edge_index, ends)


class Encoder(Net):
    def encode(self, x, edge_index):
        return self.conv(x, edge_index)

    def decode(self, z, edge_label_index):
        return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)


class Optional(Net):
    def forward(self, x, edge_index, edge_label_index=None):
        z = self.conv(x, edge_index)
        return z if edge_label_index is None else (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)


class Nodes(Net):
    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


class NodesToo(Net):
    """Is given pairs, and answers for nodes."""

    def forward(self, x, edge_index, edge_label_index):
        return self.conv(x, torch.cat([edge_index, edge_label_index], 1))


def graph(pairs=7):
    data = random_graph()
    if pairs is not None:
        data.edge_label_index = data.edge_index.flip(1)[:, :pairs]
    return data


def made(kind):
    torch.manual_seed(0)
    return kind().eval()


@pytest.mark.parametrize("pairs", [None, 7, 24])  # 24 as there are nodes
@pytest.mark.parametrize("kind", [Pairs, OfData, EitherOfData, OtherName, Encoder])
def test_a_row_a_pair_is_a_link_model(kind, pairs):
    if pairs is None and kind is not Pairs:
        pytest.skip("only the name speaks of pairs")
    net, data = made(kind), graph(pairs)
    model = explain.wrap(net, data)
    assert model.task == "edge"
    target = model.edge(3, 7, label=1)
    assert target.value() == pytest.approx(net.pairs(data.x, data.edge_index, [[3], [7]]).item(), rel=1e-5)
    alone = target.game("edges")(torch.zeros(1, len(target.players("edges")), dtype=torch.bool))
    own = net.pairs(data.x, data.edge_index[:, :0], [[3], [7]]).item()
    assert alone.item() == pytest.approx(own, rel=1e-4, abs=1e-6)
    said = "the answer has a row for each pair of edge_label_index"
    assert target.describe()["assumed"]["task"] == f"edge: {said}; task= says otherwise"
    with pytest.raises(
        ValueError, match=f'no task was named, and "edge" was inferred, as {said}: wrap it with task="n'
    ):
        model.node(3)
    assert "task" not in explain.wrap(net, data, task="edge").edge(3, 7, label=1).describe().get("assumed", {})


@pytest.mark.parametrize("kind", [Pairs, OtherName, OfData])
def test_a_call_says_what_is_given(kind):
    net, data = made(kind), graph()
    call = (lambda n, d: n(d)) if kind is OfData else (lambda n, d: n(d.x, d.edge_index, d.edge_label_index))
    assert explain.wrap(net, data, call=call).task == "edge"
    if kind is OtherName:
        assert explain.wrap(net, data, inputs={"ends": "edge_label_index"}).task == "edge"


@pytest.mark.parametrize(("kind", "said"), [(Nodes, False), (Optional, True)])
def test_a_row_a_node_stays_a_node_model(kind, said):
    net, data = made(kind), graph(24)
    model = explain.wrap(net, data)
    assert model.task == "node"
    assert model.node(3).describe().get("assumed", {}).get("task", "").startswith("node: ") is said
    with pytest.raises(
        ValueError, match=r'no task was named, and "node" was inferred, as .*: wrap it with task="edge"'
    ):
        model.edge(3, 7)
    with pytest.raises(ValueError, match=r'^this model was wrapped for task="node": wrap it with task="edge"'):
        explain.wrap(net, data, task="node").edge(3, 7)


def test_pairs_without_a_row_each_are_no_link_model():
    model = explain.wrap(made(NodesToo), graph(24))
    assert model.task == "node"
    said = "node: the answer has no row for each pair of edge_label_index; task= says otherwise"
    assert model.assumed["task"] == said


def test_pairs_of_a_list_of_graphs_are_asked_for_on_one():
    model = explain.wrap(made(Nodes), [graph(None), graph(None)])
    with pytest.raises(ValueError, match=r'on one graph, explain.wrap\(model, graph, task="edge"\)'):
        model.edge(3, 7)


class Picking(Net):
    def forward(self, x, edge_index, mask=None):
        return self.conv(x, edge_index)[slice(None) if mask is None else mask]


class MustPick(Picking):
    def forward(self, x, edge_index, mask):
        return super().forward(x, edge_index, mask)


def test_a_mask_that_picks_rows_is_no_question_of_the_task():
    data = graph(None)
    data.mask = torch.arange(len(data.x)) % 3 > 0
    own = pytest.approx(made(Nodes)(data.x, data.edge_index)[3, 1].item(), rel=1e-5)
    model = explain.wrap(made(Picking), data)
    assert model.node(3, label=1).value() == own
    assert model.assumed["mask"] == "not passed: with it the answer has no row for each node"
    remedy = r"as many as data.mask picks.*call=lambda.*mask=torch.ones_like\(data.mask\)"
    with pytest.raises(ValueError, match=remedy) as told:
        explain.wrap(made(MustPick), data).node(3)
    assert "task=" not in str(told.value)
    model = explain.wrap(made(MustPick), data, call=lambda net, d: net(d.x, d.edge_index, mask=torch.ones_like(d.mask)))
    assert model.node(3, label=1).value() == own


def test_a_decoder_scores_pairs():
    model = explain.wrap(made(Nodes), graph(None), decoder=lambda z, ends: (z[ends[0]] * z[ends[1]]).sum(1))
    assert model.task == "edge"


def typed_call(net, data):
    return net(data.x_dict, data.edge_index_dict, data[RATES].edge_label_index)


@pytest.mark.parametrize(("kind", "call"), [(Rating, None), (RatingOfData, None), (Rating, typed_call)])
def test_pairs_of_types(kind, call):
    torch.manual_seed(0)
    data = rated()
    data[RATES].edge_label_index = data[RATES].edge_index[:, :5]  # as many as there are films
    model = explain.wrap(made(kind), data, call=call)
    assert model.task == "edge"
    assert model.edge(("user", 3), ("film", 2), label=1).value() == pytest.approx(
        Rating.forward(model.module, data.x_dict, data.edge_index_dict, torch.tensor([[3], [2]])).item(), rel=1e-5
    )
