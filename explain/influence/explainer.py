"""Which training examples are behind a number."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from explain.explainer import Answer, Explainer
from explain.influence.choice import CURVATURES, SOLVERS, Chosen, choose_curvature, choose_solver
from explain.influence.removal import removal_parts
from explain.influence.scores import directional, example_losses, measured_gradient, training_gradient
from explain.influence.shards import Shards, Solved
from explain.influence.solution import Solution, Solver
from explain.types import NonFinite, Objective, Players, Target

REMOVE = ("labels", "nodes", "edges", "features")
LOOSE = 1e-2  # a residual above this is warned about


@dataclass(frozen=True)
class Influence(Explainer):
    """``score_i = f(theta) - f(theta_without_i) ~= -(1/n) grad f^T A^-1 grad loss_i`` (Koh and Liang 2017).

    How much the number falls if training example ``i`` had been left out, in the number's own units: positive pushes
    it up. ``n`` is kept fixed; ``A`` is the curvature of the trained loss, penalty included. First order: it
    understates large effects.

    Args:
        train: ``(inputs, labels)``, a Dataset or a DataLoader, where it is not the model's own training set.
        remove: "labels": the example's loss is taken away. On graphs also "nodes", "edges", "features", or such
            ``Players``: the training losses that change with them, and the number, are those of the edited graph.
        solver: "exact", "cg", "lissa", or one with settings, such as ``Lissa(repeats=16)``; "auto" is the direct solver
            up to 3,000 parameters, else conjugate gradients.
        curvature: "hessian", "ggn" (Gauss-Newton), or "auto": the Hessian where it is positive definite, else the
            Gauss-Newton matrix, with a warning.
        damping: added to the diagonal; "auto" adds none to a positive definite Hessian, else as little as leaves the
            smallest eigenvalue at a thousandth of the largest.
        shards: a folder in which the solution and the scores, shard by shard, are kept as they are found: for large
            training sets, on a cluster where it names one, resumed after any end. For labels only.
        seed: of the eigenvalue search and of LiSSA's batches.
        progress: shows tqdm.

    The answer has ``parts["structural"]``, what the edit alone does to the number (zero for labels), ``["learned"]``,
    the rest, and beside them ``["self_loss"]``, each example's own loss, or, where no labels are removed,
    ``["learned_unedited"]`` and ``["own"]`` of `removal_parts`; and ``checks`` with the true residual of the solution,
    both ends of the spectrum, how second derivatives were taken, and the gradient of the trained loss. ``error`` is
    LiSSA's, of its sampling and of the steps not taken; None for the others and where no labels are removed.

    Raises:
        ValueError: an unknown setting.
        Indefinite: the curvature asked for is not positive definite; the message has the damping that would do.
        Diverged: LiSSA's scale is too small.
        Unsupported: the target has no training objective, or the model no second derivative.
        Stale: the folder of the shards is that of another question.
        ClusterLost: the cluster of the shards is gone; what was finished is kept.

    Warns:
        UserWarning: the Hessian was not used, the solution is loose, or the model is far from a minimum.
    """

    train: Any = None
    remove: str | Players = "labels"
    solver: str | Solver = "auto"
    curvature: str = "auto"
    damping: str | float = "auto"
    shards: Shards | None = None
    seed: int | torch.Generator | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.remove, Players) and self.remove not in REMOVE:
            raise ValueError(f"remove must be one of {', '.join(REMOVE)} or Players, got {self.remove!r}")
        if isinstance(self.solver, str) and self.solver not in ("auto", *SOLVERS):
            raise ValueError(f"solver must be auto, {', '.join(SOLVERS)} or one with settings, got {self.solver!r}")
        if not isinstance(self.solver, str) and not callable(getattr(self.solver, "solve", None)):
            raise TypeError(f"solver must have a solve method, as Lissa() has, got {type(self.solver).__name__}")
        if self.curvature not in ("auto", *CURVATURES):
            raise ValueError(f"curvature must be auto, {' or '.join(CURVATURES)}, got {self.curvature!r}")
        given = isinstance(self.damping, (int, float)) and not isinstance(self.damping, bool)
        if self.damping != "auto" and not (given and 0 <= self.damping < math.inf):  # type: ignore[operator]
            raise ValueError(f"damping must be auto or a number of at least 0, got {self.damping!r}")
        if self.shards is not None and not isinstance(self.shards, Shards):
            raise TypeError(f"shards must be Shards(folder) or None, got {type(self.shards).__name__}")
        if self.shards is not None and self.remove != "labels":
            raise ValueError(
                "shards are of training examples: with remove='nodes', 'edges' or 'features' leave them out"
            )

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        objective = target.objective(self.train, self.remove)
        value, gradient = measured_gradient(objective)
        losses = example_losses(objective)
        for what, found in (("number's gradient", gradient), ("training losses", losses)):
            if not found.isfinite().all():
                raise NonFinite(f"the {what} hold NaN or infinity: check the inputs and the training data")
        solve = partial(self._solved, objective, gradient, generator)
        if self.shards is None:
            solved, along = solve(), partial(directional, objective)
        else:
            settings = {name: getattr(self, name) for name in ("solver", "curvature", "damping", "seed")}
            question = self.shards.question(objective, target.module, settings, value, gradient)
            solved, along = question.solved(solve), partial(question.directional, progress=self.progress)
        parts = self._parts(objective, solved, along, losses)
        scores = parts["structural"] + parts["learned"]
        _warn(solved.checks, scores)
        return Answer(
            scores=scores,
            players=objective.players,
            value=value,
            base=None,
            error=_errors(along, solved.solution, objective.size) if objective.local else None,
            parts=parts,
            checks=solved.checks,
            calls=solved.products if solved.A is None else solved.A.products,
        )

    def _solved(self, objective: Objective, gradient: Tensor, generator: torch.Generator) -> Solved:
        chosen = choose_curvature(objective, self.curvature, self.damping, generator)
        solver, why = choose_solver(self.solver, chosen.A.size)

        def inverse(b: Tensor) -> Solution:
            return solver.solve(chosen.A, b, chosen.spectrum, generator, self.progress)

        solution = inverse(gradient)
        training = training_gradient(objective)
        checks = {
            "solver": solver.name,
            "why_solver": why,
            **_curvature_checks(chosen),
            **_solution_checks(chosen, solution, gradient),
            "gradient_norm": float(training.norm()),
            "still_to_move": -float(solution.x @ training),
        }
        return Solved(solution, checks, chosen.A.products, chosen.A, inverse)

    def _parts(
        self, objective: Objective, solved: Solved, along: Callable[[Tensor], Tensor], losses: Tensor
    ) -> dict[str, Tensor]:
        """What scores are the sum of, and what is shown beside."""
        x, inverse = solved.solution.x, solved.inverse
        if objective.local or inverse is None:
            learned = -along(x) / objective.size
            return {"learned": learned, "structural": torch.zeros_like(learned), "self_loss": losses}
        return removal_parts(objective, lambda b: inverse(b).x, x, self.progress)._asdict()


def _curvature_checks(chosen: Chosen) -> dict[str, Any]:
    """``hessian_lambda_min`` is that of the undamped Hessian where it was measured, ``lambda_*`` those of ``A``."""
    A, spectrum = chosen.A, chosen.spectrum
    return {
        "curvature": A.name,
        "why_curvature": chosen.why,
        "derivatives": A.derivatives,
        "damping": A.damping,
        "parameters": A.size,
        "examples": A.objective.size,
        "lambda_min": spectrum.smallest,
        "lambda_max": spectrum.largest,
        "eigenvalues": spectrum.how,
        "hessian_lambda_min": chosen.hessian.smallest if chosen.hessian else None,
    }


def _solution_checks(chosen: Chosen, solution: Solution, b: Tensor) -> dict[str, Any]:
    """``error_bound``: ``|x - A^-1 b| / |x|`` is at most ``|A x - b| / (lambda_min |x|)``."""
    size = float(solution.x.norm())
    bound = solution.residual * float(b.norm()) / (chosen.spectrum.smallest * size) if size else 0.0
    return {
        "residual": solution.residual,
        "error_bound": bound,
        "iterations": solution.iterations,
        **solution.checks,
    }


def _errors(along: Callable[[Tensor], Tensor], solution: Solution, size: int) -> Tensor | None:
    """The spread of the mean over repeats, together with what more steps would have added."""
    if solution.remaining is None:
        return None
    variance = (along(solution.remaining) / size).square()
    if solution.samples is not None:
        each = along(solution.samples.T) / size
        variance = variance + each.var(1) / each.size(1)
    return variance.sqrt()


def _warn(checks: dict[str, Any], scores: Tensor) -> None:
    if checks["residual"] > LOOSE:
        warnings.warn(
            f"the inverse is loose: |A x - b| / |b| is {checks['residual']:.2g} after {checks['iterations']} steps of "
            f"{checks['solver']}. Allow more steps, add damping, or use solver='cg' or 'exact'",
            stacklevel=4,
        )
    left, most = abs(checks["still_to_move"]), float(scores.abs().max())
    if left > most:
        warnings.warn(
            "the model is not at a minimum of its training loss: finishing the training would move the number by about "
            f"{left:.2g}, more than any example does ({most:.2g}). Train until the gradient vanishes, or read the "
            "scores as those of the training so far",
            stacklevel=4,
        )
