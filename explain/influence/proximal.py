"""The proximal response: where training on from the parameters, on an edited objective, comes to rest.

    theta' = argmin_theta  J'(theta) - <grad J(theta_0), theta - theta_0> + damping/2 |theta - theta_0|^2

found from ``theta_0`` (Bae et al. 2022). A first-order score is its linearisation, one Newton step its quadratic; at a
minimum of ``J`` and without damping it is training again from where the parameters are. Each step is L-BFGS in the
metric of ``A``, which is the curvature at ``theta_0``: its first direction is that of the first-order score, and every
further one costs a gradient of the edited objective, no curvature.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.influence.linear_maps import Flat
from explain.influence.newton import affected
from explain.influence.scores import loss_and_gradient, training_gradient
from explain.progress import in_sight
from explain.types import Objective

Metric: TypeAlias = Callable[[Tensor], Tensor]  # A^-1 g
AT_REST = 1e-7  # of the first step's length in the metric of A
UNSETTLED = 1e-2  # what is left above this is warned about
PAIRS = 30  # steps that the curvature along them is remembered of
SHORTEST = 1e-4
FALL = 0.3  # of what the slope foretells, a quadratic has .5 at its least: longer steps leap into other minima


@dataclass(frozen=True, eq=False)
class Edited:
    """What is descended, from ``start [p]``; ``before`` is ``grad J(start)``."""

    objective: Objective
    start: Tensor
    before: Tensor
    damping: float

    @property
    def rounding(self) -> float:
        """Of its value, relative."""
        dtype = next(iter(self.objective.params.values())).dtype
        return 16 * torch.finfo(dtype).eps

    def at(self, theta: Tensor) -> tuple[float, Tensor]:
        """Its value and gradient, float64 ``[p]``."""
        value, gradient = loss_and_gradient(self.objective, theta)
        moved = theta - self.start
        value += float(moved @ (self.damping / 2 * moved - self.before))
        return value, gradient - self.before + self.damping * moved


class Rest(NamedTuple):
    """Parameters ``[p]``, the steps that led there, and how long the next would be beside the first."""

    theta: Tensor
    steps: int
    left: float


def descended(edited: Edited, metric: Metric, most: int) -> Rest:
    """L-BFGS (Liu and Nocedal 1989) from ``edited.start``, at most so many steps, each shortened until it descends."""
    theta, pairs = edited.start, deque[tuple[Tensor, Tensor]](maxlen=PAIRS)
    value, gradient = edited.at(theta)
    first = left = 0.0
    for taken in range(most + 1):
        direction = -_inverse(gradient, pairs, metric)
        slope = float(gradient @ direction)
        left = max(0.0, -slope) ** 0.5
        first = first or left
        if left <= AT_REST * first or taken == most:
            break
        length = 1.0
        while length > SHORTEST:
            new, (lower, after) = theta + length * direction, edited.at(theta + length * direction)
            if lower <= value + FALL * length * slope:
                break
            rounded = abs(lower - value) <= edited.rounding * abs(value)  # then the slopes are what is left to go by
            if rounded and after @ metric(after) < gradient @ metric(gradient):
                break
            length /= 2
        else:
            break
        step, bend = new - theta, after - gradient
        if step @ bend > 1e-12 * step.norm() * bend.norm():
            pairs.append((step, bend))
        theta, value, gradient = new, lower, after
    return Rest(theta, taken, left / first if first else 0.0)


def _inverse(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor]], metric: Metric) -> Tensor:
    """``A^-1 g`` with the curvature met along the steps taken, by the two loops of L-BFGS."""
    found, shares = gradient, []
    for step, bend in reversed(pairs):
        shares.append((step @ found) / (step @ bend))
        found = found - shares[-1] * bend
    found = metric(found)
    for (step, bend), share in zip(pairs, reversed(shares), strict=True):
        found = found + step * (share - (bend @ found) / (step @ bend))
    return found


def proximal_parts(
    objectives: Sequence[Objective],
    damping: float,
    parts: Sequence[dict[str, Tensor]],
    metric: Metric,
    most: int,
    progress: bool = False,
) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """``score = f(theta_0) - f'(theta')``, with the response of every player to its edit.

    Args:
        objectives: the trained loss with each number; a response serves all of them.
        damping: of the curvature, and of the response.
        parts: of each, to first order, with "structural" and "learned".
        metric: ``A^-1 g``.
        most: steps for each player.
        progress: a bar where it takes more than five seconds.

    Returns:
        The parts with another "learned", the old one under "first_order"; and checks: the steps taken, and the most
        that was left, of any player, of the first step's length.

    Warns:
        UserWarning: some players have not come to rest.
    """
    first = objectives[0]
    flat = Flat(first.params)
    start = flat.vector(first.params)
    values, before = [each.measurement(each.params).detach().double() for each in objectives], training_gradient(first)
    learned, rests = [part["learned"].clone() for part in parts], []
    players = sorted({player for each in objectives for player in affected(each)})
    for player in in_sight(players, desc="proximal responses", progress=progress):
        rest = descended(Edited(first.edited(player), start.double(), before, damping), metric, most)
        rests.append(rest)
        moved = flat.params(rest.theta.to(start.dtype))
        for objective, value, own, part in zip(objectives, values, learned, parts, strict=True):
            with torch.no_grad():
                number = objective.edited(player).measurement(moved).double()
            own[player] = (value - number).cpu() - part["structural"][player]
    loose = sum(rest.left > UNSETTLED for rest in rests)
    if loose:
        doubt(
            f"the response to {loose} of {len(rests)} players has not come to rest after {most} steps: with more "
            "(proximal=) it moves on. The loss is flat here, or bends down: a larger weight_decay or damping holds it"
        )
    made = [{**part, "learned": own, "first_order": part["learned"]} for part, own in zip(parts, learned, strict=True)]
    left = max((rest.left for rest in rests), default=0.0)
    return made, {"proximal_steps": [rest.steps for rest in rests], "proximal_left": left}
