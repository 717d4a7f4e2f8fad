import graph_cases
import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn
from torch_geometric.data import Data

import explain
from explain import GraphLime, graph_lime
from explain.graph_lime import hsic_lasso
from explain.types import Players


class Pointwise(nn.Module):
    """Predicts from two features of a node alone; the rest are noise."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, -3.0], [2.0, -2.0]]))

    def forward(self, x, edge_index):
        return (x[:, :2] @ self.weight).tanh() * 3 + 0 * edge_index.sum()


def everybody(features=8, nodes=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, features, generator=generator)
    path = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    return Data(x=x, edge_index=torch.cat([path, path.flip(0)], 1))


def kernels(x, y):
    """The paper's centred and normalised kernels, one entry at a time."""
    n, d = x.shape
    centre = np.eye(n) - 1 / n
    made = []
    for k in range(d):
        column = x[:, k] / x[:, k].std()
        made.append(np.array([[np.exp(-((a - b) ** 2) / 2) for b in column] for a in column]))
    width = np.sqrt(y.var(0).sum())
    made.append(np.array([[np.exp(-((a - b) ** 2).sum() / (2 * width**2)) for b in y] for a in y]))
    centred = [centre @ kernel @ centre for kernel in made]
    return [kernel / np.linalg.norm(kernel) for kernel in centred]


@pytest.mark.parametrize("penalty", [0.01, 0.1, 0.3])
def test_the_coefficients_are_those_of_the_lasso_on_all_pairs(penalty):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(15, 4, generator=generator).double()
    y = torch.stack([x[:, 0].tanh(), x[:, 1] * x[:, 2]], 1)
    *features, likeness = kernels(x.numpy(), y.numpy())
    columns = np.stack([kernel.ravel() for kernel in features], 1)
    slow = Lasso(alpha=penalty / len(columns), positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    slow.fit(columns, likeness.ravel())
    beta, explained, kkt = hsic_lasso(x, y, penalty)
    assert beta.numpy() == pytest.approx(slow.coef_, abs=1e-7)
    assert explained == pytest.approx(1 - np.linalg.norm(columns @ slow.coef_ - likeness.ravel()) ** 2, abs=1e-7)
    assert kkt < 1e-10


def test_columns_that_are_one_share_and_constant_ones_and_large_ones_change_nothing():
    draws = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).double()
    y = torch.stack([draws[:, 0].tanh(), -draws[:, 1]], 1)
    plain = hsic_lasso(draws, y, 0.0)[0]
    twins, explained, kkt = hsic_lasso(torch.cat([draws, -3 * draws[:, :2], torch.full((40, 1), 0.3)], 1), y, 0.0)
    assert twins[[0, 1]].numpy() == pytest.approx(plain[[0, 1]].numpy() / 2, abs=1e-9)
    assert torch.allclose(twins[[0, 1]], twins[[4, 5]])
    assert twins[6] == 0
    assert explained is not None
    assert kkt < 1e-9
    assert hsic_lasso(draws + 1e7, y, 0.0)[0].numpy() == pytest.approx(plain.numpy(), abs=1e-6)


def test_a_lasso_that_has_not_converged_says_so(monkeypatch):
    monkeypatch.setattr(graph_lime, "_STEPS", 1)
    with pytest.warns(UserWarning, match="has not converged"):
        why = GraphLime(penalty=0.01, seed=0).explain(explain.wrap(WholeGraph(), everybody(nodes=12)).node(2))
    assert why.checks["kkt"] > 1e-6


def test_outputs_without_classes_are_taken_as_they_are():
    class Regressor(WholeGraph):
        label = None

    data = everybody()
    target = explain.wrap(Regressor(), data).node(20)
    large = 30 * target.neighbourhood().outputs  # a softmax of it would be all or nothing
    target.label = None
    around = target.neighbourhood()._replace(outputs=large)
    target.neighbourhood = lambda: around
    expected = hsic_lasso(around.x[:, around.players.index].double(), large.double(), 0.1)[0]
    assert torch.equal(GraphLime(seed=0).explain(target).scores, expected)


def test_the_features_that_the_model_reads_get_the_credit():
    wide = explain.wrap(WholeGraph(), everybody()).node(20)
    why = GraphLime(penalty=0.05, seed=0).explain(wide)
    assert why.checks["nodes"] == 40
    assert why.players.index[why.scores.topk(2).indices].sort().values.tolist() == [0, 1]
    assert why.checks["selected"] <= 4


class WholeGraph(Pointwise):
    """The same, with every node in its receptive field."""

    def forward(self, x, edge_index):
        return super().forward(x, edge_index) + 1e-6 * x.mean()


def test_a_large_penalty_selects_nobody():
    why = GraphLime(penalty=1.0, seed=0).explain(explain.wrap(WholeGraph(), everybody()).node(20))
    assert not why.scores.any()
    assert why.checks["selected"] == 0


def test_it_works_on_a_trained_architecture_and_keeps_the_explained_node():
    data = graph_cases.random_graph()
    target = explain.wrap(graph_cases.network("gcn"), data).node(3)
    around = target.neighbourhood()
    assert torch.equal(around.x[around.row], data.x[3])
    full = target.module(data.x, data.edge_index)
    assert torch.allclose(around.outputs[around.row], full[3], atol=1e-6)
    why = GraphLime(penalty=0.0, nodes=10, seed=0).explain(target)
    assert why.checks["nodes"] == 10
    assert (why.scores >= 0).all()
    assert "sign" in why.checks["scores"]


def test_nodes_that_do_not_differ_give_a_warning_and_zeros():
    data = everybody()
    data.x = torch.ones_like(data.x)
    with pytest.warns(UserWarning, match="do not differ"):
        why = GraphLime(seed=0).explain(explain.wrap(WholeGraph(), data).node(2))
    assert len(why.scores) == 0


def test_pairs_and_graphs_are_refused():
    data = graph_cases.random_graph()
    target = explain.wrap(
        graph_cases.network("gcn"), data, task="edge", decoder=lambda z, pairs: (z[pairs[0]] * z[pairs[1]]).sum(1)
    ).edge(1, 2)
    with pytest.raises(explain.Unsupported, match="one explained node"):
        GraphLime().explain(target)


def test_a_question_about_no_graph_is_told_who_answers_it():
    target = explain.wrap(nn.Linear(3, 2), task="classification").example(torch.ones(3))
    with pytest.raises(
        explain.Unsupported, match=r"nodes around one of a graph, and ExampleTarget .* by Shapley, .*Lime"
    ):
        GraphLime().explain(target)


@pytest.mark.parametrize(("setting", "value"), [("penalty", -1.0), ("penalty", float("nan")), ("nodes", 1)])
def test_settings_are_checked(setting, value):
    with pytest.raises(ValueError, match=setting):
        GraphLime(**{setting: value})


@pytest.mark.parametrize("players", ["features", Players("features", torch.arange(2))])
def test_players_are_no_setting(players):
    with pytest.raises(TypeError, match="always the features"):
        GraphLime(players)
