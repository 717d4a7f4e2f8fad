"""The settings of a question about labels, checked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from explain.payoffs import whole_number
from explain.spelling import came

BASELINES = ("zeros", "mean")


def checked_node(node: Any, nodes: int) -> int:
    """A node of the graph.

    Raises:
        ValueError: there is none of this number.
    """
    found = whole_number(node)
    if found is None or not 0 <= found < nodes:
        raise ValueError(f"node must be from 0 to {nodes - 1}, got {node!r:.60}")
    return found


def checked_class(label: Any, classes: int) -> int:
    """A class.

    Raises:
        ValueError: there is none of this number.
    """
    found = whole_number(label)
    if found is None or not 0 <= found < classes:
        raise ValueError(f"label must be a class from 0 to {classes - 1}, got {label!r:.60}")
    return found


def checked_steps(steps: Any, of: int) -> int:
    """How many steps a run has; all of the schedule's when None.

    Raises:
        ValueError: none, or more than the schedule has.
    """
    if steps is None:
        return of
    found = whole_number(steps)
    if found is None or not 1 <= found <= of:
        raise ValueError(f"steps must be whole, from 1 to {of}, got {steps!r:.60}")
    return found


def checked_temperature(temperature: Any) -> float:
    """What the noise of a run is multiplied by.

    Raises:
        ValueError: no number from 0 on.
    """
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not number or not 0 <= temperature < float("inf"):
        raise ValueError(
            f"temperature must be a number of at least 0, what all noise is scaled by, got {temperature!r}"
        )
    return float(temperature)


def absent_features(x: Tensor, baseline: str) -> Tensor:
    """What stands where features are taken away, ``[F]``.

    Raises:
        ValueError: an unknown baseline.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, {came(baseline, BASELINES)}")
    return x.mean(0) if baseline == "mean" else torch.zeros_like(x[0])
