"""One Newton step on the edited objective: what a first-order score leaves out is the curvature that changed too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.influence.curvature import Curvature
from explain.influence.linear_maps import Flat
from explain.influence.scores import training_gradient
from explain.influence.spectrum import Spectrum, extreme_eigenvalues
from explain.progress import in_sight
from explain.types import Edits, Objective

Step: TypeAlias = Callable[[Curvature, Spectrum, Tensor], Tensor]  # A^-1 b
ROUNDING = 1e-6  # relative, of an eigenvalue that was measured


def newton_parts(
    objective: Objective,
    A: Curvature,
    smallest: float,
    parts: dict[str, Tensor],
    step: Step,
    generator: torch.Generator,
    progress: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``score = f(theta) - f'(theta - A'^-1 g)`` with ``A'`` the curvature of the edited objective at ``theta``.

    ``g = grad J' - grad J``, which is ``grad J'`` at a minimum of ``J``; exact, not only to first order, where the loss
    is quadratic in the parameters. ``theta`` is no minimum of ``J'``: where the losses bend down, ``A'`` is damped
    until it is no flatter than ``A`` was, or than the penalty alone. Costs one curvature and one solution a player.

    Args:
        objective: the trained loss.
        A: its curvature; ``A'`` is of the same kind, with at least the same damping.
        smallest: eigenvalue of ``A``.
        parts: to first order, with "structural" and "learned".
        step: solves ``A' x = g``.
        generator: of the eigenvalue search.
        progress: a bar where it takes more than five seconds.

    Returns:
        The parts with another "learned", the old one under "first_order"; and checks: players whose ``A'`` was damped.

    Warns:
        UserWarning: there are such players.
    """
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    value, before = objective.measurement(objective.params).detach().double(), training_gradient(objective)
    learned, damped = parts["learned"].clone(), []
    penalty = objective.weight_decay + A.damping
    least = min(smallest, penalty) if penalty > 0 else smallest
    for player in in_sight(affected(objective), desc="Newton steps", progress=progress):
        edited = objective.edited(player)
        other = type(A)(edited, A.damping)
        spectrum = extreme_eigenvalues(other, generator)
        short = least - spectrum.smallest
        if short > ROUNDING * least:
            damped.append(player)
            other, spectrum = other.damped(A.damping + short), spectrum.shifted(short)
        x = step(other, spectrum, training_gradient(edited) - before)
        with torch.no_grad():
            moved = edited.measurement(flat.params((theta.double() - x).to(theta.dtype)))
        learned[player] = (value - moved.double()).cpu() - parts["structural"][player]
    if damped:
        doubt(
            f"the Newton step is damped for {len(damped)} of {len(learned)} players: without them the curvature where "
            "the parameters are now is flatter than at the minimum, or negative. Compare with some retrainings"
        )
    return {**parts, "learned": learned, "first_order": parts["learned"]}, {"newton": True, "newton_damped": damped}


def affected(objective: Objective) -> list[int]:
    """Players whose absence changes a loss or the number; the others have no score."""
    everyone = torch.arange(len(objective.players))
    if not isinstance(objective, Edits):
        return everyone.tolist()
    changed = [change.players.cpu() for change in objective.loss_changes(everyone)]
    return torch.cat([objective.moving().cpu().nonzero().view(-1), *changed]).unique().tolist()
