"""What is known by hand of a representative: its number for every coalition, its slopes, its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.attention.told import Told
from explain.types import Players, Target

Answers = Callable[[Players, Tensor], Tensor]  # players, bool [P] who are there -> the outputs that are read, [C] or []
Masked = Callable[[Players, Tensor], Tensor]  # players, amounts [P] in [0, 1] -> the outputs that are read


@dataclass(frozen=True)
class Smooth:
    """The number as a function ``f(inputs)`` of tensors on the user's own call, and what they are when nobody plays."""

    inputs: Tensor
    baseline: Tensor
    owner: Tensor
    f: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Training:
    """What was trained, as functions of one vector ``theta`` of the parameters.

    ``losses(theta) [n]`` of the training examples, ``relabelled`` with 0 for every label, and ``number(theta)``. Where
    examples are inputs of their own, ``losses_of(theta, x)`` is the loss of the first were it at ``x``; where the size
    of outputs is known, ``sizes(theta) [n]`` and ``size(theta)``. ``quadratic``: it can be trained again in one step.
    """

    theta: Tensor
    losses: Callable[[Tensor], Tensor]
    number: Callable[[Tensor], Tensor]
    weight_decay: float
    train: Any = None
    relabelled: Callable[[Tensor], Tensor] | None = None
    inputs: Tensor | None = None
    losses_of: Callable[[Tensor, Tensor], Tensor] | None = None
    sizes: Callable[[Tensor], Tensor] | None = None
    size: Callable[[Tensor], Tensor] | None = None
    quadratic: bool = False

    @cached_property
    def curvature(self) -> Tensor:
        """The Hessian of the mean loss and the penalty, ``[p, p]``, by differentiating twice."""
        at = self.theta.detach().clone().requires_grad_()
        with torch.enable_grad():
            slope = torch.autograd.grad(self.losses(at).mean(), at, create_graph=True)[0]
            rows = [torch.autograd.grad(one, at, retain_graph=True, allow_unused=True)[0] for one in slope.unbind()]
        found = torch.stack([torch.zeros_like(at) if row is None else row for row in rows])
        return found.detach() + self.weight_decay * torch.eye(len(at), dtype=at.dtype)


@dataclass(frozen=True)
class Case:
    """A representative: the question to the toolkit, and the same question asked of the user's own call by hand.

    Args:
        target: the question.
        answers: by kind of players, the outputs with some of them only.
        smooth: by kind of players, the number as a function of what they own.
        masked: by kind of players, the outputs with messages or features multiplied.
        looked: shares of attention ``[P]`` of an aggregate, by hand.
        told: functions that say the weights of layers that form none, for the question.
        training: how the number hangs on the training examples.
        around: the features ``[nodes, features]`` and outputs of the nodes around.
        others: the same of further targets, for what is learned over many.
        options: by kind of players, which of them are asked about, where they are not the usual ones.
        label: whose output is the number; None where the output is the number.
        tolerance: what rounding may leave, relative to the largest score.
    """

    target: Target
    answers: Mapping[str, Answers]
    smooth: Mapping[str, Callable[[Players], Smooth]] = field(default_factory=dict)
    masked: Mapping[str, Masked] = field(default_factory=dict)
    looked: Mapping[str, Callable[[Players], Tensor]] = field(default_factory=dict)
    told: Told = None
    training: Training | None = None
    around: tuple[Tensor, Tensor] | None = None
    others: Sequence[Case] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    label: int | None = None
    tolerance: float = 1e-7

    @cached_property
    def _tables(self) -> dict[str, tuple[Players, Tensor]]:
        return {}

    def players(self, kind: str) -> str | Players:
        """What an explainer is given: the kind, or players of it."""
        return self.target.players(kind, **self.options[kind]) if kind in self.options else kind

    def table(self, kind: str) -> tuple[Players, Tensor]:
        """The players, and the outputs of all ``2^P`` coalitions, ``[2^P, C]``: bit ``i`` of a row is player ``i``."""
        if kind not in self._tables:
            players = self.target.players(kind, **self.options.get(kind, {}))
            rows = [self.answers[kind](players, mask) for mask in coalitions(len(players))]
            self._tables[kind] = players, torch.stack(rows).detach().double().reshape(len(rows), -1)
        return self._tables[kind]

    def numbers(self, kind: str) -> tuple[Players, Tensor]:
        """The players, and the number of all coalitions, ``[2^P]``."""
        players, outputs = self.table(kind)
        return players, self.read(outputs)

    def read(self, outputs: Tensor) -> Tensor:
        """The number in rows of outputs; a single one is that of class 1."""
        return outputs[..., self.label or 0 if outputs.size(-1) > 1 else 0]


def coalitions(players: int) -> Tensor:
    """All of them, bool ``[2^players, players]``."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).bool()
