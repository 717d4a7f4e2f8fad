"""Many numbers of one model in one solution: the same answers as one by one."""

import warnings
from dataclasses import replace

import pytest
import torch
from influence_cases import ObjectiveTarget, digits, half_trained, logistic, module_objective
from reference import influence as reference
from torch import nn

import explain
from explain.influence import Influence, Lissa
from explain.influence.assembly import separate
from explain.influence.leverage import leverages
from explain.influence.scores import directional

SHARED = nn.Identity()


def targets(count=6):
    """The logits of class 2 for so many digits, of one model."""
    _, _, others, _ = digits()
    objective = logistic()

    def number(k):
        return lambda p: others[k] @ p["w"][2] + p["b"][2]

    return [ObjectiveTarget(replace(objective, number=number(k)), SHARED) for k in range(count)]


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa", Lissa(batch_size=32, tolerance=1e-2)])
def test_together_as_one_by_one(solver):
    engine = Influence(solver=solver, seed=0)
    for found, target in zip(engine.explain_all(targets()), targets(), strict=True):
        alone = engine.explain(target)
        error = (found.scores - alone.scores).norm() / alone.scores.norm()
        assert error < (0.05 if isinstance(solver, Lissa) else 1e-3)
        assert found.value == alone.value
        assert (found.error is None) == (alone.error is None)
        assert found.checks["residual"] <= 1e-2
        assert found.players.names == alone.players.names


def test_many_share_one_krylov_space():
    _, _, others, labels = digits()
    module = nn.Linear(16, 4).double()
    x, y, _, _ = digits()
    target = explain.wrap(module, task="classification", train=(x, y), weight_decay=0.1)
    asked = [target.example(a, label=int(b)) for a, b in zip(others[:16], labels[:16], strict=True)]
    with pytest.warns(UserWarning, match="not at a minimum"):
        few = Influence(seed=0).explain_all(asked[:2])
    assert few[0].checks["solver"] == "exact"
    with pytest.warns(UserWarning, match="not at a minimum"):
        one = Influence(seed=0).explain(asked[1])
    assert few[1].scores.allclose(one.scores)


def test_bounds_hold_for_each():
    exact = Influence(solver="exact", seed=0).explain_all(targets())
    rough = Influence(solver=explain.influence.ConjugateGradient(tolerance=1e-2), seed=0).explain_all(targets())
    for true, found in zip(exact, rough, strict=True):
        off = float((found.scores - true.scores).abs().max())
        assert 0 < off <= found.checks["score_bound"]
    assert len({found.checks["residual"] for found in rough}) == len(rough)


def test_only_of_one_model_and_training_set():
    mine = targets(2)
    with pytest.raises(ValueError, match="at least one target"):
        Influence().explain_all([])
    with pytest.raises(ValueError, match="all of the same model"):
        Influence().explain_all([mine[0], ObjectiveTarget(logistic())])
    with pytest.raises(ValueError, match="one training set"):
        Influence().explain_all([mine[0], ObjectiveTarget(half_trained(), SHARED)])
    with pytest.raises(TypeError, match="targets"):
        Influence().explain_all([3])
    with pytest.raises(TypeError, match="takes a list of targets, got one"):
        Influence().explain_all(mine[0])


def test_examples_that_share_their_computation_are_noticed():
    x, y, others, _ = digits(30)
    net = nn.Linear(16, 4).double()
    assert separate(module_objective(net, x, y, asked=others[:1]))
    together = replace(module_objective(net, x, y, asked=others[:1]))
    whole = replace(together, predict=lambda p, at: (x @ p["weight"].T + p["bias"])[at])
    assert not separate(whole)
    directions = torch.randn(68, 7, dtype=torch.float64)
    assert directional(together, directions).allclose(directional(whole, directions))


def test_the_bound_by_outputs_alone_holds_where_examples_share_their_computation():
    x = digits()[0]
    asked = targets()
    whole = [ObjectiveTarget(replace(t.own, predict=lambda p, at: (x @ p["w"].T + p["b"])[at]), SHARED) for t in asked]
    exact = Influence(solver="exact", seed=0).explain_all(whole)
    rough = Influence(solver=explain.influence.ConjugateGradient(tolerance=1e-2), seed=0).explain_all(whole)
    for true, found in zip(exact, rough, strict=True):
        assert 0 < float((found.scores - true.scores).abs().max()) <= found.checks["score_bound"]


def test_leverages_of_the_cross_entropy():
    objective = logistic()
    losses = objective.train_loss(objective.params, torch.arange(objective.size))
    assert leverages(objective).allclose(losses.exp() - 1)
    gradients, A = reference.loss_gradients(objective), reference.hessian(objective)
    true = (gradients * torch.linalg.solve(A, gradients.T).T).sum(1)
    assert (true <= objective.size * leverages(objective)).all()


@pytest.mark.parametrize("damping", [0.001, 0.1])
def test_the_bound_by_outputs_alone_holds_without_a_penalty(damping):
    """The smallest eigenvalue is then measured, and far above the damping."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 6, generator=generator, dtype=torch.float64)
    y = (x.sum(1) + 0.3 * torch.randn(100, generator=generator, dtype=torch.float64))[:, None]
    line = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        line.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    alone = module_objective(line, x, y, asked=x[:1])
    target = ObjectiveTarget(replace(alone, predict=lambda p, at: (x @ p["weight"].T)[at]))
    exact = Influence(solver="exact", damping=damping, seed=0).explain(target)
    for steps in (1, 2):
        solver = explain.influence.ConjugateGradient(max_iterations=steps)
        with pytest.warns(UserWarning, match="the inverse is loose"):
            rough = Influence(solver=solver, damping=damping, seed=0).explain(target)
        assert float((rough.scores - exact.scores).abs().max()) <= rough.checks["score_bound"]


@pytest.mark.parametrize("ask", ["explain", "explain_all", "objective"])
def test_what_the_training_was_taken_for_is_said_of_answers_about_it_alone(ask):
    torch.manual_seed(0)
    x = torch.randn(20, 2).double()
    net, data = nn.Linear(2, 1).double(), (x, torch.randn(20).double())
    target = explain.wrap(net, task="regression", train=data, weight_decay=0.1).example(x[0])
    before = explain.Shapley("features").explain(target).target
    engine = Influence(damping=1.0, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the model was not trained
        asked = {"explain": engine.explain, "explain_all": lambda one: engine.explain_all([one])[0]}
        answers = [asked[ask](target) for _ in range(2)] if ask in asked else [target.objective()]
    if ask in asked:
        found = [one.target for one in answers]
        assert found[0] == found[1]
        assert answers[0].settings == engine.settings() | {"loss": "mse"}
        assert found[0]["loss"] == "mse"
        assert "loss" in found[0]["assumed"]
    assert "loss" not in before
    for explainer in (explain.Shapley("features"), explain.Gradient("features")):
        why = explainer.explain(target)
        assert why.target == before
        assert why.settings == explainer.settings()
