"""Messages of heterogeneous graphs: every layer's edges are found again, by type, side by side or joined."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE, RGATConv, RGCNConv, to_hetero
from typed_cases import NETWORKS, hgt_by_edges, library, typed_network

import explain
from explain.graph.model import GraphModel
from explain.types import Unsupported


def target_of(net, data=None, **asked):
    return GraphModel(net, data or library()).node(("paper", 3), label=1, removal="message", **asked)


def amounts_of(target, players):
    """The number as a function of one amount a player."""
    question = target.differentiable(players)
    return question, lambda given: question.f(torch.where(question.owner >= 0, given[question.owner], 1.0)[None])[0]


def test_hgt_equals_the_layer_written_out_edge_by_edge():
    net, data = typed_network("hgt"), library()
    target = target_of(net, data)
    generator = torch.Generator().manual_seed(1)
    amounts = torch.rand(21, generator=generator, dtype=torch.float64)
    x = data.x_dict
    with torch.no_grad():
        for conv in net.convs:
            x, weights = hgt_by_edges(conv, data, x, amounts)
        found = target.numbers(target.stage, 1, amounts=amounts[None])
    torch.testing.assert_close(found[0], x["paper"][3, 1])
    assert weights.count_nonzero() == 2 * 21


@pytest.mark.parametrize("name", NETWORKS)
def test_one_is_the_model_zero_the_game_and_slopes_are_finite_differences(name):
    target = target_of(typed_network(name))
    players = target.players("edges")
    assert len({int(kind) for kind in players.index[:, 0]}) > 1  # edges of several types play
    question, number = amounts_of(target, players)
    with torch.no_grad():
        assert float(question.f(question.inputs)) == target.value()  # to the last bit
        masks = torch.rand(8, len(players), generator=torch.Generator().manual_seed(0)) < 0.6
        by_amounts = torch.stack([number(mask.double()) for mask in masks])
    torch.testing.assert_close(target.game(players)(masks), by_amounts)
    credit = explain.Gradient(players, method="input_x_gradient").explain(target).scores
    base, h = torch.ones(len(players), dtype=torch.float64), 1e-5
    for player in range(0, len(players), 3):
        step = h * torch.eye(len(players), dtype=torch.float64)[player]
        with torch.no_grad():
            slope = (number(base + step) - number(base - step)) / (2 * h)
        torch.testing.assert_close(credit[player], slope, atol=1e-8, rtol=1e-6)


def test_relations_of_to_hetero_and_integrated_gradients_close():
    data = library()
    torch.manual_seed(0)
    net = to_hetero(GraphSAGE((-1, -1), 4, 2, 3), data.metadata()).double()
    with torch.no_grad():
        net(data.x_dict, data.edge_index_dict)
    model = GraphModel(net.eval(), data, call=lambda net, data: net(data.x_dict, data.edge_index_dict)["paper"])
    target = model.node(("paper", 3), label=1, removal="message")
    why = explain.Gradient("relations").explain(target)
    exact = explain.Shapley("relations").explain(target)
    assert why.players.names == exact.players.names
    assert len(why.players) == 4
    assert why.base == pytest.approx(exact.base)
    assert why.checks["completeness_gap"] < 1e-2


def test_types_with_the_same_edges_are_told_by_the_layers_names_else_refused():
    twins, gats = library(twins=True), typed_network("gats")
    target = target_of(gats, twins)
    players = target.players("edges")
    reads = torch.tensor([twins.edge_types[kind][1] == "reads" for kind, _ in players.index.tolist()])
    without = library(twins=True)
    del without["author", "reads", "paper"]  # as new layers have a bias of zero
    assert 0 < int(reads.sum()) < len(players)
    assert float(target.game(players)(~reads[None])) == pytest.approx(target_of(gats, without).value())
    with pytest.raises(Unsupported, match="another order"):
        explain.Gradient("edges").explain(target_of(typed_network("han"), twins))
    twins["author", "reads", "paper"].edge_index = twins["author", "reads", "paper"].edge_index.flip(1)
    assert len(explain.Gradient("edges").explain(target_of(typed_network("han"), twins)).players) > 10


@pytest.mark.parametrize("conv", [RGCNConv, RGATConv])
def test_typed_edges_of_a_homogeneous_graph(conv):
    class Relational(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(3, 3, 2)

        def forward(self, x, edge_index, edge_type):
            return self.conv(x, edge_index, edge_type)

    torch.manual_seed(0)
    ends = torch.tensor([[0, 1, 2, 3, 1], [1, 2, 0, 1, 1]])
    data = Data(x=torch.randn(4, 3).double(), edge_index=ends, edge_type=torch.tensor([0, 1, 0, 0, 1]))
    target = GraphModel(Relational().double().eval(), data).node(1, label=0, removal="message")
    why = explain.Gradient("edges").explain(target)
    torch.testing.assert_close(why.scores, explain.Shapley("edges").explain(target).scores)  # linear in the amounts


def test_the_users_layers_are_as_before_after_a_refusal():
    net = typed_network("han")
    with pytest.raises(Unsupported):
        explain.Gradient("edges").explain(target_of(net, library(twins=True)))
    assert not net.conv._propagate_forward_pre_hooks
    assert not net.conv._message_forward_hooks
