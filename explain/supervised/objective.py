"""The trained loss of a classifier or regressor, and the number as a function of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from explain.examples import READ, Read, Rows, pieces
from explain.losses import trained_loss
from explain.supervised.number import ExampleNumber
from explain.supervised.players import features, pixels
from explain.supervised.training_set import fitting
from explain.training import TrainingObjective, check_own_loss, other_losses, trainable
from explain.types import NonFinite, Parameters, Players, Questions

PICTURES = 2_000  # up to this many training images travel with an explanation


@dataclass(frozen=True, eq=False, kw_only=True)
class SupervisedObjective(TrainingObjective):
    """The training loss of examples that are inputs of their own, so that these may be changed too.

    Args:
        inputs: ``[n, *shape]``, or read from a data set as they are asked for.
        forward: ``(params, inputs [rows, *shape]) -> outputs [rows, outputs]``, a pure function.
        asked: the example whose number is explained, ``[*shape]``.
        names: of the features of a table.
        told: what was taken to be the trained loss, for the answer.
    """

    inputs: Tensor | Rows
    forward: Callable[[Parameters, Tensor], Tensor]
    asked: Tensor
    names: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def losses(self, params: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of any examples ``[rows, *shape]``, ``[rows]``; differentiable in the inputs."""
        return self.losses_of(self.forward(params, inputs), labels)

    def losses_of(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of any answers of the model, ``[rows, outputs]``, and labels, ``[rows]``."""
        return self.loss_of(self.link(outputs), labels)

    def answer(self, params: Parameters) -> Tensor:
        """The model's outputs for the example that is explained, ``[1, outputs]``."""
        return self.forward(params, self.asked[None])

    def input_players(self, example: int) -> Players:
        """Features of a table, pixels of an image (one a channel), in the order of the flattened input.

        Raises:
            IndexError: no such training example.
        """
        if not 0 <= example < self.size:
            raise IndexError(f"a training example must be from 0 to {self.size - 1}, got {example}")
        x = self.inputs[example]
        return features(x, self.names) if x.dim() == 1 else pixels(x)

    def replaced(self, positions: Tensor, inputs: Tensor) -> Self:
        """The same objective with other inputs ``[k, *shape]`` of the examples at these positions.

        Raises:
            ValueError: inputs of another shape.
            NonFinite: NaN or infinity in them.
        """
        if inputs.shape != (len(positions), *self.inputs.shape[1:]):
            shape = [len(positions), *self.inputs.shape[1:]]
            raise ValueError(f"the inputs in their place must be {shape}, got {list(inputs.shape)}")
        if not inputs.isfinite().all():
            raise NonFinite("the inputs in their place hold NaN or infinity")
        found = self.inputs.clone()
        found[positions] = inputs.detach().to(found.device, found.dtype)
        return replace(self, inputs=found, predict=_reading(self.forward, found))

    @property
    def train(self) -> Read:
        """Inputs and labels, for another number of the same model: rows that are read later are not checked again."""
        return Read((self.inputs, self.labels), self.players.index)

    def content(self) -> Iterator[Tensor]:
        """All that a training example is, in pieces that fit in memory."""
        yield from pieces(self.inputs)
        yield from super().content()


def _reading(
    forward: Callable[[Parameters, Tensor], Tensor], inputs: Tensor | Rows
) -> Callable[[Parameters, Tensor], Tensor]:
    return lambda params, positions: forward(params, inputs[positions])


def training_objective(
    number: ExampleNumber, train: Any = None, remove: str | Players = "labels"
) -> SupervisedObjective:
    """The mean loss over the training examples, whose players are the examples themselves.

    Args:
        number: the number in question.
        train: ``(inputs [n, *shape], labels [n])``, a Dataset or a DataLoader; the model's own when None. Of a
            map-style data set above 256 MiB only the labels are kept; its inputs are read a batch at a time. Or the
            ``train`` of another number's objective, which is not read and checked once more.
        remove: "labels": an example's loss is taken away.

    Raises:
        ValueError: no training examples, another ``remove``, examples that do not fit the model or their labels, or a
            data set that gives others each time it is asked.
        TypeError: labels that are no classes or no numbers, inputs of another dtype than the model.
        NonFinite: NaN or infinity in them.
    """
    if remove != "labels":
        raise ValueError(f"remove must be 'labels' for a supervised model, got {remove!r}")
    model = number.model
    inputs, given, positions = fitting(model.train if train is None else train, number)
    trained = trained_loss(model.loss, number.meaning, given)
    made = SupervisedObjective(
        params=trainable(model.module),
        players=_players(inputs, trained.labels, positions),
        predict=_reading(model.answers_with, inputs),
        labels=trained.labels,
        number=number.measured,
        inputs=inputs,
        forward=model.answers_with,
        asked=number.x,
        names=model.feature_names,
        loss_of=trained.loss_of,
        link=trained.link,
        weight_decay=model.weight_decay,
        batch_size=_rows_at_once(inputs, number.batching.rows),
        convex=trained.convex,
        suspects=partial(other_losses, trained, number.meaning, given),
        module=model.module,
        told={"loss": trained.name} | ({"assumed": {"loss": trained.assumed}} if trained.assumed else {}),
    )
    check_own_loss(made)
    return made


def questions(number: ExampleNumber, others: Sequence[Any]) -> Questions | None:
    """These numbers of one network in one pass, unless they are of several or the rows of a batch see one another."""
    asked = [each for each in others if isinstance(each, ExampleNumber) and each.model is number.model]
    alike = all(each.x.shape == number.x.shape and each.batching.independent for each in asked)
    if len(asked) < len(others) or not alike:
        return None
    answers, x = number.model.answers_with, torch.stack([each.x for each in asked])

    def numbers(rows: Tensor) -> Tensor:
        return torch.cat([each.read(row) for each, row in zip(asked, rows.split(1), strict=True)])

    return Questions(lambda params, positions: answers(params, x[positions]), numbers, len(asked), apart=True)


def _players(inputs: Tensor | Rows, labels: Tensor, positions: Tensor) -> Players:
    geometry = {}
    if isinstance(inputs, Tensor) and inputs.dim() == 4 and len(inputs) <= PICTURES:
        geometry["images"] = inputs.cpu()
    if labels.dim() == 1 and not labels.is_floating_point():
        geometry["classes"] = labels.cpu()
    return Players("train", positions, geometry=geometry)


def _rows_at_once(inputs: Tensor | Rows, affordable: int) -> int:
    """How many examples one pass takes: of rows that are read for it, as many as are read at once."""
    if isinstance(inputs, Tensor):
        return affordable
    return max(1, min(affordable, READ // max(1, inputs.examples.row_bytes)))
