"""What every Shapley estimator takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch

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


Estimator: TypeAlias = Callable[[Game, int, torch.Generator, bool], Estimate]
"""``(game, samples, generator, progress) -> Estimate``; ``samples`` is the budget of model evaluations, the
game has two players or more (`exact_values` takes any)."""
