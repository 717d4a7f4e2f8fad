"""Influence on cases whose answer is known: retraining, paper form, and the documented answers."""

import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from influence_cases import ObjectiveTarget, digits, half_trained, logistic, module_objective
from reference import influence as reference
from torch import nn

from explain.influence import (
    ConjugateGradient,
    Diverged,
    Exact,
    GaussNewton,
    Hessian,
    Indefinite,
    Influence,
    Lissa,
    parameter_change,
)
from explain.influence.scores import measured_gradient
from explain.influence.spectrum import extreme_eigenvalues
from explain.types import NonFinite, Target, Unsupported


def explained(objective, **settings):
    return Influence(**{"seed": 0, **settings}).explain(ObjectiveTarget(objective))


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def retrained():
    """Fifty examples left out, each retrained to machine precision: the falls ``[50]`` and the moves ``[50, p]``."""
    objective = logistic()
    strongest = explained(objective).scores.abs().argsort(descending=True)
    chosen = torch.cat([strongest[:25], strongest[25::7]]).tolist()
    falls, moves = zip(*[reference.leave_one_out(objective, i) for i in chosen], strict=True)
    return chosen, torch.tensor(falls, dtype=torch.float64), torch.stack(moves)


def test_exact_predicts_retraining(retrained):
    chosen, falls, _ = retrained
    scores = explained(logistic(), solver="exact").scores[chosen]
    assert np.corrcoef(scores, falls)[0, 1] >= 0.99
    slope = float(scores @ falls / (scores @ scores))
    assert 0.9 < slope < 1.3  # a first-order estimate understates large effects; the sign and the scale are right


def test_the_parameters_move_as_predicted(retrained):
    chosen, _, moves = retrained
    objective = logistic()
    A = Hessian(objective)
    for player, real in list(zip(chosen, moves, strict=True))[::5]:
        change = parameter_change(objective, player, A)
        assert {k: v.shape for k, v in change.items()} == {k: v.shape for k, v in objective.params.items()}
        predicted = A.flat.vector(change)
        assert torch.cosine_similarity(predicted, real, dim=0) >= 0.99
        assert 0.7 < float(real.norm() / predicted.norm()) < 1.5


def test_lissa_agrees_with_exact():
    exact = explained(logistic(), solver="exact").scores
    for solver in ("lissa", Lissa(batch_size=32), Lissa(batch_size=32, momentum=False), Lissa(momentum=False)):
        found = explained(logistic(), solver=solver)
        assert relative(found.scores, exact) <= 0.02
        assert found.checks["residual"] <= 1e-4
        if not found.checks["rank"]:
            assert found.checks["scale"] >= found.checks["lambda_max"]
        assert found.checks["converged"]


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa"])
@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_paper_form(solver, curvature):
    objective = half_trained()
    slow = {"hessian": reference.hessian, "ggn": reference.gauss_newton}[curvature](objective)
    expected = reference.influence(objective, slow + 0.5 * torch.eye(len(slow), dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model is not at a minimum")
        found = explained(objective, solver=solver, curvature=curvature, damping=0.5)
    assert relative(found.scores, expected) < 1e-3
    assert found.parts["learned"].equal(found.scores)
    assert not found.parts["structural"].any()
    everyone = torch.arange(objective.size)
    assert found.parts["self_loss"].allclose(objective.train_loss(objective.params, everyone).double())
    assert found.value == pytest.approx(float(objective.measurement(objective.params)))
    assert found.base is None


def test_the_standard_errors_of_lissa_are_about_right():
    exact = explained(logistic(), solver="exact")
    assert exact.error is None
    assert explained(logistic(), solver="cg").error is None
    for solver in (Lissa(batch_size=16, tolerance=1e-2), Lissa(batch_size=16, depth=40), Lissa(tolerance=1e-2)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the inverse is loose")
            found = explained(logistic(), solver=solver)
        ratio = ((found.scores - exact.scores) / found.error).abs()
        assert 0.2 < float(ratio.median()) < 3


@pytest.mark.parametrize("solver", [ConjugateGradient(tolerance=0.1), Lissa(depth=30), Lissa(depth=30, batch_size=16)])
@pytest.mark.filterwarnings("ignore:the inverse is loose")
def test_the_error_bound_holds(solver):
    objective = logistic()
    A = Hessian(objective)
    gradient = measured_gradient(objective)[1]
    generator = torch.Generator().manual_seed(0)
    found = solver.solve(A, gradient, extreme_eigenvalues(A, generator), generator)
    true = (found.x - torch.linalg.solve(reference.hessian(objective), gradient)).norm() / found.x.norm()
    assert 1e-6 < true <= explained(objective, solver=solver).checks["error_bound"]


def test_an_indefinite_hessian_gets_the_documented_answers():
    objective = half_trained()
    spectrum = torch.linalg.eigvalsh(reference.hessian(objective))
    inverted = r"Hessian's smallest eigenvalue is .* Inverted instead: ggn with damping"
    with pytest.warns(UserWarning, match="finishing the training"), pytest.warns(UserWarning, match=inverted):
        found = explained(objective)
    assert found.checks["curvature"] == "ggn"
    assert found.checks["hessian_lambda_min"] == pytest.approx(float(spectrum[0]))
    assert found.checks["lambda_min"] >= 0.999e-3 * found.checks["lambda_max"] - found.checks["damping"] * 1e-3
    ggn = reference.gauss_newton(objective)
    damped = ggn + found.checks["damping"] * torch.eye(len(ggn), dtype=torch.float64)
    assert relative(found.scores, reference.influence(objective, damped)) < 1e-6

    with pytest.raises(Indefinite, match=rf"smallest eigenvalue is {float(spectrum[0]):.3g}.*damping=") as raised:
        explained(objective, curvature="hessian", damping=0)
    enough = float(str(raised.value).split("damping=")[1].split(",")[0])
    with pytest.warns(UserWarning, match="not at a minimum"):
        damped_hessian = explained(objective, curvature="hessian")
    assert damped_hessian.checks["damping"] == pytest.approx(enough, rel=0.05)
    given = round(-float(spectrum[0]) / 2, 3)
    with pytest.raises(Indefinite, match=f"hessian with damping {given:.3g}.*damping=") as raised:
        explained(objective, curvature="hessian", damping=given)
    assert float(str(raised.value).split("Use damping=")[1].split(",")[0]) == enough  # in all, not on top
    assert damped_hessian.checks["lambda_min"] > 0


def test_a_minimum_needs_neither_damping_nor_warning():
    found = explained(logistic())
    assert (found.checks["curvature"], found.checks["damping"], found.checks["solver"]) == ("hessian", 0.0, "exact")
    assert found.checks["gradient_norm"] < 1e-10
    assert abs(found.checks["still_to_move"]) < 1e-8
    assert found.checks["residual"] < 1e-10


def test_auto_takes_conjugate_gradients_for_many_parameters(monkeypatch):
    monkeypatch.setattr("explain.influence.solvers.choice.DIRECT", 10)
    found = explained(logistic())
    assert found.checks["solver"] == "cg"
    assert "68 parameters are too many" in found.checks["why_solver"]
    assert relative(found.scores, explained(logistic(), solver="exact").scores) < 1e-3


def test_a_loose_inverse_is_warned_about():
    with pytest.warns(UserWarning, match=r"the inverse is loose: .* 2 steps of cg"):
        explained(logistic(), solver=ConjugateGradient(max_iterations=2))


def test_the_batch_size_changes_nothing():
    for solver in ("exact", ConjugateGradient(1e-9), "lissa", Lissa(batch_size=16, tolerance=1e-2)):
        whole = explained(logistic(), solver=solver)
        for batch_size in (33, 199):
            found = explained(replace(logistic(), batch_size=batch_size), solver=solver)
            assert relative(found.scores, whole.scores) < 1e-6, (solver, batch_size)


def test_the_same_seed_the_same_answer_and_the_global_states_untouched():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002 - the global state is what is watched
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    solver = Lissa(batch_size=16, tolerance=1e-2)
    first, second, other = (explained(logistic(), solver=solver, seed=s) for s in (3, 3, 4))
    assert first.scores.equal(second.scores)
    assert first.error.equal(second.error)
    assert not first.scores.equal(other.scores)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.get_rng_state().equal(states[2])


def test_the_model_is_left_alone():
    x, y, others, _ = digits(30)
    net = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4)).double()
    net(x)
    net.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    objective = module_objective(net, x, y, asked=others[:1], weight_decay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Influence(seed=0).explain(ObjectiveTarget(objective, net))
    assert all(v.equal(before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_taking_away_what_pushes_the_number_up_lets_it_fall():
    """The mean of the data as the model: leaving out a point far above moves the mean down, whatever the solver."""
    data = torch.tensor([[0.0], [1.0], [8.0]], dtype=torch.float64)
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(net.weight, 3.0)
    objective = module_objective(net, torch.ones(3, 1).double(), data, asked=torch.ones(1, 1).double())
    for solver in ("exact", "cg", "lissa"):
        scores = explained(objective, solver=solver).scores
        assert scores.tolist() == pytest.approx([-1.0, -2 / 3, 5 / 3], rel=1e-3)  # (x - mean) / n


def test_a_number_that_depends_on_no_parameter():
    constant = replace(logistic(), number=lambda p: p["w"].sum() * 0 + 2)
    for solver in ("exact", "cg", "lissa"):
        found = explained(constant, solver=solver)
        assert not found.scores.any()
        assert found.value == 2


def test_nan_in_the_training_set():
    x, y, others, _ = digits(10)
    spoilt = x.clone()
    spoilt[0, 0] = torch.nan
    with pytest.raises(NonFinite, match="training losses"):
        explained(module_objective(nn.Linear(16, 4).double(), spoilt, y, asked=others[:1]))
    with pytest.raises(NonFinite, match="number"):
        explained(module_objective(nn.Linear(16, 4).double(), x, y, asked=spoilt[:1]))


def test_a_target_without_a_training_objective():
    class Bare(Target):
        module = nn.Identity()

    with pytest.raises(Unsupported, match=r"does not offer objective\(\)"):
        Influence().explain(Bare())


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"remove": "walls"}, ValueError),
        ({"solver": "magic"}, ValueError),
        ({"solver": 3}, TypeError),
        ({"solver": Lissa}, TypeError),
        ({"curvature": "flat"}, ValueError),
        ({"damping": -1}, ValueError),
        ({"damping": "some"}, ValueError),
        ({"damping": float("nan")}, ValueError),
        ({"damping": True}, ValueError),
    ],
)
def test_settings_are_checked_when_built(bad, error):
    with pytest.raises(error, match=next(iter(bad))):
        Influence(**bad)


def test_settings_are_written_down():
    found = explained(logistic(), solver=Lissa(repeats=2, batch_size=32), damping=0.1)
    assert found.settings["solver"]["Lissa"]["repeats"] == 2
    assert found.settings["damping"] == 0.1


def test_divergence_reaches_the_user():
    with pytest.raises(Diverged, match="Use scale="):
        explained(logistic(), solver=Lissa(scale=0.01, depth=60))


def test_the_change_of_the_parameters_by_any_solver():
    objective = logistic()
    exact = parameter_change(objective, 5)
    for player in (-1, objective.size):
        with pytest.raises(IndexError, match="player must be from 0 to 199"):
            parameter_change(objective, player)
    for solver in (Exact(), ConjugateGradient(), Lissa()):
        for A in (Hessian(objective), GaussNewton(objective)):
            found = parameter_change(objective, 5, A, solver)
            assert all((found[k] - exact[k]).norm() < 1e-3 * exact["w"].norm() for k in exact)
