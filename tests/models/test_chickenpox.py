"""Forecasts: whose weeks moved them, in closed form; what the graph adds; and the error that was published."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import explain
from explain.gradient import Gradient
from explain.shapley import Shapley
from models import chickenpox
from models.chickenpox import Forecaster, Series, errors, planted

RING = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])


class Linear(nn.Module):
    """A forecast linear in its own weeks and in those of whoever sends to it."""

    def __init__(self):
        super().__init__()
        self.own, self.sent = torch.tensor([0.1, 0.0, 0.2, 0.5]), torch.tensor([0.0, 0.3, 0.0, -0.4])

    def forward(self, x, edge_index):
        sent = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return (x @ self.own + sent @ self.sent)[:, None]


def asked(week=7):
    data = planted()
    target = explain.wrap(Linear(), Data(x=data.lags[week], edge_index=RING), task="node", outputs="values").node(3)
    return data.lags[week], target


def test_credit_of_nodes_and_lags_is_that_of_a_linear_forecast():
    x, target = asked()
    why = Shapley("node_features").explain(target)
    net, weights = Linear(), {2: "sent", 3: "own"}
    for (node, lag), score in zip(why.players.index.tolist(), why.scores.tolist(), strict=True):
        expected = float(x[node, lag] * getattr(net, weights[node])[lag]) if node in weights else 0.0
        assert score == pytest.approx(expected, abs=1e-6)


def test_windows_of_lags_are_players():
    target = asked()[1]
    players = target.players("node_features", size=2)
    assert players.names == ("2 feature 0–1", "2 feature 2–3", "3 feature 0–1", "3 feature 2–3")
    why, each = Shapley(players).explain(target), Shapley("node_features").explain(target)
    by_entry = {
        tuple(entry): score for entry, score in zip(each.players.index.tolist(), each.scores.tolist(), strict=True)
    }
    for group, score in zip(players.groups, why.scores.tolist(), strict=True):
        assert score == pytest.approx(sum(by_entry.get(tuple(entry), 0) for entry in group.tolist()), abs=1e-6)
    slopes = Gradient(players, method="input_x_gradient").explain(target)
    assert torch.allclose(slopes.scores, why.scores, atol=1e-5)
    columns = target.players("features", size=3)
    assert columns.names == ("feature 0–2", "feature 3")
    assert float(Shapley(columns).explain(target).scores.sum()) == pytest.approx(float(why.scores.sum()), abs=1e-6)
    with pytest.raises(ValueError, match="adjacent columns"):
        target.players("features", size=0)


def test_the_graph_helps_where_neighbours_lead():
    data = planted()
    found = {}
    for graph in (True, False):
        net = chickenpox.train(data, Forecaster(graph=graph), epochs=150, progress=False)
        found[graph] = errors(net, data.part(0.4, 1)).per_node
    assert found[True] < 0.8 * found[False]


def test_the_published_error_is_of_every_pair():
    class Fixed(nn.Module):
        def forward(self, x, edge_index):
            return torch.tensor([1.0, 2.0]).expand(len(x), 2)[..., None]

    cases = torch.tensor([[0.0, 4.0]])
    found = errors(Fixed(), Series(torch.zeros(1, 2, 4), cases, RING))
    assert found.per_node == pytest.approx((1 + 4) / 2)
    assert found.as_published == pytest.approx((1 + 4 + 9 + 4) / 4)


def test_without_the_data_it_is_said_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="pytorch_geometric_temporal"):
        chickenpox.chickenpox(tmp_path)
