"""Which step and guidance branch an attention map belongs to: as the run tells, else by the network's own arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from explain.passes import current

STEP_NAMES = ("timestep", "timesteps", "t", "time")

Step = float | tuple[float, ...] | None
Branch = str | tuple[str | None, ...] | None


def step_of(arguments: Mapping[str, Any]) -> Step:
    """The timestep: one number, or one a row where rows differ; None where nothing tells it.

    >>> step_of({"x": 0, "timestep": Tensor([40, 40])}), step_of({"t": Tensor([40, 7])})
    (40.0, (40.0, 7.0))
    """
    now = current()
    if now is not None:
        return now.t
    step = next((arguments[name] for name in STEP_NAMES if arguments.get(name) is not None), None)
    if isinstance(step, Tensor) and step.dim() <= 1 and step.numel():
        rows = tuple(float(value) for value in step.detach().reshape(-1).tolist())
        return rows[0] if len(set(rows)) == 1 else rows
    return float(step) if isinstance(step, (int, float)) and not isinstance(step, bool) else None


def branch_of(arguments: Mapping[str, Any]) -> Branch:
    """The guidance branch: one name, or one a row where rows differ, as in a doubled batch; None where none is told."""
    now = current()
    if now is not None:
        return now.branches[0] if len(set(now.branches)) == 1 else now.branches
    branch = arguments.get("branch")
    return branch if isinstance(branch, str) else None


def looking(branch: Branch, rows: int) -> Branch:
    """The branches of so many rows that a layer computes attention for: perturbed ones may go without.

    >>> looking(("uncond", "cond", "perturbed"), 2), looking(("uncond", "cond"), 2)
    (('uncond', 'cond'), ('uncond', 'cond'))
    """
    if not isinstance(branch, tuple) or len(branch) == rows:
        return branch
    found = tuple(own for own in branch if own != "perturbed")
    if len(found) != rows:
        return branch
    return found[0] if len(set(found)) == 1 else found
