"""Influence of nodes and edges: exact where it must be, and the same by the quick way and the slow one."""

import copy

import pytest
import torch
from graph_cases import DECAY, doubled, graph_ridge, network, random_graph, ridge_target

import explain
from explain import Influence, Players, Shapley
from explain.influence import edited_graphs
from explain.influence.curvature import Hessian
from explain.influence.edited_graphs import OneByOne, removal_parts
from explain.influence.scores import measured_gradient, training_gradient


def edited(data, kind, atom):
    made = copy.copy(data)
    if kind == "edges":
        made.edge_index = data.edge_index[:, torch.arange(data.num_edges) != atom]
    else:
        made.edge_index = data.edge_index[:, (data.edge_index != atom).all(0)]
        made.x, made.train_mask = data.x.clone(), data.train_mask.clone()
        made.x[atom], made.train_mask[atom] = 0, False
    return made


@pytest.fixture(scope="module")
def target():
    return ridge_target()


@pytest.mark.parametrize("kind", ["nodes", "edges"])
def test_a_newton_step_is_retraining_where_the_loss_is_quadratic(target, kind):
    data, everyone = target.model.data, target.players(kind, all=True)
    players = Players(kind, everyone.index[:: 1 if kind == "nodes" else 4])
    found = Influence(remove=players, newton=True, seed=0).explain(target)
    falls = []
    for atom in found.players.index.tolist():
        other = edited(data, kind, atom)
        again = graph_ridge(other, int(data.train_mask.sum()))
        falls.append(target.value() - float(again(other.x, other.edge_index)[4, 0].detach()))
    falls = torch.tensor(falls, dtype=torch.float64)
    torch.testing.assert_close(found.scores, falls, rtol=0, atol=1e-9)
    assert found.checks["newton"]
    assert found.checks["newton_damped"] == []
    first = Influence(remove=players, seed=0).explain(target)
    torch.testing.assert_close(found.parts["first_order"], first.parts["learned"])
    alike = torch.corrcoef(torch.stack([first.scores, falls]))[0, 1]
    assert alike > 0.8  # few labels: first order is far from exact here
    assert (first.scores - falls).abs().max() > 1e-4


def test_a_newton_step_without_a_label(target):
    found = Influence(newton=True, seed=0).explain(target)
    data = target.model.data
    for player, node in list(enumerate(found.players.index.tolist()))[::3]:
        train = data.train_mask.clone()
        train[node] = False
        again = graph_ridge(data, int(data.train_mask.sum()), train)
        fall = target.value() - float(again(data.x, data.edge_index)[4, 0].detach())
        assert float(found.scores[player]) == pytest.approx(fall, abs=1e-9)


@pytest.mark.parametrize("kind", ["nodes", "edges", "features", "motifs", "node_features"])
def test_the_formula_by_the_whole_matrix(target, kind):
    """``f - f' + grad f'^T H^-1 (grad L' - grad L)`` with every gradient by itself."""
    found = Influence(remove=kind, seed=0).explain(target)
    objective = target.objective(remove=kind)
    theta = torch.cat([p.reshape(-1) for p in objective.params.values()])
    shapes = {name: p.shape for name, p in objective.params.items()}

    def params(vector):
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        return {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}

    def loss(vector, one):
        return one.train_loss(params(vector), torch.arange(one.size)).sum() / one.size

    H = torch.autograd.functional.hessian(lambda t: loss(t, objective) + DECAY / 2 * t @ t, theta)
    before = torch.func.grad(loss)(theta, objective)
    for player in range(0, len(objective.players), 9):
        other = objective.edited(player)
        number, slope = torch.func.grad_and_value(lambda t, other=other: other.measurement(params(t)))(theta)[::-1]
        learned = slope @ torch.linalg.solve(H, torch.func.grad(loss)(theta, other) - before)
        assert float(found.parts["learned"][player]) == pytest.approx(float(learned), abs=1e-10)
        assert float(found.parts["structural"][player]) == pytest.approx(found.value - float(number), abs=1e-12)


def test_every_bar_has_its_total_and_reaches_it(target, monkeypatch):
    bars, usual = [], edited_graphs.in_sight

    def watched(*args, progress, **options):
        bar = usual(*args, progress=progress, **options)
        bars.extend([bar] if progress else [])
        return bar

    monkeypatch.setattr(edited_graphs, "in_sight", watched)
    Influence(remove="nodes", solver="exact", curvature="hessian", damping=0, progress=True).explain(target)
    assert {bar.desc.rstrip(": ") for bar in bars} == {"edited losses", "edited numbers"}
    assert all(bar.n == bar.total for bar in bars)


def test_the_quick_way_is_the_slow_one(target):
    objective = target.objective(remove="nodes")
    H = explain.influence.Hessian(objective).dense()
    s = torch.linalg.solve(H, measured_gradient(objective)[1])
    quick = removal_parts(objective, lambda b: torch.linalg.solve(H, b), s)

    class Bare:  # an objective that offers nothing but ``edited``
        def __getattr__(self, name):
            if name in ("moving", "dropped", "numbers", "loss_changes"):
                raise AttributeError(name)
            return getattr(objective, name)

    slow = removal_parts(Bare(), lambda b: torch.linalg.solve(H, b), s)
    for name in ("structural", "learned", "learned_unedited"):
        torch.testing.assert_close(getattr(quick, name), getattr(slow, name), rtol=0, atol=1e-12)
    assert not slow.own.any()  # not known without ``dropped``
    assert OneByOne(target.objective()).dropped().tolist() == [list(range(objective.size))] * 2
    nodes, train = objective.players.index, target.model.data.train_mask
    assert ((quick.own != 0) == train[nodes]).all()


def test_many_numbers_at_once(target):
    others = [target, target.model.node(7, label=1)]
    together = Influence(remove="nodes", seed=0).explain_all(others)
    for one, asked in zip(together, others, strict=True):
        alone = Influence(remove="nodes", seed=0).explain(asked)
        assert one.players.index.equal(alone.players.index)
        torch.testing.assert_close(one.scores, alone.scores)


def test_edges_compare_with_shapley_and_are_drawn(target):
    shared = target.players("edges", undirected=True)
    why = Influence(remove=shared, seed=0).explain(target)
    shapley = Shapley(shared, samples=144, seed=0).explain(target)
    found = explain.compare(why, shapley)
    assert found.kind == "edges"
    assert not any("removal" in note for note in found.notes)
    message = Shapley(shared, samples=144, seed=0).explain(target.model.node(4, label=0, removal="message"))
    with pytest.warns(UserWarning, match="removal is Influence delete"):
        explain.compare(why, message)
    for kind in ("edges", "nodes"):
        answer = Influence(remove=kind, seed=0).explain(target)
        assert answer.plot().get_title(loc="left")
        assert answer.to_networkx().number_of_nodes() >= 14
        assert answer.settings["remove"] == kind


def test_a_newton_step_is_damped_where_the_losses_bend_down():
    data = doubled(random_graph(nodes=12, edges=16))
    half = explain.wrap(network("sage", double=True), data, weight_decay=1e-3).node(4, label=0)
    with pytest.warns(UserWarning, match=r"not at a minimum|Newton step is damped") as said:
        found = Influence(remove="nodes", newton=True, curvature="hessian", seed=0).explain(half)
    damped = found.checks["newton_damped"]
    assert bool(damped) == any("Newton step is damped" in str(one.message) for one in said)
    assert damped
    player, objective = damped[0], half.objective(remove="nodes")
    edited, least = objective.edited(player), found.checks["lambda_min"]
    A = Hessian(edited, found.checks["damping"])
    values, vectors = torch.linalg.eigh(A.dense())
    assert values[0] < least
    g = training_gradient(edited) - training_gradient(objective)
    penalty = 1e-3 + found.checks["damping"]
    x = vectors @ ((vectors.T @ g) / (values + min(least, penalty) - values[0]))
    with torch.no_grad():
        moved = edited.measurement(A.flat.params(A.theta - x))
    assert float(found.scores[player]) == pytest.approx(found.value - float(moved), rel=1e-6)


@pytest.mark.parametrize("bad", [{"newton": 1}, {"newton": "yes"}])
def test_newton_is_true_or_false(bad):
    with pytest.raises(ValueError, match="newton must be True or False"):
        Influence(**bad)
