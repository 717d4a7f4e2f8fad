"""A training as it went: a start and a sequence of deterministic steps, which can be taken again with other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from explain.influence.linear_maps import Flat, twice_differentiable
from explain.influence.through.optimizers import Update
from explain.plain import plain_operations
from explain.types import Objective, Parameters, Unsupported

SAME = 1e-6  # how far two runs of one training may end apart
MEMORY = 2**26  # bytes of states that are kept without asking whether fewer would do


class Batch(NamedTuple):
    """Examples of a step: positions int64 ``[k]``, their losses ``[k]`` at parameters, and what the mean is scaled by.

    ``seen``: their losses when it was recorded.
    """

    positions: Tensor
    losses: Callable[[Parameters], Tensor]
    scale: float = 1.0
    seen: Tensor | None = None


class Step(NamedTuple):
    """The batches whose scaled mean losses are descended, the norm that the gradient is clipped to, the updates.

    ``updates``: one for each group of parameters.
    """

    batches: tuple[Batch, ...]
    clip: float | None
    updates: tuple[Update, ...]


class Slope(NamedTuple):
    """``g = grad_theta sum_b scale_b mean_i w_i loss_i`` ``[p]``, the leaves that it hangs on, and the losses.

    ``params``: theta, a leaf a parameter.
    """

    gradient: Tensor
    params: list[Tensor]
    weights: list[Tensor]
    losses: list[Tensor]


@dataclass(frozen=True, eq=False)
class Course:
    """A training: ``state_{t+1} = update_t(state_t, g_t(theta_t, w))`` from ``start``, parameters ``state[0]``.

    Args:
        flat: the trained parameters as one vector, those of a group side by side.
        groups: how many numbers each parameter group has.
        start: ``[1 + slots, p]``, the parameters and what the optimizer keeps beside them.
        steps: what was done at each.
        size: of the training set.
        before: steps that the optimizer had taken before.
        names: of the parameters in the objective, by those that they have here, where these are others.
        known: states that were seen while it went, by the step that they were seen before: of the first, and of every
            so many.
        module: whose losses are called as they are, in operations that may have no second derivative.
    """

    flat: Flat
    groups: tuple[int, ...]
    start: Tensor
    steps: Sequence[Step]
    size: int
    before: int = 0
    names: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[int, Tensor] = field(default_factory=dict)
    module: nn.Module | None = None

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Within: steps may be taken, and differentiated again."""
        with twice_differentiable(), nullcontext() if self.module is None else plain_operations(self.module):
            yield

    def taken(
        self,
        weights: Tensor | None = None,
        start: Tensor | None = None,
        steps: range | None = None,
        again: range = range(0),
    ) -> Iterator[tuple[Slope, Tensor]]:
        """Each step's slope and the state after it.

        Called within `differentiable`.

        Args:
            weights: of the examples ``[n]``, 1 each when None.
            start: the state before these steps, None where the training starts.
            steps: all when None.
            again: those whose slopes are to be differentiated.
        """
        state = self.start if start is None else start
        for t in range(len(self.steps)) if steps is None else steps:
            slope = self.slope(state[0], t, weights, again=t in again)
            state = self.updated(state, slope.gradient.detach(), t)
            yield slope, state

    def end(self, weights: Tensor | None = None) -> Tensor:
        """The parameters ``[p]`` at the end of a training with these weights ``[n]``, 1 each when None."""
        state = self.start
        with self.differentiable():
            for _, state in self.taken(weights):  # noqa: B007 - the last is wanted
                pass
        return state[0]

    def params(self, theta: Tensor) -> Parameters:
        """Parameters ``[p]`` by the names that they have in the objective."""
        return {self.names.get(name, name): value for name, value in self.flat.params(theta).items()}

    def slope(self, theta: Tensor, t: int, weights: Tensor | None = None, again: bool = False) -> Slope:
        """The gradient that step ``t`` is taken along, before it is clipped; ``again``: to be differentiated.

        Called within `differentiable`.
        """
        leaves, each, parts = [], [], []
        with torch.enable_grad():
            params = {name: p.detach().requires_grad_() for name, p in self.flat.params(theta.detach()).items()}
            for batch in self.steps[t].batches:
                losses = batch.losses(params)
                each.append(losses.detach())
                if again or weights is not None:
                    own = losses.new_ones(len(losses)) if weights is None else weights[batch.positions].to(losses)
                    leaves.append(own.requires_grad_(again))
                    losses = leaves[-1] * losses
                parts.append(losses.mean() if batch.scale == 1 else batch.scale * losses.mean())
            total = sum(parts[1:], parts[0])
            wanted = list(params.values())
            found = torch.autograd.grad(total, wanted, create_graph=again, materialize_grads=True)
            gradient = torch.cat([part.reshape(-1) for part in found]).to(theta)
        return Slope(gradient, wanted, leaves, each)

    def updated(self, state: Tensor, gradient: Tensor, t: int) -> Tensor:
        """The state after step ``t``."""
        step, taken = self.steps[t], self.before + t
        if step.clip is not None:
            gradient = _clipped(gradient, self.flat.sizes, step.clip)
        if len(self.groups) == 1:
            return step.updates[0].step(state, gradient, taken)
        parts = zip(step.updates, state.split(self.groups, 1), gradient.split(self.groups), strict=True)
        return torch.cat([update.step(own, g, taken) for update, own, g in parts], 1)

    def pulled(self, state: Tensor, gradient: Tensor, t: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """``J^T u`` of step ``t``, rows ``u [k, 1 + slots, p]``: by the state, like ``u``, the gradient ``[k, p]``."""
        step, taken, given = self.steps[t], self.before + t, gradient
        if step.clip is not None:
            given = _clipped(gradient, self.flat.sizes, step.clip)
        parts = zip(step.updates, *(x.split(self.groups, -1) for x in (state, given, u)), strict=True)
        pulled = [update.pulled(own, g, taken, rows) for update, own, g, rows in parts]
        by_state, v = (torch.cat(part, -1) for part in zip(*pulled, strict=True))
        return by_state, v if step.clip is None else _unclipped(gradient, step.clip, v)


def module_of(objective: Objective) -> nn.Module:
    """The module that an objective's parameters are those of, by the same names.

    Raises:
        Unsupported: it has none.
    """
    module = getattr(objective, "module", None)
    if not isinstance(module, nn.Module):
        raise Unsupported(f"{type(objective).__name__} has no module whose training could be followed")
    return module


def _clipped(gradient: Tensor, sizes: Sequence[int], most: float) -> Tensor:
    """As ``torch.nn.utils.clip_grad_norm_`` does it: the norm of the norms of the parameters."""
    norms = torch.stack([torch.linalg.vector_norm(part) for part in gradient.split(list(sizes))])
    return gradient * (most / (torch.linalg.vector_norm(norms) + 1e-6)).clamp(max=1.0)


def _unclipped(gradient: Tensor, most: float, v: Tensor) -> Tensor:
    """``J^T v`` of `_clipped` for rows ``v [k, p]``."""
    norm = torch.linalg.vector_norm(gradient)
    share = most / (norm + 1e-6)
    if share >= 1:
        return v
    return share * (v - (v @ gradient)[:, None] * gradient / (norm * (norm + 1e-6)))
