"""Influence of nodes and edges against retraining: the karate club and a block model; the whole table is a script."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, jvp

import explain
from models.removal import experiments
from models.removal.edit_table import table as edit_table
from models.removal.edits import Kind, Setting, citations, drawn, measured, trained
from models.removal.experiments import BLOCKS, KARATE, Experiment, blocks, four_labels, rows
from models.removal.losses import Layout
from models.removal.minima import Training, metric_of
from models.removal.networks import Deep, Sgc, SmoothGcn
from models.removal.study import some, table, without


def test_the_karate_club_exhaustively():
    nodes = KARATE.run("nodes", nodes=(8, 33), newton=False)
    edges = KARATE.run("edges", nodes=(8,), newton=False)
    assert (nodes.removals, edges.removals) == (66, 78)
    assert nodes.total >= 0.98
    assert nodes.learned >= 0.95
    assert edges.total >= 0.99
    assert edges.worst >= 0.99
    assert edges.learned >= 0.95
    assert nodes.structural < 0.9  # neither part alone
    assert max(nodes.gradient, nodes.retrained) <= 1e-10
    assert nodes.lambda_min >= 0.05 - 1e-9
    assert list(table([nodes, edges]).kind) == ["nodes", "edges"]


def test_edges_that_are_added():
    convex = KARATE.run("added", nodes=(8,), added=20)
    assert convex.removals == 20
    assert convex.total >= 0.98
    assert convex.newton >= 0.999
    deep = BLOCKS.run("added", nodes=(50,), added=20, newton=False)
    assert deep.total >= 0.98
    assert 0.9 < deep.slope < 1.1


def test_two_layers_at_their_optimum():
    with pytest.warns(UserWarning, match="the Newton step is damped for"):
        nodes = BLOCKS.run("nodes", nodes=(50,), removals=14)
    edges = BLOCKS.run("edges", nodes=(50,), removals=20, newton=False)
    assert 0.995 <= nodes.newton >= nodes.total
    assert nodes.total >= 0.98
    assert nodes.learned >= 0.95
    assert edges.total >= 0.99
    assert edges.learned >= 0.95
    assert nodes.own < 0.6
    assert nodes.fall > 1e4 * nodes.retrained / nodes.lambda_min  # what is left of the gradient moves nothing
    assert 0 < nodes.lambda_min < BLOCKS.weight_decay  # not convex: a minimum none the less


@pytest.mark.parametrize("make", [Sgc, SmoothGcn])
def test_the_loss_by_its_matrices_is_the_networks(make):
    torch.manual_seed(0)
    data = without(blocks(size=12, labelled=4), "edges", torch.tensor([3]))  # one direction is left
    net, training = make(8, 3).double(), Training(data, 0.03, 13)
    names = list(Layout.of(net).shapes)

    def trained_loss(params):
        outputs = functional_call(net, params, (data.x, data.edge_index))[data.train_mask]
        fit = F.cross_entropy(outputs, data.y[data.train_mask], reduction="sum") / 13
        return fit + 0.03 / 2 * sum(p.square().sum() for p in params.values())

    def flat(params):
        return np.concatenate([params[name].detach().numpy().T.ravel() for name in names])

    params = {name: p.detach() for name, p in net.named_parameters()}
    along = {name: torch.randn_like(p) for name, p in params.items()}
    gradient, product = jvp(grad(trained_loss), (params,), (along,))
    value, g, curve = training.loss(net).at(Layout.of(net).read(net))
    assert value == pytest.approx(float(trained_loss(params)), rel=1e-12)
    np.testing.assert_allclose(g, flat(gradient), rtol=0, atol=1e-13)
    np.testing.assert_allclose(curve(flat(along)), flat(product), rtol=0, atol=1e-12)
    at_rest = training.to_minimum(net, first=500)
    assert training.gradient_norm(at_rest) <= 1e-10 < training.gradient_norm(net)


@pytest.mark.parametrize("kind", ["GCN", "GAT", "ChebNet"])
def test_the_loss_of_any_network_is_differentiated_rightly_and_comes_to_rest(kind):
    torch.manual_seed(0)
    data = blocks(size=8, labelled=4)
    net, training = Deep(kind, 8, 3, 2, 2).double(), Training(data, 0.1, 12, slope=1e-9)
    loss, theta = training.loss(net), Layout.of(net).read(net)
    value, gradient, product = loss.at(theta)
    along = np.random.default_rng(0).normal(size=len(theta))
    ahead, behind = (loss.at(theta + h * along) for h in (1e-5, -1e-5))
    assert gradient @ along == pytest.approx((ahead[0] - behind[0]) / 2e-5, rel=1e-6)
    np.testing.assert_allclose(product(along), (ahead[1] - behind[1]) / 2e-5, atol=1e-6)
    with torch.no_grad():
        outputs = net(data.x, data.edge_index)[data.train_mask]
        penalty = 0.05 * sum(float(p.square().sum()) for p in net.parameters())
    assert value == pytest.approx(float(F.cross_entropy(outputs, data.y[data.train_mask])) + penalty, rel=1e-12)
    at_rest = training.to_minimum(net, first=500)
    again = training.to_minimum(net, first=500, metric=metric_of(training, at_rest))
    assert training.gradient_norm(again) <= 1e-9 < training.gradient_norm(net)


def test_groups_of_edits():
    setting = Setting("GCN", 3, 0.03, small, (5, 20), hidden=4)
    kind = Kind("both", 2, 2, 5)
    line = measured(setting, kind)
    assert line.response >= 0.9999
    assert line.first_low <= line.first <= line.first_high
    assert line.response >= line.first > 0.5
    assert line.left <= 1e-9 < line.change
    data = trained(setting)[0]
    edits = drawn(data, (5, 20), kind)
    here = {*map(tuple, data.edge_index.T.tolist())}
    assert all(tuple(edge) not in here for add, _ in edits for edge in add.T.tolist())
    assert all(tuple(edge) in here for _, gone in edits for edge in gone.T.tolist())
    text = edit_table([(setting, kind, line)]).splitlines()
    assert text[2].startswith("| GCN, 3 layers, blocks, penalty 0.03 | both | 5 | ")
    assert {row.count("|") for row in text[:3]} == {11}


def small():
    return citations(size=8, labelled=4, words=10)


def test_no_minimum_is_said():
    training = Training(blocks(size=6, labelled=2), 0.01, 6, slope=0.0)
    with pytest.raises(RuntimeError, match="no minimum: the gradient norm is"):
        training.to_minimum(Sgc(8, 3).double())


def test_data_without():
    data = blocks(size=10, labelled=3)
    gone = without(data, "nodes", torch.tensor([2]))
    assert 2 not in gone.edge_index
    assert not gone.x[2].any()
    assert not gone.train_mask[2]
    assert int(data.train_mask.sum()) == 9
    fewer = without(data, "edges", torch.tensor([0]))
    assert fewer.edge_index.equal(data.edge_index[:, 1:])


def test_some_of_the_players():
    target = explain.wrap(Sgc(8, 3).double(), blocks(size=10, labelled=3)).node(0)
    players = target.players("edges", all=True, undirected=True)
    chosen = some(players, torch.tensor([1, 3]))
    assert chosen.names == (players.names[1], players.names[3])
    assert chosen.geometry["ends"].equal(players.geometry["ends"][:, [1, 3]])
    assert len(chosen.groups) == 2


def test_a_part_that_is_done_is_not_done_again(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setattr(experiments, "_code", lambda: "as it was")
    small = Experiment("small", four_labels, 0.05, (8,), removals=6, added=6, newton=False)
    first, *_ = rows([small])
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(experiments, "study", None)  # would be called
    again = next(rows([small]))
    assert {k: v for k, v in dataclasses.asdict(again).items() if v == v} == {
        k: v for k, v in dataclasses.asdict(first).items() if v == v
    }
    with pytest.raises(TypeError):
        next(rows([small], fresh=True))
    with pytest.raises(TypeError):
        next(rows([dataclasses.replace(small, weight_decay=0.06)]))
    monkeypatch.setattr(experiments, "_code", lambda: "edited")
    with pytest.raises(TypeError):
        next(rows([small]))
