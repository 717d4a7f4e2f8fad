"""The preconditioner made of the training examples that the model is least sure of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from influence_cases import digits, module_objective
from torch import nn

from explain.influence import ConjugateGradient, Lissa
from explain.influence.curvature import GaussNewton, Hessian
from explain.influence.solvers.principal import principal
from explain.influence.spectrum import extreme_eigenvalues
from explain.training import TrainingObjective


def network(batch_size: int | None = None, count: int = 60, steps: int = 0) -> TrainingObjective:
    x, y, others, _ = digits(count)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 96), nn.Tanh(), nn.Linear(96, 4)).double()
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):  # then few examples are still in doubt
        adam.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        adam.step()
    return module_objective(net, x, y, asked=others[:1], batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [None, 17])
def test_it_is_never_above_the_matrix_and_has_its_largest_part(batch_size):
    A = GaussNewton(network(batch_size, steps=40), 0.01)
    M = principal(A, 100)
    assert M is not None
    inside = (M.U * (M.values - M.shift)) @ M.U.T  # all but the ridge
    draws = torch.randn(A.size, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for v in (draws, M.U[:, -16:], A @ draws):
        above = (v * (A @ v - inside @ v - M.shift * v)).sum(0)
        assert (above > -1e-7 * (v * (A @ v)).sum(0)).all()
    whole = (draws * (A @ draws - A.ridge * draws)).sum()
    assert 0.5 * whole < (draws * (inside @ draws)).sum() <= whole


def test_with_all_rows_it_is_the_matrix_itself():
    A = GaussNewton(network(count=20), 0.01)
    M = principal(A, 80)
    b = torch.randn(A.size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert M is not None
    torch.testing.assert_close(M(A @ b), b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", [ConjugateGradient(1e-6), Lissa(tolerance=1e-3)])
def test_solvers_find_the_same_with_it_in_fewer_steps(solver):
    A = GaussNewton(network(), 0.001)
    spectrum = extreme_eigenvalues(A, torch.Generator().manual_seed(0))
    b = torch.randn(A.size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = solver.solve(A, b, spectrum, torch.Generator().manual_seed(0))
    plain = replace(solver, **({"rows": 0} if solver.name == "cg" else {"rank": 0}))
    other = plain.solve(A, b, spectrum, torch.Generator().manual_seed(0))
    assert (A @ found.x - b).norm() < 2 * solver.tolerance * b.norm()
    assert (found.x - other.x).norm() < 0.02 * other.x.norm()
    assert found.iterations < other.iterations


def test_there_is_none_for_a_hessian_that_is_not_gauss_newton_or_without_a_ridge_or_for_few_parameters():
    assert principal(Hessian(network(), 0.01)) is None
    assert principal(GaussNewton(network(), 0.0)) is None
    assert principal(GaussNewton(network(), 0.01), 10) is None
    assert principal(GaussNewton(network(), 0.01).on(torch.arange(5))) is None
