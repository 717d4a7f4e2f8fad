"""Many numbers of one trained model, answered together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explain.doubts import kept
from explain.explainer import Answer, seeded
from explain.explanation import Explanation
from explain.guard import untouched
from explain.influence.chosen import TRAINABLE, chosen_objective
from explain.influence.scores import measured_gradient, measured_gradients
from explain.types import Objective, Players, Target


class Together:
    """Half of an explainer: ``_answers`` for many targets at once gives both ``explain`` and ``explain_all``."""

    if TYPE_CHECKING:
        seed: int | torch.Generator | None

        def _explanation(
            self, answer: Answer, target: Target, seed: int, seconds: float, doubts: Sequence[str]
        ) -> Explanation: ...

    def explain_all(self, targets: Sequence[Target]) -> list[Explanation]:
        """The answers of `explain` for many numbers of one trained model, for about the cost of one.

        Raises:
            TypeError: no target.
            ValueError: none at all, or of different models.
        """
        if isinstance(targets, Target):
            raise TypeError(
                "explain_all takes a list of targets, got one: ask explain(target), or explain_all([target])"
            )
        asked = list(targets)
        for target in asked:
            if not isinstance(target, Target):
                raise TypeError(f"explain_all needs targets, got {type(target).__name__}")
        if not asked or any(target.module is not asked[0].module for target in asked):
            raise ValueError("explain_all needs at least one target, all of the same model: ask each model by itself")
        seed, generator = seeded(self.seed)
        started = time.perf_counter()
        with kept() as doubts, untouched(asked[0].module, asked[0].trained):
            for target in asked:
                target.forget()
            answers = self._answers(asked, generator)
            seconds = (time.perf_counter() - started) / len(asked)
            return [self._explanation(*pair, seed, seconds, doubts) for pair in zip(answers, asked, strict=True)]

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        return self._answers([target], generator)[0]

    def _answers(self, targets: Sequence[Target], generator: torch.Generator) -> list[Answer]:
        raise NotImplementedError(f"{type(self).__name__} has no _answers")


def asked_of(
    targets: Sequence[Target],
    train: Any = None,
    remove: str | Players = "labels",
    apart: bool = False,
    parameters: Any = TRAINABLE,
) -> tuple[list[Objective], list[float], Tensor]:
    """The objective of each, their numbers, and the gradients of these, float64 ``[p, k]``.

    In one pass where the model's family offers it and players are training examples; all then have the objective of
    the first. ``apart``: never.

    Raises:
        ValueError: of different training sets.
    """
    first = targets[0]
    if len(targets) > 1 and remove == "labels" and not apart:
        questions = first.questions(targets)
        if questions is not None:
            objective = chosen_objective(first, train, remove, parameters)
            for target in targets[1:]:
                target.tell(first.told)
            values, gradients = measured_gradients(objective.params, questions)
            return [objective] * len(targets), values, gradients
    objectives = objectives_of(targets, train, remove, parameters)
    _check_one_training(objectives)
    numbers, columns = zip(*(measured_gradient(each) for each in objectives), strict=True)
    return objectives, list(numbers), torch.stack(columns, 1)


def is_damping(value: Any) -> bool:
    """Whether this is "auto" or a finite number of at least 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value == "auto" or (number and 0 <= value < float("inf"))


def objectives_of(
    targets: Sequence[Target], train: Any = None, remove: str | Players = "labels", parameters: Any = TRAINABLE
) -> list[Objective]:
    """The objective of each; of one model, a training set is read and checked for the first and given to the others."""
    first = chosen_objective(targets[0], train, remove, parameters)
    found = [first]
    for target in targets[1:]:
        alike = train is not None or getattr(target, "model", target) is getattr(targets[0], "model", None)
        known = getattr(first, "train", None) if alike else None
        found.append(chosen_objective(target, train if known is None else known, remove, parameters))
    return found


def _check_one_training(objectives: Sequence[Objective]) -> None:
    """All have the training set of the first; nodes that may be removed are others for every explained node.

    Raises:
        ValueError: one has another.
    """
    first = objectives[0]
    for other in objectives[1:]:
        players, own = other.players, first.players
        same = other.size == first.size and other.weight_decay == first.weight_decay
        if same and not first.local and not other.local:
            continue
        if not (
            same and len(players) == len(own) and players.kind == own.kind and torch.equal(players.index, own.index)
        ):
            raise ValueError(
                f"explain_all needs targets of one training set: the first has {len(own)} {own.kind} of "
                f"{first.size} examples, another {len(players)} {players.kind} of {other.size}. Ask it by itself"
            )
