"""Faults that other libraries were found to have, each held against the whole matrix by autograd."""

import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from influence_cases import ObjectiveTarget, digits, half_trained, logistic
from reference import influence as reference
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import explain
from explain.influence import (
    Arnoldi,
    ConjugateGradient,
    Diverged,
    Ekfac,
    Exact,
    GaussNewton,
    Hessian,
    Influence,
    Lissa,
    NystromCG,
    SelfInfluence,
)
from explain.influence.spectrum import extreme_eigenvalues

RAGGED = (7, 33, 199)  # batch sizes that leave a last batch of another size


def generator():
    return torch.Generator().manual_seed(0)


def solved(solver, A, b):
    return solver.solve(A, b, extreme_eigenvalues(A, generator()), generator())


def explained(objective, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model is not at a minimum|the inverse is loose")
        return Influence(**{"seed": 0, **settings}).explain(ObjectiveTarget(objective))


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@cache
def inverse_of_the_whole():
    return torch.linalg.inv(reference.hessian(logistic()))


@cache
def exact_scores():
    return reference.influence(logistic(), reference.hessian(logistic()))


@pytest.mark.parametrize("share", [0.02, 0.2, 0.45])
def test_a_scale_that_is_too_small_is_an_error_and_no_number(share):
    """At depth 60 others give finite numbers up to 40,000 times too large."""
    largest = float(torch.linalg.eigvalsh(reference.hessian(logistic()))[-1])
    with pytest.raises(Diverged, match="Use scale="):
        explained(logistic(), solver=Lissa(scale=share * largest, depth=60))


def test_a_small_residual_is_not_taken_for_a_small_error():
    rough = explained(logistic(), solver=ConjugateGradient(tolerance=0.3))
    off = float((rough.scores - exact_scores()).abs().max())
    assert 0.05 < rough.checks["residual"] <= 0.3
    assert 0 < off <= rough.checks["score_bound"]


def test_gauss_newton_is_no_empirical_fisher_matrix():
    objective = half_trained()
    rows = reference.loss_gradients(objective)
    fisher = rows.T @ rows / objective.size + 1e-3 * torch.eye(rows.size(1), dtype=torch.float64)
    for batch_size in (7, 30):  # 30: all in one batch
        found = GaussNewton(replace(objective, batch_size=batch_size)).dense()
        assert relative(found, reference.gauss_newton(objective)) < 1e-10
        assert relative(found, fisher) > 0.1


@pytest.mark.parametrize("batch_size", RAGGED)
def test_a_ragged_last_batch_counts_by_its_examples(batch_size):
    v = torch.randn(68, 2, dtype=torch.float64, generator=generator())
    for kind in (Hessian, GaussNewton):
        found = kind(replace(logistic(), batch_size=batch_size)) @ v
        assert relative(found, reference.hessian(logistic()) @ v) < 1e-12


@pytest.mark.parametrize("batch_size", RAGGED)
def test_the_inverse_is_of_the_mean_over_batches_and_made_once(batch_size):
    """Others sum the inverses of batches, or solve anew for each."""
    batched = replace(logistic(), batch_size=batch_size)
    for solver in (ConjugateGradient(), NystromCG(rank=20)):
        whole, found = explained(logistic(), solver=solver), explained(batched, solver=solver)
        assert relative(found.scores, exact_scores()) < 1e-5
        assert found.calls <= whole.calls + 2
    found = SelfInfluence(Influence(seed=0)).explain(ObjectiveTarget(batched))
    rows = reference.loss_gradients(logistic())
    assert found.scores.allclose((rows @ inverse_of_the_whole() * rows).sum(1) / 200)


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_batches_of_a_loader_change_nothing(shuffle):
    x, y, others, _ = digits()
    net = nn.Linear(16, 4).double()
    with torch.no_grad():
        net.weight.copy_(logistic().params["w"])
        net.bias.copy_(logistic().params["b"])
    target = explain.wrap(net, task="classification", weight_decay=0.01).example(others[0])
    whole = Influence((x, y), seed=0).explain(target)
    for batch_size in RAGGED:
        loader = DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=shuffle, generator=generator())
        found = Influence(loader, seed=0).explain(target)
        assert found.scores.allclose(whole.scores, rtol=1e-10, atol=1e-14)


def test_no_factor_n_is_lost():
    """A training set given twice: every copy counts half, where a score too small by n would count a quarter."""
    x, y, _, _ = digits()
    once = logistic()
    twice = replace(
        once,
        players=explain.types.Players("train", torch.arange(400)),
        labels=torch.cat([y, y]),
        predict=lambda p, at: torch.cat([x, x])[at] @ p["w"].T + p["b"],
    )
    for solver in ("exact", "cg", "lissa"):
        scores = explained(twice, solver=solver).scores
        assert relative(2 * scores[:200], exact_scores()) < 1e-3
        assert relative(scores[200:], scores[:200]) < 1e-6


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_the_tolerance_is_that_of_the_residual_and_not_of_its_square(tolerance):
    A, b = Hessian(logistic(1e-4)), torch.randn(68, dtype=torch.float64, generator=generator())
    found = solved(ConjugateGradient(tolerance=tolerance), A, b)
    true = float((A @ found.x - b).norm() / b.norm())
    assert tolerance / 100 < true <= tolerance
    assert found.residual == pytest.approx(true)


def test_ekfac_turns_with_its_eigenvectors_and_knows_the_bias():
    """For one layer and one metric of the outputs a Kronecker product: any transposed eigenvectors would show."""
    x, _, others, _ = digits()
    net = nn.Linear(16, 3).double()
    targets = torch.randn(200, 3, dtype=torch.float64, generator=generator())
    metric = torch.tensor([[2.0, 0.7, 0.1], [0.7, 1.0, -0.4], [0.1, -0.4, 0.5]]).double()

    def loss(outputs, labels):
        return ((outputs - labels) @ metric * (outputs - labels)).sum(1)

    model = explain.wrap(net, task="regression", train=(x, targets), weight_decay=0.01, loss=loss)
    step = model.example(others[0], payoff=lambda outputs: outputs[:, 1])
    A = GaussNewton(step.objective())
    b = torch.randn(51, dtype=torch.float64, generator=generator())
    expected = torch.linalg.solve(reference.gauss_newton(step.objective()), b)
    assert relative(solved(Ekfac(), A, b).x, expected) < 1e-8


def test_arnoldi_on_logistic_regression_with_its_own_settings():
    """A direction that all classes share costs only the penalty; float32, as users train."""
    objective = logistic()
    single = {name: p.float() for name, p in objective.params.items()}
    x, _, others, _ = digits()
    objective = replace(
        objective,
        params=single,
        predict=lambda p, at: x.float()[at] @ p["w"].T + p["b"],
        number=lambda p: (others[0].float() @ p["w"].T + p["b"])[1],
    )
    for solver in (Arnoldi(), Arnoldi(rank=68)):
        found = explained(objective, solver=solver)
        assert found.scores.isfinite().all()
    assert relative(found.scores, explained(objective, solver="exact").scores) < 1e-2


def test_exact_is_of_full_rank():
    """68 parameters: one cut at rank 50 would show."""
    b = torch.eye(68, dtype=torch.float64)
    found = solved(Exact(), Hessian(logistic()), b).x
    assert relative(found, inverse_of_the_whole()) < 1e-10
    assert torch.linalg.matrix_rank(found) == 68


def test_repeats_are_averaged_and_divided_by_the_scale():
    """``h <- v + h - H h / scale``, the answer ``h / scale``: its sum over 8 repeats would be 8 times too long."""
    objective = logistic(0.1)
    A, v = Hessian(objective), torch.randn(68, dtype=torch.float64, generator=generator())
    H = reference.hessian(objective)
    for repeats, scale in ((1, 4.0), (3, 2.0)):
        solver = Lissa(scale=scale, repeats=repeats, batch_size=128, momentum=False, rank=0, tolerance=1e-2)
        assert relative(solved(solver, A, v).x, torch.linalg.solve(H, v)) < 0.02
    h = v
    for _ in range(4):
        h = v + h - H @ h / 4.0
    assert solved(Lissa(scale=4.0, depth=5, momentum=False, rank=0), A, v).x.allclose(h / 4.0)


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa"])
def test_the_usual_squared_error_of_torch(solver):
    """``jvp(grad(F.mse_loss))`` raises in torch 2.13."""
    x, _, others, _ = digits(40)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    options = {"task": "regression", "train": (x, x[:, :2].clone()), "weight_decay": 0.01}

    def loss(outputs, labels):
        return torch.stack([F.mse_loss(o, y) for o, y in zip(outputs, labels, strict=True)])

    scores = []
    for given in ({}, {"loss": loss}):
        target = explain.wrap(net, **options, **given).example(others[0], payoff=lambda outputs: outputs[:, 0])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the model is not at a minimum")
            engine = Influence(solver=solver, curvature="hessian", damping=3.0, seed=0)
            scores.append(engine.explain(target).scores)
    assert relative(scores[1], scores[0]) < 1e-3
