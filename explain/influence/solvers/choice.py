"""What "auto" means: which curvature, which damping, which solver, and why."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from explain.doubts import doubt
from explain.influence.curvature import Curvature, GaussNewton, Hessian
from explain.influence.differences import hvp_checks
from explain.influence.held_out import held_out_damping
from explain.influence.solvers.arnoldi import Arnoldi
from explain.influence.solvers.cg import ConjugateGradient
from explain.influence.solvers.dot import GradientDot
from explain.influence.solvers.exact import Exact
from explain.influence.solvers.kfac import Ekfac, Kfac
from explain.influence.solvers.lissa import Lissa
from explain.influence.solvers.nystrom import NystromCG
from explain.influence.solvers.solution import Solver
from explain.influence.spectrum import (
    COSTLESS,
    Indefinite,
    Spectrum,
    extreme_eigenvalues,
    singular,
    sufficient_damping,
)
from explain.types import Objective

CURVATURES: dict[str, type[Curvature]] = {kind.name: kind for kind in (Hessian, GaussNewton)}
SOLVERS: dict[str, type[Solver]] = {
    "exact": Exact,
    "cg": ConjugateGradient,
    "nystrom": NystromCG,
    "lissa": Lissa,
    "arnoldi": Arnoldi,
    "kfac": Kfac,
    "ekfac": Ekfac,
    "dot": GradientDot,
}
DIRECT = 3000  # parameters up to which "auto" factorises the whole matrix where one solution is all that is asked
MATRIX = 2**29  # bytes of the whole matrix, which is held about four times
WIDE = 1e4  # condition from which on a preconditioner of rank 64 saves more products than it takes
SHARING = 16  # right-hand sides from which on a Krylov space of all of them needs a few products each
STEPS = 100  # of conjugate gradients for one right-hand side
FLOPS = 8  # of linear algebra in the time that a product takes to make one byte


class Chosen(NamedTuple):
    """A positive definite curvature, its spectrum, why it is this one, and the proof that it is the loss's."""

    A: Curvature
    spectrum: Spectrum
    why: str
    hessian: Spectrum | None
    proof: dict[str, Any]


def choose_curvature(
    objective: Objective,
    curvature: str,
    damping: str | float,
    generator: torch.Generator,
    solver: str | Solver = "auto",
    progress: bool = False,
) -> Chosen:
    """The curvature asked for, or for "auto" the Hessian where it is positive definite, else the Gauss-Newton matrix.

    For a solver that approximates one of them whatever it is given, as K-FAC the Gauss-Newton matrix, that one: ends of
    the spectrum of another say nothing about it.

    Damping "auto" is 0 for a positive definite Hessian; for one that is nearly so beside the penalty, as little as
    `sufficient_damping` says; for the Gauss-Newton matrix of a model that is not linear in its parameters what
    `held_out_damping` finds; else the least that leaves the smallest eigenvalue at a thousandth of the largest.

    Warns:
        UserWarning: the Hessian is not positive definite, so that something else is inverted.

    Raises:
        Indefinite: the curvature with the damping asked for is not positive definite.
        Unsupported: it is not the derivative of the loss's gradient; see `hvp_checks`.
    """
    own = getattr(SOLVERS.get(solver) if isinstance(solver, str) else solver, "curvature", None)
    chosen = _chosen(objective, own if curvature == "auto" and own else curvature, damping, generator, progress)
    if curvature == "auto" and own:
        chosen = chosen._replace(why=f"what {solver if isinstance(solver, str) else solver.name} approximates")
    return chosen if chosen.proof else chosen._replace(proof=_proof(chosen.A))


def _proof(A: Curvature) -> dict[str, Any]:
    return hvp_checks(A, torch.Generator().manual_seed(0))


def _chosen(
    objective: Objective, curvature: str, damping: str | float, generator: torch.Generator, progress: bool
) -> Chosen:
    if curvature == "ggn":
        return _damped(GaussNewton(objective), damping, generator, None, "asked for", progress)
    hessian = Hessian(objective)
    proof = _proof(hessian)  # before its eigenvalues are believed
    spectrum = extreme_eigenvalues(hessian, generator)
    given = 0.0 if damping == "auto" else float(damping)
    if spectrum.shifted(given).positive:
        why = "asked for" if curvature == "hessian" else "the Hessian is positive definite"
        return Chosen(hessian.damped(given), spectrum.shifted(given), why, spectrum, proof)
    if curvature == "hessian" and damping != "auto":
        raise Indefinite(hessian.damped(given), spectrum.shifted(given))
    enough = sufficient_damping(spectrum, objective.weight_decay)
    kind = "singular" if singular(hessian, spectrum) else "indefinite"
    why = f"the Hessian is {kind} (smallest eigenvalue {spectrum.smallest:.3g})"
    nearly = damping == "auto" and enough < sufficient_damping(spectrum)
    if curvature == "hessian" or nearly:
        why = "asked for" if curvature == "hessian" else f"{why}, but by less than a tenth of the damping"
        chosen = _shifted(hessian, enough, spectrum, why)._replace(proof=proof, hessian=spectrum)
    else:
        chosen = _damped(GaussNewton(objective), damping, generator, spectrum, why, progress)
    ends = f"the Hessian's smallest eigenvalue is {spectrum.smallest:.3g} (largest {spectrum.largest:.3g})"
    instead = f"Inverted instead: {chosen.A.name} with damping {chosen.A.damping:.3g}"
    if singular(hessian, spectrum):
        doubt(f"{ends}, zero within rounding, so that {COSTLESS}. {instead}; a weight_decay would decide it")
    else:
        doubt(
            f"the model is not at a minimum of its training loss: {ends}. {instead}; compare with some retrainings "
            "before relying on it"
        )
    return chosen


def choose_solver(
    solver: str | Solver, A: Curvature, columns: int = 1, spectrum: Spectrum | None = None, blocks: float = 1
) -> tuple[Solver, str]:
    """The solver asked for, or for "auto" one that suits the parameters and so many right-hand sides.

    The whole matrix, where it cannot be assembled block by block, takes as many products as there are parameters, block
    conjugate gradients a few for each column, a sketch 64 in all: worth it for few columns where the spectrum is known,
    or bounded, to be wide. Of several blocks each starts anew, but the matrix is factorised once for all.

    Args:
        solver: a name, "auto", or one with settings.
        A: what is inverted.
        columns: right-hand sides that are solved for together.
        spectrum: of ``A``, where it is known.
        blocks: how many times as many come, one block after another.
    """
    if not isinstance(solver, str):
        return solver, "asked for"
    if solver != "auto":
        return SOLVERS[solver](), "asked for"
    size = A.size
    if size <= DIRECT and A.assembles():
        return Exact(), f"the whole matrix of {size} parameters is assembled without a product"
    if blocks <= 1 and SHARING <= columns < size / 10:
        return ConjugateGradient(), f"{columns} right-hand sides share one Krylov space of {size} parameters"
    if size <= DIRECT and (A.has_matrix or A.affordable):
        return Exact(), f"{size} parameters are few enough for the whole matrix"
    if 8 * size**2 <= MATRIX and _direct_cost(A, columns * blocks) < _iterative_cost(A, columns, blocks):
        return Exact(), f"{columns * blocks:.0f} right-hand sides are worth the whole matrix of {size} parameters"
    many = f"{size} parameters are too many for the whole matrix (over {DIRECT})"
    if size <= DIRECT:
        many = f"a product takes {A.work:.2g} bytes, too many to have {size} of them for the whole matrix"
    if columns < SHARING and spectrum is not None and spectrum.measured and spectrum.positive:
        condition = spectrum.largest / spectrum.smallest
        if condition > WIDE:
            return NystromCG(), f"{many}, and its condition, about {condition:.2g}, asks for a preconditioner"
    return ConjugateGradient(), many


def _direct_cost(A: Curvature, columns: float) -> float:
    """Of the whole matrix, in bytes of products: one product a parameter, a Cholesky factor, two triangles a column."""
    return A.size * A.work + (A.size**3 / 3 + 2 * A.size**2 * columns) / FLOPS


def _iterative_cost(A: Curvature, columns: int, blocks: float) -> float:
    """Of block conjugate gradients, likewise: ``p / k`` steps of ``k`` products and ten times that of ``[p, k]``."""
    products = blocks * columns * min(STEPS, A.size / columns)
    return products * (A.work + 10 * A.size * columns / FLOPS)


def _damped(
    A: Curvature, damping: str | float, generator: torch.Generator, hessian: Spectrum | None, why: str, progress: bool
) -> Chosen:
    spectrum = extreme_eigenvalues(A, generator)
    enough, told = _enough(A, spectrum, progress) if damping == "auto" else (float(damping), "")
    chosen = _shifted(A, enough, spectrum, why + told)
    if not chosen.spectrum.positive:
        raise Indefinite(chosen.A, chosen.spectrum)
    return chosen._replace(hessian=hessian)


def _enough(A: Curvature, spectrum: Spectrum, progress: bool) -> tuple[float, str]:
    """What "auto" adds to a Gauss-Newton matrix, and a word on why."""
    found = None if A.linear else held_out_damping(A, spectrum.largest, progress)
    penalty = A.objective.weight_decay if A.linear or found is not None else 0.0  # which a Hessian needs no more than
    least = sufficient_damping(spectrum, penalty)
    if found is None or found <= least:
        return least, ""
    return found, "; damped so that half of the examples foretell the curvature of the others"


def _shifted(A: Curvature, damping: float, spectrum: Spectrum, why: str) -> Chosen:
    return Chosen(A.damped(damping), spectrum.shifted(damping), why, spectrum, {})
