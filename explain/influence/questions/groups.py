"""What a whole group of training examples did: the sum of their scores, and one Newton step without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.influence.explainer import Influence
from explain.influence.inverse import (
    Inverse,
    asked,
    checked_engine,
    finite_question,
    inverse_of,
    labelled,
    positions_of,
    same_inverse,
    still_to_move,
)
from explain.influence.linear_maps import Flat
from explain.influence.scores import directional, training_gradient
from explain.progress import in_sight
from explain.types import LabelledObjective, Parameters, Target

FAR = 0.5  # a Newton step that leaves more of the gradient than this is warned about


@dataclass(frozen=True, eq=False)
class GroupInfluence:
    """``f(theta) - f(theta_without_group)``: how much the number falls if all of them had been left out.

    Args:
        players: the examples, int64 ``[k]``.
        additive: the sum of their scores, each as if it alone had been left out; far off for large groups.
        newton: ``f(theta) - f(theta + change)``.
        change: one Newton step on the objective without them, how the parameters move, by name.
        value: the number as it is.
        checks: curvature, solver and residual of the step; ``gradient_left``, what of the gradient the step leaves, 0
            where it ends at the minimum.
    """

    players: Tensor
    additive: float
    newton: float
    change: Parameters
    value: float
    checks: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"GroupInfluence: without {len(self.players)} examples {self.value:.4g} falls by {self.newton:.4g} (Newton "
            f"step), {self.additive:.4g} (sum of scores)"
        )


def group_influence(target: Target, players: Any, engine: Influence | None = None) -> GroupInfluence:
    """The influence of one group of training examples; see `group_influences`.

    >>> from torch import nn
    >>> import explain
    >>> mean = nn.Linear(1, 1, bias=False)  # the mean of 0, 1, 2 and 5
    >>> _ = nn.init.constant_(mean.weight, 2.0)
    >>> data = torch.ones(4, 1), torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    >>> target = explain.wrap(mean, task="regression", train=data).example(torch.ones(1))
    >>> both = group_influence(target, [2, 3])  # without them the mean is 0.5
    >>> round(both.additive, 6), round(both.newton, 6)
    (0.75, 1.5)
    """
    return group_influences(target, [players], engine)[0]


def group_influences(target: Target, groups: Sequence[Any], engine: Influence | None = None) -> list[GroupInfluence]:
    """The influence of each of these groups ``S`` of training examples (Koh, Ang, Teo and Liang 2019).

        additive = -(1/n) sum_S grad f^T A^-1 grad loss_i
        change   = A_S^-1 (1/n) sum_S grad loss_i,   A_S the curvature without S, n kept fixed

    Args:
        target: whose number.
        groups: each as positions in the training set, such as ``why.order()[:10]`` (of a graph not the nodes' numbers),
            or a bool mask ``[n]``.
        engine: curvature, damping, solver, training set, seed and progress; an `Influence` of defaults when None.

    Raises:
        IndexError: no such training example.
        TypeError: a group of something else.
        Indefinite: the curvature, also without a group, is not positive definite.
        ValueError: no groups, an empty one, or an example twice in one.

    Warns:
        UserWarning: the model is far from a minimum, or a step leaves more than half of the gradient, so that it is
            not near the new minimum.
    """
    engine = Influence() if engine is None else engine
    checked_engine(engine)
    if not len(groups):
        raise ValueError("there is no group of training examples to ask about")
    with asked(target, engine) as (given, generator):
        objective = labelled(given, "group influence")
        chosen = [positions_of(group, objective.size) for group in groups]
        value, gradient, _ = finite_question(objective)
        inverse = inverse_of(objective, engine, generator)
        s = inverse @ gradient
        scores = -directional(objective, s).cpu() / objective.size
        sums = torch.stack([scores[players].sum() for players in chosen])
        unfinished = still_to_move(objective, s, sums)
        start = training_gradient(objective)
        bar = in_sight(chosen, desc="groups", progress=engine.progress)
        return [
            _without(objective, inverse, players, value, float(additive), start, unfinished)
            for players, additive in zip(bar, sums, strict=True)
        ]


def _without(
    objective: LabelledObjective,
    inverse: Inverse,
    players: Tensor,
    value: float,
    additive: float,
    start: Tensor,
    unfinished: dict[str, float],
) -> GroupInfluence:
    reduced = objective.without(players)
    step = same_inverse(inverse, reduced)
    b = training_gradient(reduced) - start  # of the removal alone: training that was not finished is left so
    change = -(step @ b)
    flat = Flat(objective.params)
    moved = flat.params(flat.vector(objective.params).double() + change)
    with torch.no_grad():
        newton = value - float(objective.measurement(moved))
    left = float((training_gradient(reduced.at(moved)) - start).norm() / b.norm().clamp_min(1e-300))
    if left > FAR:
        doubt(
            f"one Newton step without {len(players)} of {objective.size} examples leaves {left:.0%} of the gradient: "
            "it is not near the new minimum, so retrain to be sure"
        )
    checks = {**step.checks(), **unfinished, "gradient_left": left, "removed": len(players)}
    return GroupInfluence(players, additive, newton, flat.params(change), value, checks)
