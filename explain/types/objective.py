"""Objectives: how the number hangs on the training data, which is all that influence knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from explain.types.arrays import Parameters
from explain.types.players import Players


class Objective(Protocol):
    """How the number hangs on the training data: all that ``influence`` knows.

    ``theta`` minimises ``J(theta) = (1/n) sum_i train_loss_i(theta) + weight_decay/2 |theta|^2``, and the question is
    about ``measurement(theta)``. The penalty is in ``J`` only. Everything is a pure function of ``params``.
    """

    @property
    def params(self) -> Parameters:
        """``theta``, by name."""

    @property
    def players(self) -> Players:
        """Who may be taken away: the training examples, kind "train", or inputs that they share, such as edges."""

    @property
    def local(self) -> bool:
        """Whether player ``i`` is training example ``i``, and taking it away drops its own loss and nothing else."""

    @property
    def weight_decay(self) -> float:
        """As in ``torch.optim.SGD``."""

    @property
    def convex(self) -> bool:
        """Whether the loss is known to be convex in the outputs, as cross-entropy and squares are."""

    @property
    def size(self) -> int:
        """``n``, the number of training examples."""

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Positions ``int64 [examples]`` that cover the training set once, in order, or shuffled by a generator."""

    def outputs(self, params: Parameters, batch: Tensor) -> Tensor:
        """The model's outputs for these training examples as the loss takes them, ``[examples, outputs]``."""

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The loss of each example given its `outputs`, ``[examples]``."""

    def train_loss(self, params: Parameters, batch: Tensor) -> Tensor:
        """``loss(outputs(params, batch), batch)``, ``[examples]``."""

    def measurement(self, params: Parameters) -> Tensor:
        """The number in question, a scalar."""

    def edited(self, player: int) -> Objective:
        """The same objective after this player is taken away, ``n`` kept fixed."""


class Suspect(NamedTuple):
    """Another training that the parameters may be the minimum of, where they are not that of the one taken.

    ``what`` is "loss", "weights" or "examples", ``name`` says which, ``remedy`` asks for it. ``change`` makes it of an
    objective, or makes several of which it is a mean with shares that are not known; ``said`` says these.
    """

    what: str
    name: str
    change: Callable[[Any], Objective | Sequence[Objective]]
    remedy: str
    said: Callable[[Sequence[float]], str] = lambda shares: ""


class Questions(NamedTuple):
    """Many numbers of one model, each read from its own row: ``numbers(outputs(theta, positions))``.

    ``outputs(params, positions int64 [k]) -> [k, outputs]``, a pure function; ``numbers``: the outputs of all of them,
    ``[q, outputs] -> [q]``, number i of row i; ``total``: ``q``; ``apart``: whether a row costs what it does alone, as
    for examples that are inputs of their own, and unlike the nodes of one graph.
    """

    outputs: Callable[[Parameters, Tensor], Tensor]
    numbers: Callable[[Tensor], Tensor]
    total: int
    apart: bool


class LossChange(NamedTuple):
    """``of(params) -> [k]``: what some training examples add to ``L' - L`` for each of these players, int64 ``[k]``.

    ``L = (1/n) sum_i loss_i`` is the mean training loss, ``L'`` the same once a player is taken away.
    """

    players: Tensor
    of: Callable[[Parameters], Tensor]


@runtime_checkable
class Edits(Protocol):
    """Many edits of an objective at once: the quick way to what ``Objective.edited`` gives one by one."""

    def moving(self) -> Tensor:
        """Players whose absence may change the number, bool ``[P]``."""

    def dropped(self) -> Tensor:
        """Player and training example, for each example whose loss leaves with a player, int64 ``[2, m]``."""

    def numbers(self, params: Parameters, players: Tensor) -> Tensor:
        """The number once each of these players is taken away, ``[k]``."""

    def loss_changes(self, players: Tensor) -> Sequence[LossChange]:
        """All that changes in the training loss when one of these players is taken away, piece by piece."""


@runtime_checkable
class LabelledObjective(Objective, Protocol):
    """An objective whose training examples may get other labels, or be left out together."""

    @property
    def labels(self) -> Tensor:
        """Classes ``[n]``, or real targets ``[n, ...]``."""

    def relabelled(self, labels: Tensor) -> Self:
        """The same objective with other labels, of the same shape and dtype."""

    def without(self, examples: Tensor) -> Self:
        """The same objective without these training examples, int64 ``[k]``, ``n`` kept fixed."""

    def at(self, params: Parameters) -> Self:
        """The same objective at other parameters."""


@runtime_checkable
class EditableObjective(LabelledObjective, Protocol):
    """An objective whose training examples are inputs of their own, which may be changed one by one."""

    @property
    def inputs(self) -> Tensor:
        """What was trained on, ``[n, *shape]``."""

    def losses(self, params: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of any examples ``[rows, *shape]``, ``[rows]``; differentiable in the inputs."""

    def answer(self, params: Parameters) -> Tensor:
        """The model's outputs for what is being explained, ``[1, outputs]``."""

    def losses_of(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of any answers of the model, ``[rows, outputs]``, and labels, ``[rows]``."""

    def input_players(self, example: int) -> Players:
        """The inputs of one training example as players, in the order of its flattened input."""

    def replaced(self, positions: Tensor, inputs: Tensor) -> Self:
        """The same objective with other inputs ``[k, *shape]`` of the examples at these positions."""
