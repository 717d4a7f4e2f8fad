"""The answers of `Influence` where the training itself is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from explain.explainer import Answer
from explain.influence.linear_maps import Flat
from explain.influence.scores import example_losses
from explain.influence.through.backwards import Replay, metagradient, replayed
from explain.influence.through.course import Course
from explain.influence.through.smoothness import SIZES, response, warn
from explain.types import NonFinite, Objective


class Through(Protocol):
    """A training that is known step by step: `Training` and `Recording` are two."""

    def course(self, objective: Objective) -> Course:
        """The training of this objective's parameters, as steps."""

    def ended(self, objective: Objective) -> tuple[Tensor, str]:
        """The parameters ``[p]`` that it must end with, and whose these are."""

    def said(self) -> str:
        """What it is, in a few words."""


def answers_through(
    through: Through,
    objectives: Sequence[Objective],
    values: Sequence[float],
    gradients: Tensor,
    generator: torch.Generator,
    progress: bool = False,
) -> list[Answer]:
    """Answers to numbers of one model whose training is known.

    Args:
        through: that training.
        objectives: one a number.
        values: the numbers.
        gradients: of these at the end, ``[p, k]`` in the order of the objective's parameters.
        generator: of the direction in which the training is taken again for the smoothness check.
        progress: a bar where it takes more than five seconds.

    Raises:
        NonFinite: the derivative overflows.
        Unsupported: the training taken again ends elsewhere.
    """
    first = objectives[0]
    course = through.course(first)
    end, whose = through.ended(first)
    replay = replayed(course, end, whose, progress)
    cotangents = _in_order(course, first, gradients)
    found = metagradient(course, replay, cotangents, progress)
    scores = found.spans.sum(1)
    if not scores.isfinite().all():
        raise NonFinite(
            "the derivative through the training overflows: it is too unstable to be followed. Fewer steps, a smaller "
            "learning rate with warm-up or larger batches help"
        )

    def numbers(theta: Tensor) -> Tensor:
        with torch.no_grad():
            params = course.params(theta)
            return torch.stack([each.measurement(params).double().cpu() for each in objectives])

    felt = response(course, numbers, numbers(replay.end), scores, generator)
    warn(felt)
    losses = example_losses(first)
    return [
        Answer(
            scores=scores[k],
            players=objective.players,
            value=value,
            base=None,
            parts={
                "learned": scores[k],
                "structural": torch.zeros_like(scores[k]),
                "self_loss": losses,
                "steps": found.spans[k],
            },
            checks={**_shared(through, course, replay, found.gap), **found.proof.checks(), **felt.checks(k)},
            calls=found.steps + len(SIZES) * len(course.steps),
        )
        for k, (objective, value) in enumerate(zip(objectives, values, strict=True))
    ]


def _in_order(course: Course, objective: Objective, gradients: Tensor) -> Tensor:
    """Gradients ``[p, k]`` of the objective's parameters as rows in the order of the training's, ``[k, p]``."""
    rows = [Flat(objective.params).params(column.to(course.start)) for column in gradients.T]
    own = list(course.params(course.start[0]))
    return torch.stack([torch.cat([row[name].reshape(-1) for name in own]) for row in rows])


def _shared(through: Through, course: Course, replay: Replay, gap: float) -> dict[str, Any]:
    return {
        "through": through.said(),
        "replay_gap": gap,
        "dtype": str(course.start.dtype).removeprefix("torch."),
        "steps": len(course.steps),
        "states_kept": len(replay.kept),
        "parameters": course.flat.size,
        "examples": course.size,
    }
