"""Gradients of nodes, columns and entries of heterogeneous graphs: every type's own features move."""

import pytest
import torch
from torch import nn
from torch_geometric.data import HeteroData
from typed_cases import NETWORKS, library, typed_network

import explain
from explain.graph.model import GraphModel
from explain.types import Unsupported

KINDS = ("nodes", "features", "node_features")


def target_of(net, data=None, **asked):
    return GraphModel(net, data or library()).node(("paper", 3), label=1, removal="features", **asked)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_credit_is_the_slope_of_the_users_own_call(name, kind):
    net, data = typed_network(name), library()
    target = target_of(net, data)
    why = explain.Gradient(kind, method="input_x_gradient").explain(target)
    exact = target.players(kind)
    assert why.players.names == exact.names
    assert why.checks["value_gap"] == 0
    x = {kind: each.clone().requires_grad_() for kind, each in data.x_dict.items()}
    net(x, data.edge_index_dict)[3, 1].backward()
    product = {kind: each.grad * each.detach() for kind, each in x.items()}  # by hand
    types = list(x)
    for player, row in enumerate(exact.index.tolist()):
        part = product[types[row[0]]]
        own = part[row[1]] if kind == "nodes" else part[:, row[1]] if kind == "features" else part[row[1], row[2]]
        torch.testing.assert_close(why.scores[player], own.sum())


@pytest.mark.parametrize("baseline", ["zeros", "mean"])
def test_the_ends_are_those_of_the_game_and_finite_differences_agree(baseline):
    target = target_of(typed_network("hgt"), baseline=baseline)
    why = explain.Gradient("nodes").explain(target)
    exact = explain.Shapley("nodes").explain(target)
    assert why.players.names == exact.players.names
    assert why.base == pytest.approx(exact.base, abs=1e-12)
    assert why.value == pytest.approx(exact.value, abs=1e-12)
    question, h = target.differentiable("node_features"), 1e-6
    inputs = question.inputs.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(question.f(inputs).sum(), inputs)
    for atom in range(0, inputs.size(1), 7):
        step = h * torch.eye(inputs.size(1), dtype=torch.float64)[atom]
        with torch.no_grad():
            slope = (question.f(question.inputs + step) - question.f(question.inputs - step)) / (2 * h)
        torch.testing.assert_close(slopes[0, atom], slope[0], atol=1e-8, rtol=1e-5)


class Embedded(nn.Module):
    """Authors are told by a number, papers by features."""

    def __init__(self) -> None:
        super().__init__()
        self.of_authors, self.of_papers = nn.Embedding(4, 3), nn.Linear(4, 3)

    def forward(self, x_dict: dict, edge_index_dict: dict) -> torch.Tensor:
        source, target = edge_index_dict["author", "writes", "paper"]
        heard = self.of_authors(x_dict["author"].view(-1))[source]
        return self.of_papers(x_dict["paper"]).tanh().index_add(0, target, heard)


def test_whole_numbers_of_one_type_are_refused_where_they_play_and_stay_where_not():
    torch.manual_seed(0)
    data = HeteroData()
    data["author"].x, data["paper"].x = torch.arange(4)[:, None], torch.randn(5, 4).double()
    data["author", "writes", "paper"].edge_index = library()["author", "writes", "paper"].edge_index
    target = target_of(Embedded().double(), data)
    with pytest.raises(Unsupported, match=r"x of author is torch\.int64: use edges, or Shapley"):
        explain.Gradient("nodes").explain(target)
    every = target.players("features")
    papers = [i for i, (kind, _) in enumerate(every.index.tolist()) if kind == 1]
    alone = explain.types.Players("features", every.index[papers], tuple(every.names[i] for i in papers))
    why = explain.Gradient(alone).explain(target)
    torch.testing.assert_close(why.value - why.base, float(why.scores.sum()), atol=1e-4, rtol=1e-4)
