"""What an answer says about itself: its curvature, its solution, how far off the scores may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from explain.doubts import doubt
from explain.explainer import Answer
from explain.influence.curvature import Curvature
from explain.influence.leverage import leverages
from explain.influence.solvers.choice import SOLVERS, Chosen
from explain.influence.solvers.solution import Solution
from explain.influence.suspects import NOTED, advice, suspect_another
from explain.types import Objective

LOOSE = 1e-2  # a residual above this is warned about
MORE_STEPS = "Allow more steps, add damping, or use solver='cg' or 'exact'"


def curvature_checks(chosen: Chosen) -> dict[str, Any]:
    """``hessian_lambda_min`` is that of the undamped Hessian where it was measured, ``lambda_*`` those of ``A``.

    ``lambda_max`` is None where nothing needed it. ``hvp_error`` is that of `hvp_checks`.
    """
    A, spectrum = chosen.A, chosen.spectrum
    return {
        "curvature": A.name,
        "why_curvature": chosen.why,
        "derivatives": A.derivatives,
        "damping": A.damping,
        "parameters": A.size,
        "examples": A.objective.size,
        "lambda_min": spectrum.smallest,
        "lambda_max": spectrum.largest if spectrum.measured else None,
        "eigenvalues": spectrum.how,
        "hessian_lambda_min": chosen.hessian.smallest if chosen.hessian else None,
        **chosen.proof,
    }


def column_checks(chosen: Chosen, s: Solution, b: Tensor, training: Tensor) -> dict[str, Any]:
    """Of the solution ``s`` of ``A x = b [p]``.

    ``distance_bound``: ``|x - A^-1 b|`` is at most ``|A x - b| / lambda_min``; ``error_bound`` is that over ``|x|``.
    ``still_to_move``: what the number would change by if the training were finished.
    """
    size = float(s.x.norm())
    off = s.residual * float(b.norm()) / chosen.spectrum.smallest
    return {
        "residual": s.residual,
        "distance_bound": off,
        "error_bound": off / size if size else 0.0,
        "iterations": s.iterations,
        **s.checks,
        "still_to_move": -float(s.x @ training),
    }


def score_bounds(
    each: Sequence[dict[str, Any]], A: Curvature | None, norms: Tensor | None, smallest: float
) -> list[float | None]:
    """What no score of an answer is further off than, in the number's own units.

    ``max_i |grad loss_i| |x - A^-1 b| / n``; where gradients of single examples were not made but ``A`` is of
    Gauss-Newton form, ``max_i (u_i^T B_i^+ u_i / n)^(1/2) |A x - b| / lambda_min^(1/2)`` of `leverages`; else None.
    ``smallest`` is the ``lambda_min`` that the distances of ``each`` were found with.
    """
    reach = None
    if norms is not None:
        reach = float(norms.max()) / len(norms)
    elif A is not None and A.gauss_newton and A.objective.convex:
        found = leverages(A.objective)
        reach = None if found is None else math.sqrt(smallest * float(found.max()) / len(found))
    return [None if reach is None else reach * one["distance_bound"] for one in each]


def errors(along: Callable[[Tensor], Tensor], solution: Solution, size: int) -> Tensor | None:
    """The spread of the mean over repeats, together with what more steps would have added, ``[n, k]``."""
    if solution.remaining is None:
        return None
    variance = (along(solution.remaining) / size).square()
    if solution.samples is not None:
        repeats, rows, columns = solution.samples.shape
        each = along(solution.samples.transpose(0, 1).reshape(rows, -1)) / size
        variance = variance + each.view(-1, repeats, columns).var(1) / repeats
    return variance.sqrt()


def loose(residual: float, solver: str, steps: int | None = None) -> None:
    """Warns that the inverse is loose, with what would tighten this very solver's."""
    after = f" after {steps} steps of {solver}" if steps else f" by {solver}"
    remedy = getattr(SOLVERS.get(solver), "remedy", MORE_STEPS)
    doubt(f"the inverse is loose: |A x - b| / |b| is {residual:.2g}{after}. {remedy}")


def warn(answers: Sequence[Answer], objective: Objective, norms: Tensor | None) -> None:
    """Warns of a loose inverse, and of a model that is far from a minimum: once, by the worst of the answers.

    The curvature is that of the loss taken even where the number happens not to hang on what is left of the gradient:
    beside ``norms``, those of the examples' gradients, that tells of another loss too.
    """
    checks = max((answer["checks"] for answer in answers), key=lambda found: found["residual"])
    if checks["residual"] > LOOSE:
        loose(checks["residual"], checks["solver"], checks["iterations"])
    moves = [(abs(a["checks"]["still_to_move"]), float(a["scores"].abs().max())) for a in answers if len(a["scores"])]
    if not moves:  # nobody is asked about
        return
    left, most = max(moves, key=lambda pair: pair[0] - pair[1])
    if left <= most:
        far = norms is not None and checks["gradient_norm"] > NOTED * float(norms.mean())
        if far or left > NOTED * most:
            suspect_another(objective, checks["gradient_norm"])
    else:
        doubt(
            f"the model is not at a minimum of its training loss (gradient norm {checks['gradient_norm']:.2g}): "
            f"finishing the training would move the number by about {left:.2g}, more than any example does "
            f"({most:.2g}). {advice(objective)}"
        )
