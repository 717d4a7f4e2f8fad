"""What if a training example had been different: another input, another label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from explain.explainer import Answer, Explainer
from explain.influence.explainer import Influence
from explain.influence.inverse import (
    checked_engine,
    editable,
    finite_question,
    inverse_of,
    labelled,
    objective_for,
    positions_of,
    still_to_move,
)
from explain.influence.linear_maps import Columns, Flat, slope, twice_differentiable
from explain.influence.scores import directional
from explain.types import EditableObjective, LabelledObjective, NonFinite, Target

Extractor = Callable[[Tensor], Tensor]  # [rows, *shape] -> the objective's inputs


@dataclass(frozen=True)
class Perturbation(Explainer):
    """What the number would be had one training input been different (Koh and Liang 2017, section 2.2).

    Without ``to``, the derivative, in the number's units per unit of the input:

        score_j = d f / d x_ij = -(1/n) grad f^T A^-1 d/dx_ij grad loss(x_i, y_i)

    With ``to``, the change of the number were this input alone at its other value, first order in the training loss but
    exact in the input, so that it need not be small:

        score_j = -(1/n) grad f^T A^-1 (grad loss(x_i with x_ij = to_j, y_i) - grad loss(x_i, y_i))

    Positive: the number would rise. Players are the example's features, or its pixels, one a channel.

    Not for: many inputs changed far at once, unless ``to`` says to what; nor which example to look at.

    Args:
        example: position of the example in the training set.
        to: another input of the same shape.
        engine: curvature, damping, solver, training set, seed and progress; see `Influence`.

    The answer has ``parts["map"]``, the scores in the shape of the input, and ``checks`` with the true residual and,
    with ``to``, ``together``: the change of the number were all inputs at their other values at once.

    Raises:
        TypeError: the engine is no `Influence`.
        IndexError: no such example.
        ValueError: ``to`` of another shape.
        NonFinite: NaN or infinity in ``to``, or in the number's gradient or the training losses.
        Unsupported: the training examples are no inputs of their own, or the model has no third derivative.

    >>> from torch import nn
    >>> import explain
    >>> line = nn.Linear(1, 1, bias=False)  # the least squares slope of (1, 1) and (2, 2), asked at 1
    >>> _ = nn.init.ones_(line.weight)
    >>> data = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]])
    >>> target = explain.wrap(line, task="regression", train=data).example(torch.ones(1))
    >>> Perturbation(1, engine=Influence(seed=0)).explain(target).scores  # d/dx (1 + 2x) / (1 + x^2) = -2/5 at x = 2
    tensor([-0.4000], dtype=torch.float64)
    """

    example: int
    to: Tensor | None = None
    engine: Influence = field(default_factory=Influence)

    def __post_init__(self) -> None:
        checked_engine(self.engine)
        if isinstance(self.example, bool) or not isinstance(self.example, int):
            raise TypeError(f"example must be the position of a training example, an int, got {self.example!r}")
        if self.to is not None and not isinstance(self.to, Tensor):
            raise TypeError(f"to must be a torch.Tensor like the training input, got {type(self.to).__name__}")

    @property
    def seed(self) -> int | torch.Generator | None:
        """The engine's."""
        return self.engine.seed

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        given = objective_for(target, self.engine)
        objective = editable(given, "perturbing a training input")
        at = positions_of(self.example, objective.size)
        players = objective.input_players(self.example)
        value, gradient, _ = finite_question(objective)
        inverse = inverse_of(objective, self.engine, generator)
        s = inverse @ gradient
        checks: dict[str, Any] = {"example": self.example, "question": "derivative"}
        if self.to is None:
            found = input_gradients(objective, s, at)[0]
        else:
            to = _checked_input(self.to, objective.inputs[self.example])
            found = _one_by_one(objective, s, at, to)
            together = input_changes(objective, s, at.expand(1), to[None])[0]
            checks = {"example": self.example, "question": "change", "together": float(together)}
        checks |= still_to_move(objective, s, found)
        return Answer(
            scores=found.reshape(-1),
            players=players,
            value=value,
            base=None,
            parts={"map": found.cpu()},
            checks={**inverse.checks(), **checks},
            calls=inverse.A.products,
        )


@dataclass(frozen=True)
class Relabelling(Explainer):
    """What the number would be had one training label been different (Koh and Liang 2017, section 2.2).

        score_i = -(1/n) grad f^T A^-1 (grad loss(x_i, label) - grad loss(x_i, y_i))

    How much the number would rise had example ``i`` alone carried the other label; 0 where it carries it already. First
    order: it understates large effects.

    Not for: several labels changed at once, whose effects do not add up.

    Args:
        label: the other class, or real target (one number, or a tensor like one label); of two classes each example's
            other one when None.
        engine: curvature, damping, solver, training set, seed and progress; see `Influence`.

    Raises:
        TypeError: the engine is no `Influence`, or the label no number.
        ValueError: no such class, or no class given
            where there are more than two.
            NonFinite: NaN or infinity.

    >>> from torch import nn
    >>> import explain
    >>> mean = nn.Linear(1, 1, bias=False)  # the mean of 0, 1 and 5
    >>> _ = nn.init.constant_(mean.weight, 2.0)
    >>> data = torch.ones(3, 1), torch.tensor([[0.0], [1.0], [5.0]])
    >>> target = explain.wrap(mean, task="regression", train=data).example(torch.ones(1))
    >>> Relabelling(2.0, engine=Influence(seed=0)).explain(target).scores  # (2 - y) / 3
    tensor([ 0.6667,  0.3333, -1.0000], dtype=torch.float64)
    """

    label: int | float | Tensor | None = None
    engine: Influence = field(default_factory=Influence)

    def __post_init__(self) -> None:
        checked_engine(self.engine)
        if isinstance(self.label, bool) or not isinstance(self.label, (int, float, Tensor, type(None))):
            raise TypeError(f"label must be a class, a number or a tensor, got {type(self.label).__name__}")

    @property
    def seed(self) -> int | torch.Generator | None:
        """The engine's."""
        return self.engine.seed

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        given = objective_for(target, self.engine)
        objective = labelled(given, "relabelling a training example")
        others = other_labels(objective, self.label)
        value, gradient, losses = finite_question(objective)
        inverse = inverse_of(objective, self.engine, generator)
        s = inverse @ gradient
        scores = (directional(objective, s) - directional(objective.relabelled(others), s)) / objective.size
        checks = {
            **inverse.checks(),
            "relabelled": int((others != objective.labels).reshape(len(others), -1).any(1).sum()),
        }
        checks |= still_to_move(objective, s, scores)
        return Answer(
            scores=scores,
            players=objective.players,
            value=value,
            base=None,
            parts={"self_loss": losses},
            checks=checks,
            calls=inverse.A.products,
        )


def other_labels(objective: LabelledObjective, label: int | float | Tensor | None) -> Tensor:
    """Every example's other label, like ``objective.labels``; see `Relabelling` for the errors.

    Raises:
        ValueError: which label is not said, or it is none of the model's.
        NonFinite: NaN or infinity in it.
    """
    labels = objective.relabelled(objective.labels).labels
    if labels.is_floating_point():
        if label is None:
            raise ValueError("which real target should the examples have instead? give label=")
        other = torch.as_tensor(label, dtype=labels.dtype, device=labels.device)
        if other.numel() != 1 and other.shape != labels.shape[1:]:
            raise ValueError(f"label must be one number or {list(labels.shape[1:])}, got {list(other.shape)}")
        if not other.isfinite().all():
            raise NonFinite("label is NaN or infinite")
        return other.expand(labels.shape[1:]).expand(labels.shape).clone()
    with torch.no_grad():
        outputs = objective.outputs(objective.params, torch.zeros(1, dtype=torch.long, device=labels.device)).size(1)
    classes = max(outputs, 2)
    if label is None and classes > 2:
        raise ValueError(f"which of the {classes} classes should the examples have instead? give label=")
    if label is None:
        return 1 - labels
    other = torch.as_tensor(label).double()
    if other.numel() != 1 or float(other) not in range(classes):
        raise ValueError(f"label must be a class from 0 to {classes - 1}, got {label}")
    return torch.full_like(labels, int(other))


def input_gradients(
    objective: EditableObjective,
    s: Tensor,
    positions: Tensor,
    inputs: Tensor | None = None,
    features: Extractor | None = None,
) -> Tensor:
    """``-(1/n) d/dx (grad loss(x, y)^T s)`` of training examples: how the number rises with their inputs.

    Args:
        objective: the trained loss.
        s: ``A^-1 grad f``, float64 ``[p]``.
        positions: the examples, int64 ``[k]``.
        inputs: ``[k, *shape]``, what is moved, where it is not the objective's own input.
        features: from ``inputs`` to the objective's inputs; as they are when None.

    Returns:
        The shape of the inputs.
    """
    flat = Flat(objective.params)
    theta, labels = flat.vector(objective.params), objective.labels[positions]
    x = objective.inputs[positions] if inputs is None else inputs

    def along(x: Tensor) -> Tensor:
        seen = x if features is None else features(x)
        total = slope(lambda at: objective.losses(flat.params(at), seen, labels).sum())(theta)
        return (total.double() * s.to(theta.device)).sum()

    with twice_differentiable():
        return -slope(along)(x).detach() / objective.size


def input_changes(objective: EditableObjective, s: Tensor, positions: Tensor, inputs: Tensor) -> Tensor:
    """``-(1/n) (grad loss(inputs_k, y_k) - grad loss(x_k, y_k))^T s``, each example on its own, float64 ``[k]``."""
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)

    def along(x: Tensor, label: Tensor) -> Tensor:
        gradient = slope(lambda at: objective.losses(flat.params(at), x[None], label[None])[0])(theta)
        return (gradient.double() * s.to(theta.device)).sum()[None]

    columns, found = Columns(), []
    for at, moved in zip(positions.split(256), inputs.split(256), strict=True):
        labels = objective.labels[at]
        with twice_differentiable():
            before, after = columns(along, objective.inputs[at], labels), columns(along, moved, labels)
        found.append((before - after)[:, 0].detach())
    return torch.cat(found) / objective.size


def _one_by_one(objective: EditableObjective, s: Tensor, at: Tensor, to: Tensor) -> Tensor:
    """The change of the number for each input at its other value alone, in the shape of the input."""
    x = objective.inputs[int(at[0])]
    moving = (to != x).reshape(-1).nonzero().view(-1)
    found = torch.zeros(x.numel(), dtype=torch.float64, device=x.device)
    for some in moving.split(1024):
        moved = x.reshape(1, -1).repeat(len(some), 1)
        moved[torch.arange(len(some)), some] = to.reshape(-1)[some]
        found[some] = input_changes(objective, s, at.expand(len(some)), moved.view(-1, *x.shape))
    return found.view(x.shape)


def _checked_input(to: Tensor, x: Tensor) -> Tensor:
    if to.shape != x.shape:
        raise ValueError(f"to must be {list(x.shape)} as the training input is, got {list(to.shape)}")
    if not to.isfinite().all():
        raise NonFinite("to holds NaN or infinity")
    return to.detach().to(x)
