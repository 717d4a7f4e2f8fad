"""``A^-1`` of one objective as an operator, by the settings of an `Influence`: what every further question needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.explainer import seeded
from explain.guard import untouched
from explain.influence.checks import LOOSE, loose
from explain.influence.chosen import chosen_objective
from explain.influence.curvature import Curvature
from explain.influence.explainer import Influence
from explain.influence.scores import example_losses, measured_gradient, training_gradient
from explain.influence.solvers.choice import Chosen, choose_curvature, choose_solver
from explain.influence.solvers.exact import Exact
from explain.influence.solvers.solution import Solver, relative
from explain.influence.spectrum import Indefinite, extreme_eigenvalues
from explain.influence.suspects import advice
from explain.types import EditableObjective, LabelledObjective, NonFinite, Objective, Target, Unsupported


@dataclass(eq=False)
class Inverse:
    """``A^-1``: ``inverse @ b`` for ``b [p]`` or ``[p, k]``, float64, and how well it was done.

    Args:
        chosen: the curvature, its spectrum and why.
        solver: how it is inverted.
        why_solver: why so.
        generator: of a solver that samples.
        progress: a bar where it takes more than five seconds.
        residual: the worst true residual so far.

    >>> from explain.training import TrainingObjective
    >>> from explain.types import Players
    >>> x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    >>> objective = TrainingObjective({"w": torch.zeros(1, 1)}, Players("train", torch.arange(2)),
    ...                               lambda p, at: x[at] @ p["w"], y, lambda p: p["w"].sum(), weight_decay=0.5)
    >>> inverse_of(objective, Influence(), torch.Generator()) @ torch.ones(1)  # 1 / (2 mean(x^2) + 0.5)
    tensor([0.0952], dtype=torch.float64)
    """

    chosen: Chosen
    solver: Solver
    why_solver: str
    generator: torch.Generator
    progress: bool = True
    residual: float = 0.0
    _factor: Tensor | None = field(default=None, repr=False)

    @property
    def A(self) -> Curvature:
        """What is inverted."""
        return self.chosen.A

    def __matmul__(self, b: Tensor) -> Tensor:
        """``A^-1 b``; the worst true residual so far is kept for ``checks``."""
        if isinstance(self.solver, Exact):
            columns = b.double().reshape(self.A.size, -1)
            x = torch.cholesky_solve(columns, self.factor())
            self._saw(relative(columns - self.A @ x, columns))
            return x.reshape(b.shape)
        found = self.solver.solve(self.A, b, self.chosen.spectrum, self.generator, self.progress)
        self._saw(found.residual)
        return found.x

    def quadratic(self, rows: Tensor) -> Tensor:
        """``g^T A^-1 g`` of each row of ``[k, p]``, float64 ``[k]``: ``|L^-1 g|^2`` where ``A = L L^T`` is at hand."""
        if isinstance(self.solver, Exact):
            half = torch.linalg.solve_triangular(self.factor(), rows.double().T, upper=False)
            return half.square().sum(0)
        return (rows.double() * (self @ rows.T).T).sum(1)

    def factor(self) -> Tensor:
        """The Cholesky factor of the whole matrix, made once.

        Raises:
            Indefinite: ``A`` is not positive definite.
        """
        if self._factor is None:
            self._factor, failed = torch.linalg.cholesky_ex(self.A.dense(self.progress))
            if failed:
                raise Indefinite(self.A, self.chosen.spectrum)
        return self._factor

    def checks(self) -> dict[str, Any]:
        """What was inverted and how well, as plain JSON values; both ends of the spectrum where they were measured."""
        spectrum = self.chosen.spectrum
        ends = {"lambda_min": spectrum.smallest, "lambda_max": spectrum.largest} if spectrum.measured else {}
        return {
            "solver": self.solver.name,
            "why_solver": self.why_solver,
            "curvature": self.A.name,
            "why_curvature": self.chosen.why,
            "damping": self.A.damping,
            "parameters": self.A.size,
            "examples": self.A.objective.size,
            "residual": self.residual,
            **ends,
            **self.chosen.proof,
        }

    def _saw(self, residual: float) -> None:
        if not math.isfinite(residual):
            raise NonFinite("the inverse holds NaN or infinity: check the training data, or add damping")
        if residual > LOOSE >= self.residual:
            loose(residual, self.solver.name)
        self.residual = max(self.residual, residual)


def inverse_of(
    objective: Objective, engine: Influence, generator: torch.Generator, columns: int = 1, blocks: float = 1
) -> Inverse:
    """``A^-1`` of this objective with the engine's curvature, damping and solver.

    Raises:
        Indefinite: the curvature asked for is not positive definite.
    """
    chosen = choose_curvature(objective, engine.curvature, engine.damping, generator, engine.solver, engine.progress)
    solver, why = choose_solver(engine.solver, chosen.A, columns, blocks=blocks)
    return Inverse(chosen, solver, why, generator, engine.progress)


def same_inverse(inverse: Inverse, objective: Objective) -> Inverse:
    """``A^-1`` of another objective with the same kind of curvature, damping and solver."""
    A = type(inverse.A)(objective, inverse.A.damping)
    spectrum = extreme_eigenvalues(A, inverse.generator)
    chosen = inverse.chosen._replace(A=A, spectrum=spectrum, hessian=None)
    return Inverse(chosen, inverse.solver, inverse.why_solver, inverse.generator, inverse.progress)


@contextmanager
def asked(target: Target, engine: Influence) -> Iterator[tuple[Objective, torch.Generator]]:
    """Within: the target's objective in labels, and a generator from the engine's seed. After: the model as before.

    Raises:
        TypeError: not a target.
    """
    if not isinstance(target, Target):
        raise TypeError(f"a target is needed, such as explain.wrap(model, data).node(3), got {type(target).__name__}")
    with untouched(target.module, target.trained):
        yield objective_for(target, engine), seeded(engine.seed)[1]


def objective_for(target: Target, engine: Influence) -> Objective:
    """The target's objective in labels, over the engine's training set and in its parameters."""
    return chosen_objective(target, engine.train, "labels", engine.parameters)


def labelled(objective: Objective, question: str) -> LabelledObjective:
    """The objective, if its examples may be relabelled and left out together.

    Raises:
        Unsupported: they may not.
    """
    if not isinstance(objective, LabelledObjective):
        raise Unsupported(
            f"{question} needs an objective with labels, relabelled(labels), without(examples) and at(params), which "
            f"{type(objective).__name__} does not offer"
        )
    return objective


def editable(objective: Objective, question: str) -> EditableObjective:
    """The objective, if the inputs of its examples may be changed.

    Raises:
        Unsupported: they may not.
    """
    if not isinstance(objective, EditableObjective):
        raise Unsupported(
            f"{question} needs training examples that are inputs of their own, as those of explain.wrap(model, "
            f"task='classification') are; {type(objective).__name__} has none"
        )
    return objective


def checked_engine(engine: Any) -> None:
    """Check that it is an `Influence`, and not set to what only itself can do.

    Raises:
        TypeError: it is something else.
        ValueError: it removes other players than training examples, or works in shards.
    """
    if not isinstance(engine, Influence):
        raise TypeError(f"engine must be an Influence with the settings to use, got {type(engine).__name__}")
    if engine.remove != "labels":
        raise ValueError("these questions are about training examples: leave the engine's remove at 'labels'")
    if engine.shards is not None:
        raise ValueError("shards are for Influence(...).explain: leave them out of an engine")


def finite_question(objective: Objective) -> tuple[float, Tensor, Tensor]:
    """The number, its gradient ``[p]`` and every training loss ``[n]``.

    Raises:
        NonFinite: one of them is NaN or infinite.
    """
    value, gradient = measured_gradient(objective)
    losses = example_losses(objective)
    for what, found in (("number's gradient", gradient), ("training losses", losses)):
        if not found.isfinite().all():
            raise NonFinite(f"the {what} hold NaN or infinity: check the inputs and the training data")
    return value, gradient, losses


def still_to_move(objective: Objective, s: Tensor, effects: Tensor) -> dict[str, float]:
    """What finishing the training would do to the number, ``-grad J^T A^-1 grad f``, and the gradient of ``J``.

    Warns:
        UserWarning: that is more than any of the effects.
    """
    training = training_gradient(objective)
    left, most, norm = -float(s @ training), float(effects.abs().max()), float(training.norm())
    if abs(left) > most:
        doubt(
            f"the model is not at a minimum of its training loss (gradient norm {norm:.2g}): finishing the training "
            f"would move the number by about {abs(left):.2g}, more than any of these changes does ({most:.2g}). "
            f"{advice(objective, training)}"
        )
    return {"gradient_norm": norm, "still_to_move": left}


def positions_of(examples: Any, size: int) -> Tensor:
    """Training examples as int64 positions, given as one number, numbers, or a bool mask ``[n]``.

    >>> positions_of([2, 0], 3), positions_of(torch.tensor([True, False, True]), 3)
    (tensor([2, 0]), tensor([0, 2]))

    Raises:
        TypeError: no whole numbers.
        ValueError: none, or one twice.
        IndexError: no such example.
    """
    try:
        found = torch.as_tensor(examples).cpu()
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            "training examples are named by their positions in the training set, such as why.order()[:10], or by a "
            f"bool mask [{size}], got {type(examples).__name__}"
        ) from error
    if found.dtype == torch.bool:
        if found.shape != (size,):
            raise ValueError(f"a mask of training examples must be [{size}], got {list(found.shape)}")
        found = found.nonzero().view(-1)
    found = found.reshape(-1)
    if not len(found):
        raise ValueError("no training example was named")
    if found.is_floating_point() or found.is_complex():
        raise TypeError(f"training examples are named by whole numbers, got {found.dtype}")
    if int(found.min()) < 0 or int(found.max()) >= size:
        raise IndexError(
            f"training examples must be positions in the training set, from 0 to {size - 1}, got {int(found.min())} to "
            f"{int(found.max())}"
        )
    if len(found.unique()) < len(found):
        raise ValueError("a training example is named twice: each counts once")
    return found.long()
