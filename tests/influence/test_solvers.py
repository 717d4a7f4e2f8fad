"""Every solver against a whole-matrix solve, and what each does where it cannot."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from influence_cases import half_trained, logistic
from reference import influence as reference

from explain.influence import ConjugateGradient, Diverged, Exact, GaussNewton, Hessian, Indefinite, Lissa, NystromCG
from explain.influence.solvers.nystrom import nystrom
from explain.influence.spectrum import Spectrum, extreme_eigenvalues, largest_eigenvalue, sufficient_damping

SOLVERS = [
    Exact(),
    ConjugateGradient(),
    Lissa(),
    Lissa(momentum=False),
    Lissa(batch_size=32),
    Lissa(batch_size=32, momentum=False, tolerance=1e-2),
    Lissa(rank=30),
    Lissa(rank=30, batch_size=32),
    NystromCG(rank=20),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spectrum_of(A):
    return extreme_eigenvalues(A, generator())


def right_sides(count, columns=3):
    return torch.randn(count, columns, dtype=torch.float64, generator=generator(5))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("columns", [None, 3])
def test_it_solves(solver, columns):
    A = Hessian(logistic())
    b = right_sides(A.size)
    b = b[:, 0] if columns is None else b
    found = solver.solve(A, b, spectrum_of(A), generator())
    expected = torch.linalg.solve(reference.hessian(logistic()), b)
    assert found.x.shape == b.shape
    assert (found.x - expected).norm() <= 0.02 * expected.norm()
    true = ((A @ found.x - b).norm(dim=0) / b.norm(dim=0)).max()
    assert found.residual == pytest.approx(float(true), rel=1e-6, abs=1e-12)
    assert found.checks.get("converged", True)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_nothing_asked_nothing_answered(solver):
    A = Hessian(logistic())
    found = solver.solve(A, torch.zeros(A.size), spectrum_of(A), generator())
    assert not found.x.any()
    assert found.residual == 0


def test_the_residual_says_when_there_were_too_few_steps():
    A, b = Hessian(logistic()), right_sides(68, 1)[:, 0]
    for solver in (ConjugateGradient(max_iterations=3), Lissa(depth=12), Lissa(depth=12, batch_size=32)):
        found = solver.solve(A, b, spectrum_of(A), generator())
        assert not found.checks["converged"]
        assert found.residual > 1e-2
        assert found.residual == pytest.approx(float((A @ found.x - b).norm() / b.norm()))


def test_lanczos_finds_both_ends(monkeypatch):
    A = Hessian(half_trained())
    values = torch.linalg.eigvalsh(reference.hessian(half_trained()))
    whole = spectrum_of(A)
    assert (whole.smallest, whole.largest) == pytest.approx((float(values[0]), float(values[-1])))
    assert whole.smallest < 0
    monkeypatch.setattr("explain.influence.spectrum.DENSE", 0)
    found = extreme_eigenvalues(Hessian(half_trained()), generator())
    assert found.how == "lanczos"
    assert (found.smallest, found.largest) == pytest.approx((whole.smallest, whole.largest), abs=1e-4 * whole.largest)


def test_the_largest_eigenvalue_of_two_parameters():
    A = Hessian(logistic())
    A.size, A._kept.matrix = 2, torch.diag(torch.tensor([1.0, 3.0])).double()
    assert largest_eigenvalue(A, generator()) == (3.0, 0.0)
    assert largest_eigenvalue(A, generator(), flip=3.0) == (2.0, 0.0)


def test_negative_curvature_is_an_error_with_the_remedy():
    A = Hessian(half_trained())
    spectrum, b = spectrum_of(A), right_sides(A.size, 2)
    for solver in (Exact(), ConjugateGradient(), Lissa()):
        with pytest.raises(Indefinite, match=rf"{spectrum.smallest:.3g}.*not at a minimum.*damping=") as raised:
            solver.solve(A, b, spectrum, generator())
    damping = float(str(raised.value).split("damping=")[1].split(",")[0])
    assert sufficient_damping(spectrum) <= damping <= 1.1 * sufficient_damping(spectrum)
    damped = A.damped(damping)
    found = Exact().solve(damped, b, spectrum.shifted(damping), generator())
    assert found.residual < 1e-9


@settings(max_examples=20, deadline=None)
@given(fraction=st.floats(0.01, 0.49), batch_size=st.sampled_from([None, 16]), depth=st.sampled_from([20, 60, 500]))
def test_a_scale_that_is_too_small_never_answers(fraction, batch_size, depth):
    """Peers return finite, wrong numbers here at depth 60."""
    A = Hessian(logistic())
    spectrum, b = spectrum_of(A), right_sides(A.size, 1)[:, 0]
    scale = fraction * spectrum.largest
    with pytest.raises(Diverged, match=rf"scale {scale:.4g}.*eigenvalue.*{spectrum.largest:.4g}.*Use scale="):
        Lissa(scale=scale, depth=depth, batch_size=batch_size).solve(A, b, spectrum, generator())


def test_the_scale_named_by_the_remedy_would_do():
    A = Hessian(logistic())
    spectrum, b = spectrum_of(A), right_sides(A.size, 1)[:, 0]
    with pytest.raises(Diverged) as raised:
        Lissa(scale=0.01, batch_size=16).solve(A, b, spectrum, generator())
    scale = float(str(raised.value).split("Use scale=")[1].split()[0])
    assert Lissa(scale=scale, batch_size=16).solve(A, b, spectrum, generator()).residual < 1e-3


@pytest.mark.parametrize("batch_size", [2, 4])
def test_batches_that_make_it_grow_are_noticed(batch_size):
    """Above half the largest eigenvalue of the whole, below what small batches need."""
    A = Hessian(logistic())
    spectrum, b = spectrum_of(A), right_sides(A.size, 1)[:, 0]
    try:
        found = Lissa(scale=0.55 * spectrum.largest, batch_size=batch_size, repeats=2).solve(
            A, b, spectrum, generator()
        )
    except Diverged:
        return
    assert found.residual < 1  # no worse than no answer, and it says how far it is from one
    assert found.residual == pytest.approx(float((A @ found.x - b).norm() / b.norm()))


def test_its_own_scale_gives_way_to_noisy_batches():
    A = Hessian(logistic())
    found = Lissa(batch_size=1, tolerance=0.05).solve(A, right_sides(A.size, 1)[:, 0], spectrum_of(A), generator())
    assert found.residual <= 0.05


def test_repeats_are_independent_and_average_to_the_answer():
    A = GaussNewton(logistic())
    found = Lissa(batch_size=16, repeats=6).solve(A, right_sides(A.size), spectrum_of(A), generator())
    assert found.samples.shape == (6, A.size, 3)
    assert found.samples.mean(0).allclose(found.x)
    assert len({tuple(sample[:, 0].tolist()) for sample in found.samples}) == 6


@pytest.mark.parametrize(
    "bad", [{"depth": 0}, {"scale": -1.0}, {"repeats": 0}, {"batch_size": 0}, {"tolerance": 0.0}, {"scale": torch.inf}]
)
def test_lissa_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Lissa(**bad)


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"max_iterations": 0}])
def test_cg_settings(bad):
    with pytest.raises(ValueError, match="above 0"):
        ConjugateGradient(**bad)


def test_a_spectrum_moves_with_its_damping():
    spectrum = Spectrum(-1.0, 4.0, 0.0, "dense")
    assert not spectrum.positive
    assert (spectrum.shifted(1.5).smallest, spectrum.shifted(1.5).largest) == (0.5, 5.5)
    assert spectrum.shifted(1.5).positive
    assert sufficient_damping(spectrum.shifted(1.5)) == 0


def test_a_block_with_repeated_empty_and_dependent_columns():
    A, b = Hessian(logistic()), right_sides(68, 12)
    b[:, 1], b[:, 2], b[:, 3] = b[:, 0], 0, b[:, 4] + b[:, 5]
    b[:, 6] = 1e-9 * b[:, 7]
    expected = torch.linalg.solve(reference.hessian(logistic()), b)
    for solver in (ConjugateGradient(tolerance=1e-9), NystromCG(rank=10, tolerance=1e-9)):
        found = solver.solve(A, b, spectrum_of(A), generator())
        assert (found.x - expected).norm(dim=0).le(1e-7 * expected.norm(dim=0)).all()
        assert found.residuals.max() == found.residual <= 1e-9


def test_a_shared_krylov_space_takes_fewer_products():
    A, b = Hessian(logistic()), right_sides(68, 20)
    together = ConjugateGradient().solve(A, b, spectrum_of(A), generator()).iterations
    alone = ConjugateGradient().solve(A, b[:, :1], spectrum_of(A), generator()).iterations
    assert together < alone / 2


def test_a_sketch_that_finds_the_large_eigenvalues_saves_steps():
    A, b = Hessian(logistic(weight_decay=1e-4)), right_sides(68, 1)
    plain = ConjugateGradient().solve(A, b, spectrum_of(A), generator()).iterations
    assert NystromCG(rank=40).solve(A, b, spectrum_of(A), generator()).iterations < 0.7 * plain


def test_the_sketch_is_never_above_the_matrix():
    A = Hessian(logistic())
    M = nystrom(A, 20, spectrum_of(A), generator())
    below = M.U @ torch.diag(M.values) @ M.U.T
    assert torch.linalg.eigvalsh(reference.hessian(logistic()) - below)[0] > -1e-9
    whole = M.U @ torch.diag(M.values - M.shift) @ M.U.T + M.shift * torch.eye(68)
    assert M(right_sides(68)).allclose(torch.linalg.solve(whole, right_sides(68)))


def test_lissa_converges_where_the_plain_recursion_stalls():
    A, b = Hessian(logistic(weight_decay=1e-4)), right_sides(68, 3)
    plain = Lissa(depth=200, momentum=False, rank=0).solve(A, b, spectrum_of(A), generator())
    better = Lissa(depth=200, rank=60).solve(A, b, spectrum_of(A), generator())
    assert plain.residual > 0.05
    assert better.residual <= 1e-4
    sampled = Lissa(depth=400, rank=60, batch_size=64, tolerance=1e-2).solve(A, b, spectrum_of(A), generator())
    assert sampled.residual <= 1e-2


def test_nothing_is_measured_that_is_not_needed():
    A = Hessian(logistic())
    spectrum = extreme_eigenvalues(A, generator())
    assert spectrum.positive  # convex in outputs that are linear in the parameters
    found = ConjugateGradient(tolerance=0.1).solve(A, right_sides(68), spectrum, generator())
    assert A.products == 3 * found.iterations
    assert not spectrum.measured
    assert spectrum.smallest == pytest.approx(A.ridge)
    values = torch.linalg.eigvalsh(reference.hessian(logistic()))
    assert spectrum.smallest <= float(values[0]) + 1e-12
    assert spectrum.largest == pytest.approx(float(values[-1]), rel=1e-2)
