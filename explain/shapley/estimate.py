"""What every Shapley estimator takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.types import Game, Scores


class Estimate(NamedTuple):
    """Shapley values of a game, or an estimate of them.

    ``scores [P]``; ``error [P]``, one standard error each, None where the scores are exact; ``base`` = v(empty);
    ``value`` = v(all); ``checks``: what this estimator can prove about itself, plain JSON values.
    """

    scores: Scores
    error: Scores | None
    base: float
    value: float
    checks: dict[str, Any]


def relative_gap(found: Estimate) -> float:
    """``|sum scores - (v(all) - v(empty))|``, relative to the larger of ``|v(all)|``, ``|v(empty)|``."""
    gap, scale = abs(float(found.scores.sum()) - (found.value - found.base)), _scale(found)
    return gap / scale if scale else gap


def warn_if_drowned(scores: Tensor, error: Tensor | None, found: Estimate, what: str) -> float | None:
    """The largest standard error; a warning where the errors are over half as large as the scores.

    Below 1e-6 of the number both are rounding, and saying so would be noise itself.
    """
    if error is None:
        return None
    if error.norm() > max(float(scores.norm()) / 2, 1e-6 * _scale(found)):
        doubt(f"the standard errors are over half as large as the {what}: raise samples")
    return float(error.max())


def _scale(found: Estimate) -> float:
    return max(abs(found.value), abs(found.base))


Estimator: TypeAlias = Callable[[Game, int, torch.Generator, bool], Estimate]
"""``(game, samples, generator, progress) -> Estimate``; ``samples`` is the budget of model evaluations, the
game has two players or more (`exact_values` takes any)."""
