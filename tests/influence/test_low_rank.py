"""Arnoldi's low rank inverse and the gradient dot product against whole-matrix solutions."""

import warnings

import pytest
import torch
from influence_cases import ObjectiveTarget, half_trained, logistic
from reference import influence as reference

from explain.influence import Arnoldi, GradientDot, Hessian, Indefinite, Influence
from explain.influence.solvers.arnoldi import ritz_pairs
from explain.influence.spectrum import extreme_eigenvalues


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def solved(solver, A, b):
    return solver.solve(A, b, extreme_eigenvalues(A, generator()), generator())


def right_sides(size, columns=3):
    return torch.randn(size, columns, dtype=torch.float64, generator=generator(5))


@pytest.mark.parametrize("columns", [None, 3])
def test_full_rank_is_exact(columns):
    """All classes moved alike cost only the penalty: eigenvalues that repeat end a Krylov space early."""
    A = Hessian(logistic())
    b = right_sides(A.size)
    b = b[:, 0] if columns is None else b
    found = solved(Arnoldi(rank=A.size), A, b)
    torch.testing.assert_close(found.x, torch.linalg.solve(reference.hessian(logistic()), b), rtol=1e-8, atol=1e-8)
    assert found.residual < 1e-9
    assert found.checks["outside"] < 1e-9


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_it_is_the_inverse_on_the_largest_eigenvalues(rank):
    """Schioppa et al. 2022, with the eigenvectors of the whole matrix."""
    A, b = Hessian(logistic()), right_sides(68)
    values, vectors = torch.linalg.eigh(reference.hessian(logistic()))
    values, vectors = values[-rank:], vectors[:, -rank:]
    found = solved(Arnoldi(rank, iterations=A.size), A, b)
    torch.testing.assert_close(found.x, vectors @ ((vectors.T @ b) / values[:, None]), rtol=1e-7, atol=1e-7)
    assert found.checks["rank"] == rank
    assert found.checks["smallest_kept"] == pytest.approx(float(values[0]))
    true = ((A @ found.x - b).norm(dim=0) / b.norm(dim=0)).max()
    assert found.residual == pytest.approx(float(true))


def test_eigenvalues_are_kept_by_their_magnitude():
    A = Hessian(logistic())
    vectors = torch.linalg.qr(torch.randn(A.size, A.size, dtype=torch.float64, generator=generator(2)))[0]
    values = torch.linspace(-0.5, 0.5, A.size, dtype=torch.float64)
    values[:4] = torch.tensor([9.0, -8.0, 5.0, -4.0])
    A._kept.matrix = vectors @ torch.diag(values) @ vectors.T
    ritz, directions = ritz_pairs(A, A.size, generator())
    dense = torch.linalg.eigh(A.dense())
    torch.testing.assert_close(ritz, dense.eigenvalues)
    torch.testing.assert_close(directions.T @ A.dense() @ directions, torch.diag(dense.eigenvalues))
    b = right_sides(A.size)
    one = solved(Arnoldi(rank=1, iterations=A.size), A, b)
    torch.testing.assert_close(one.x, vectors[:, :1] @ (vectors[:, :1].T @ b) / 9)
    with pytest.raises(Indefinite, match=r"smallest eigenvalue is -8 \(largest 9\)"):  # -8 before 5
        solved(Arnoldi(rank=2, iterations=A.size), A, b)
    A._kept.matrix = A.dense() + 4.5 * torch.outer(vectors[:, 1], vectors[:, 1])  # -3.5, below 5 in size
    kept = solved(Arnoldi(rank=2, iterations=A.size), A, b)
    two = vectors[:, [0, 2]]
    torch.testing.assert_close(kept.x, two @ ((two.T @ b) / torch.tensor([[9.0], [5.0]]).double()))
    assert kept.checks["smallest_kept"] == pytest.approx(5)


def test_a_matrix_of_one_eigenvalue_has_no_krylov_space():
    A = Hessian(logistic())
    A._kept.matrix = 2 * torch.eye(A.size, dtype=torch.float64)
    values, vectors = ritz_pairs(A, 10, generator())
    torch.testing.assert_close(values, torch.full((10,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(10, dtype=torch.float64))
    b = right_sides(A.size, 1)[:, 0]
    torch.testing.assert_close(Arnoldi(rank=A.size).solve(A, b, None, generator()).x, b / 2)


def test_more_rank_leaves_less():
    A, b = Hessian(logistic()), right_sides(68, 1)[:, 0]
    left = [solved(Arnoldi(rank), A, b).residual for rank in (5, 20, 68)]
    assert left[0] > left[1] > left[2]


def test_a_negative_eigenvalue_is_an_error():
    A = Hessian(half_trained())
    with pytest.raises(Indefinite, match="damping="):
        solved(Arnoldi(rank=A.size), A, right_sides(A.size))


def test_nothing_asked():
    A = Hessian(logistic())
    for solver in (Arnoldi(10), GradientDot()):
        found = solved(solver, A, torch.zeros(A.size))
        assert not found.x.any()
        assert found.residual == 0


@pytest.mark.parametrize("bad", [{"rank": 0}, {"rank": 5, "iterations": 4}])
def test_settings(bad):
    with pytest.raises(ValueError, match="rank must be at least 1"):
        Arnoldi(**bad)


@pytest.mark.filterwarnings("ignore:the inverse is loose")
def test_the_gradient_dot_product_by_name():
    objective = logistic()
    found = Influence(solver="dot", seed=0).explain(ObjectiveTarget(objective))
    identity = torch.eye(68, dtype=torch.float64)
    torch.testing.assert_close(found.scores, reference.influence(objective, identity))
    assert found.checks["solver"] == "dot"
    assert found.checks["residual"] > 0.1


def test_arnoldi_by_name():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the inverse is loose")
        found = Influence(solver="arnoldi", seed=0).explain(ObjectiveTarget(logistic()))
    assert found.scores.isfinite().all()
    assert found.checks["rank"] == 50
