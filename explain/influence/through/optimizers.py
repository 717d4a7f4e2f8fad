"""Steps of optimizers, the same operations as torch's in its order, and their transposed derivatives written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from explain.types import Unsupported


class Update(Protocol):
    """One step of an optimizer, with the settings of a parameter group at that step."""

    @property
    def slots(self) -> int:
        """How many numbers it keeps beside each parameter."""

    def step(self, state: Tensor, gradient: Tensor, taken: int) -> Tensor:
        """The state ``[1 + slots, p]`` after the step: parameters first. ``taken``: steps before this one."""

    def pulled(self, state: Tensor, gradient: Tensor, taken: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """``J^T u`` for rows ``u [k, 1 + slots, p]``: by the state, like ``u``, and by the gradient ``[k, p]``."""


@dataclass(frozen=True)
class Sgd:
    """``torch.optim.SGD``: ``b <- momentum b + (1 - dampening) g``, ``theta <- theta - lr b``."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False

    kept = ("momentum_buffer",)

    @property
    def slots(self) -> int:
        """The momentum."""
        return 1

    def step(self, state: Tensor, gradient: Tensor, taken: int) -> Tensor:
        """See `Update`."""
        theta, moved = state
        g = _penalised(theta, gradient, self.weight_decay, self.maximize)
        if not self.momentum:
            return torch.stack([theta.add(g, alpha=-self.lr), moved])
        moved = moved.mul(self.momentum).add(g, alpha=1 - self.dampening) if taken else g
        g = g.add(moved, alpha=self.momentum) if self.nesterov else moved
        return torch.stack([theta.add(g, alpha=-self.lr), moved])

    def pulled(self, state: Tensor, gradient: Tensor, taken: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """See `Update`."""
        theta, moved = u.unbind(1)
        by_move = -self.lr * theta
        if not self.momentum:
            by_g = by_move
        else:
            moved = moved + (self.momentum * by_move if self.nesterov else by_move)
            by_g = (1 - self.dampening) * moved if taken else moved
            by_g = by_g + by_move if self.nesterov else by_g
            moved = self.momentum * moved if taken else torch.zeros_like(moved)
        return torch.stack([theta + self.weight_decay * by_g, moved], 1), -by_g if self.maximize else by_g


@dataclass(frozen=True)
class Adam:
    """``torch.optim.Adam`` and ``AdamW`` (``decoupled_weight_decay``).

    A parameter whose gradient has been zero at every step does not move, and has the derivative of one at rest.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled_weight_decay: bool = False
    maximize: bool = False

    kept = ("exp_avg", "exp_avg_sq")

    @property
    def slots(self) -> int:
        """Mean and mean square of the gradient."""
        return 2

    def step(self, state: Tensor, gradient: Tensor, taken: int) -> Tensor:
        """See `Update`."""
        theta, mean, square = state
        beta, gamma = self.betas
        g = self._g(theta, gradient)
        if self.decoupled_weight_decay and self.weight_decay:
            theta = theta.mul(1 - self.lr * self.weight_decay)
        mean = mean.lerp(g, 1 - beta)
        square = square.mul(gamma).addcmul(g, g, value=1 - gamma)
        length, scale = self._corrections(taken)
        return torch.stack([theta.addcdiv(mean, (square.sqrt() / scale).add(self.eps), value=-length), mean, square])

    def pulled(self, state: Tensor, gradient: Tensor, taken: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """See `Update`."""
        beta, gamma = self.betas
        (_, mean, square), g = self.step(state, gradient, taken), self._g(state[0], gradient)
        length, scale = self._corrections(taken)
        root = square.sqrt()
        size = (root / scale).add(self.eps)
        bent = torch.where(root > 0, mean / size * (length / (2 * scale)) / root / size, 0)
        theta, by_mean, by_square = u.unbind(1)
        by_mean, by_square = by_mean - length * theta / size, by_square + theta * bent
        by_g = (1 - beta) * by_mean + 2 * (1 - gamma) * g * by_square
        if self.decoupled_weight_decay:
            theta = theta * (1 - self.lr * self.weight_decay)
        else:
            theta = theta + self.weight_decay * by_g
        return torch.stack([theta, beta * by_mean, gamma * by_square], 1), -by_g if self.maximize else by_g

    def _g(self, theta: Tensor, gradient: Tensor) -> Tensor:
        return _penalised(theta, gradient, 0.0 if self.decoupled_weight_decay else self.weight_decay, self.maximize)

    def _corrections(self, taken: int) -> tuple[float, float]:
        """The length of this step, and what the root of the mean square is measured in."""
        beta, gamma = self.betas
        return self.lr / (1 - beta ** (taken + 1)), (1 - gamma ** (taken + 1)) ** 0.5


KINDS: dict[type[torch.optim.Optimizer], type[Sgd | Adam]] = {
    torch.optim.SGD: Sgd,
    torch.optim.Adam: Adam,
    torch.optim.AdamW: Adam,
}


def kind_of(optimizer: torch.optim.Optimizer) -> type[Sgd | Adam]:
    """The steps of this optimizer.

    Raises:
        Unsupported: another class than the three that are written out here, or a variant of one.
    """
    kind = KINDS.get(type(optimizer))
    if kind is None:
        raise Unsupported(
            f"the steps of SGD, Adam and AdamW of torch.optim are known, and those of {type(optimizer).__name__} are "
            "not: train with one of them"
        )
    for group in optimizer.param_groups:
        for variant in ("amsgrad", "capturable", "differentiable"):
            if group.get(variant):
                raise Unsupported(f"{variant}=True of {type(optimizer).__name__} is not known: leave it out")
    return kind


def update_of(kind: type[Sgd | Adam], group: Mapping[str, Any]) -> Sgd | Adam:
    """The step that this parameter group's settings make now.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> update_of(Sgd, torch.optim.SGD([weight], lr=0.5).param_groups[0])
    Sgd(lr=0.5, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False)
    """
    return kind(**{field.name: _plain(group[field.name]) for field in fields(kind) if field.name in group})


def _plain(setting: Any) -> Any:
    if isinstance(setting, (tuple, list)):
        return tuple(_plain(each) for each in setting)
    return setting.item() if isinstance(setting, Tensor) else setting


def _penalised(theta: Tensor, gradient: Tensor, weight_decay: float, maximize: bool) -> Tensor:
    gradient = -gradient if maximize else gradient
    return gradient.add(theta, alpha=weight_decay) if weight_decay else gradient
