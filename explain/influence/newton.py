"""One Newton step on the edited objective: what a first-order score leaves out is the curvature that changed too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from explain.influence.curvature import Curvature
from explain.influence.doubts import doubt
from explain.influence.linear import Flat
from explain.influence.scores import training_gradient
from explain.influence.spectrum import Indefinite
from explain.types import Edits, Objective

Step: TypeAlias = Callable[[Curvature, Tensor], Tensor]  # A^-1 b


def newton_parts(
    objective: Objective, A: Curvature, parts: dict[str, Tensor], step: Step, progress: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``score = f(theta) - f'(theta - A'^-1 g)`` with ``A'`` the curvature of the edited objective at ``theta``.

    ``g = grad J' - grad J``, which is ``grad J'`` at a minimum of ``J``; exact, not only to first order, where the loss
    is quadratic in the parameters. Costs one curvature and one solution a player.

    Args:
        objective: the trained loss.
        A: its curvature; ``A'`` is of the same kind, with the same damping.
        parts: to first order, with "structural" and "learned".
        step: solves ``A' x = g``.
        progress: shows tqdm.

    Returns:
        The parts with another "learned", the old one under "first_order"; and checks: players whose edited curvature is
        not positive definite, which keep their first-order score.

    Warns:
        UserWarning: there are such players.
    """
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    value, before = objective.measurement(objective.params).detach().double(), training_gradient(objective)
    learned, left = parts["learned"].clone(), []
    for player in tqdm(_affected(objective), desc="Newton steps", disable=not progress, leave=False):
        edited = objective.edited(player)
        try:
            x = step(type(A)(edited, A.damping), training_gradient(edited) - before)
        except Indefinite:
            left.append(player)
            continue
        with torch.no_grad():
            moved = edited.measurement(flat.params((theta.double() - x).to(theta.dtype)))
        learned[player] = (value - moved.double()).cpu() - parts["structural"][player]
    if left:
        doubt(
            f"no Newton step for {len(left)} of {len(learned)} players, whose scores are those to first order: without "
            "them the curvature is not positive definite where the parameters are now. Use damping=, or retrain"
        )
    return {**parts, "learned": learned, "first_order": parts["learned"]}, {"newton": True, "newton_left_out": left}


def _affected(objective: Objective) -> list[int]:
    """Players whose absence changes a loss or the number; the others have no score."""
    everyone = torch.arange(len(objective.players))
    if not isinstance(objective, Edits):
        return everyone.tolist()
    changed = [change.players.cpu() for change in objective.loss_changes(everyone)]
    return torch.cat([objective.moving().cpu().nonzero().view(-1), *changed]).unique().tolist()
