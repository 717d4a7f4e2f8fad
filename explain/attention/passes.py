"""Which step and branch of a sampling run an attention map belongs to: from the arguments of the network's call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

STEP_NAMES = ("timestep", "timesteps", "t", "time")


def step_of(arguments: Mapping[str, Any]) -> float | tuple[float, ...] | None:
    """The timestep: one number, or one a row where rows differ; None where no argument is called so.

    >>> step_of({"x": 0, "timestep": Tensor([40, 40])}), step_of({"t": Tensor([40, 7])})
    (40.0, (40.0, 7.0))
    """
    step = next((arguments[name] for name in STEP_NAMES if arguments.get(name) is not None), None)
    if isinstance(step, Tensor) and step.dim() <= 1 and step.numel():
        rows = tuple(float(value) for value in step.detach().reshape(-1).tolist())
        return rows[0] if len(set(rows)) == 1 else rows
    return float(step) if isinstance(step, (int, float)) and not isinstance(step, bool) else None


def branch_of(arguments: Mapping[str, Any]) -> str | None:
    """The guidance branch, where the network is told."""
    branch = arguments.get("branch")
    return branch if isinstance(branch, str) else None
