"""The losses that are known by name."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

LossName: TypeAlias = Literal[
    "cross_entropy", "bce", "mse", "mae", "huber", "hinge", "poisson", "multi_margin", "brier"
]
NAMES: tuple[str, ...] = get_args(LossName)
OF_VALUES = ("mse", "mae", "huber", "poisson")
REMEDY = f"explain.wrap(..., loss={' | '.join(map(repr, NAMES))}), or a callable (outputs, labels) -> [examples]"
