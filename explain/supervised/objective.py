"""The trained loss of a classifier or regressor, and the number as a function of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset

from explain.examples import READ, Examples, Read, Rows, check_parts, examples_of, pieces
from explain.guard import evaluating, recordable
from explain.losses import trained_loss
from explain.objectives import TrainingObjective, check_own_loss, other_losses, trainable
from explain.plain import plain_operations
from explain.supervised.border import checked_like, outputs_of
from explain.supervised.players import features, pixels
from explain.types import NonFinite, Parameters, Players, Questions, Target

if TYPE_CHECKING:
    from explain.supervised.model import SupervisedModel
    from explain.supervised.targets import ExampleTarget

PICTURES = 2_000  # up to this many training images travel with an explanation


@dataclass(frozen=True, eq=False, kw_only=True)
class SupervisedObjective(TrainingObjective):
    """The training loss of examples that are inputs of their own, so that these may be changed too.

    Args:
        inputs: ``[n, *shape]``, or read from a data set as they are asked for.
        forward: ``(params, inputs [rows, *shape]) -> outputs [rows, outputs]``, a pure function.
        asked: the example whose number is explained, ``[*shape]``.
        names: of the features of a table.
    """

    inputs: Tensor | Rows
    forward: Callable[[Parameters, Tensor], Tensor]
    asked: Tensor
    names: tuple[str, ...] = ()

    def losses(self, params: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of any examples ``[rows, *shape]``, ``[rows]``; differentiable in the inputs."""
        return self.loss_of(self.link(self.forward(params, inputs)), labels)

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
            ValueError: inputs of another shape. NonFinite: NaN or infinity in them.
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
    target: ExampleTarget, train: Any = None, remove: str | Players = "labels"
) -> SupervisedObjective:
    """The mean loss over the training examples, whose players are the examples themselves.

    Args:
        target: the number in question.
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
    model = target.model
    found, positions = training_set(train if train is not None else model.train, target.x.device)
    batch_size = target.batching.rows
    inputs: Tensor | Rows
    if isinstance(found, Examples):
        inputs = Rows(found, 0).to(target.x.device, target.x.dtype)
        labels = torch.cat([_checked(x.to(target.x.device), y, target)[1] for x, y in found.batches()])
    else:
        inputs, labels = _checked(found[0], recordable(found[1].detach()), target)
    if isinstance(inputs, Rows):
        batch_size = max(1, min(batch_size, READ // max(1, inputs.examples.row_bytes)))

    given, trained = labels, trained_loss(model.loss, target.meaning, labels)
    labels = trained.labels
    target.tell({"loss": trained.name} | ({"assumed": {"loss": trained.assumed}} if trained.assumed else {}))
    outputs = outputs_with(target.model)
    made = SupervisedObjective(
        params=trainable(target.module),
        players=_players(inputs, labels, positions),
        predict=_reading(outputs, inputs),
        labels=labels,
        number=lambda params: target.number(outputs(params, target.x[None]))[0],
        inputs=inputs,
        forward=outputs,
        asked=target.x,
        names=model.feature_names,
        loss_of=trained.loss_of,
        link=trained.link,
        weight_decay=model.weight_decay,
        batch_size=batch_size,
        convex=trained.convex,
        suspects=partial(other_losses, trained, target.meaning, given),
        module=target.module,
    )
    check_own_loss(made)
    return made


def questions(target: ExampleTarget, targets: Sequence[Target]) -> Questions | None:
    """The numbers of these targets in one pass, unless the rows of a batch see one another."""
    asked = [each for each in targets if isinstance(each, type(target)) and each.model is target.model]
    alike = all(each.x.shape == target.x.shape and each.batching.independent for each in asked)
    if len(asked) < len(targets) or not alike:
        return None
    outputs, x = outputs_with(target.model), torch.stack([each.x for each in asked])

    def numbers(rows: Tensor) -> Tensor:
        return torch.cat([each.number(row) for each, row in zip(asked, rows.split(1), strict=True)])

    return Questions(lambda params, positions: outputs(params, x[positions]), numbers, len(asked), apart=True)


def outputs_with(model: SupervisedModel) -> Callable[[Parameters, Tensor], Tensor]:
    """The model's outputs as a function of its parameters, and of rows."""
    module = model.module

    def outputs(params: Parameters, x: Tensor) -> Tensor:
        with evaluating(module), plain_operations(module):
            return outputs_of(lambda rows: functional_call(module, params, (rows,)), x, model.part)

    return outputs


def training_set(train: Any, device: torch.device | None = None) -> Read:
    """``(inputs [n, ...], labels [n, ...])`` out of such a pair, a Dataset or a DataLoader, in the data set's order.

    Data sets are brought to the device, as training brings them; tensors must be there.

    >>> training_set(torch.utils.data.TensorDataset(torch.eye(2), torch.tensor([0, 1]))).columns[1]
    tensor([0, 1])
    """
    if isinstance(train, Read):
        return train
    if train is None:
        raise ValueError("there are no training examples: give train=(inputs, labels), a Dataset or a DataLoader")
    if not holds_examples(train):
        if isinstance(train, tuple) and all(isinstance(part, Tensor) for part in train):
            check_parts(train)
        raise TypeError(
            f"train must be a pair (inputs, labels) of tensors, a Dataset or a DataLoader, got {_kind(train)}"
        )
    if isinstance(train, (tuple, list)):
        return Read((train[0], train[1]), torch.arange(len(train[0])))
    found = examples_of(train)
    if isinstance(found.columns, Examples):
        return found
    return found._replace(columns=tuple(part.to(device) for part in found.columns))


def holds_examples(train: Any) -> bool:
    """Whether this is a pair of tensors, a Dataset or a DataLoader.

    >>> holds_examples((torch.eye(2), torch.tensor([0, 1]))), holds_examples([[1.0], [2.0]])
    (True, False)
    """
    if isinstance(train, (tuple, list)):
        return len(train) == 2 and isinstance(train[0], (Tensor, Rows)) and isinstance(train[1], Tensor)
    return isinstance(train, (Dataset, DataLoader))


def _checked(inputs: Tensor | Rows, labels: Tensor, target: ExampleTarget) -> tuple[Tensor | Rows, Tensor]:
    """Both, where they fit the model; rows that are read later were checked when their labels were."""
    shape = target.x.shape
    if not len(inputs):
        raise ValueError("the training set is empty")
    if inputs.shape[1:] != shape or len(inputs) != len(labels):
        raise ValueError(
            f"train must be inputs [n, {', '.join(map(str, shape))}] and as many labels, got {list(inputs.shape)} and "
            f"{list(labels.shape)}"
        )
    for name, found in (("inputs", inputs), ("labels", labels)):
        unknown = name == "labels" and found.dim() > 1  # NaN of several tasks: no label
        if isinstance(found, Tensor) and not (found.isfinite() | (found.isnan() if unknown else False)).all():
            raise NonFinite(f"the training {name} hold NaN or infinity: drop those examples")
    if isinstance(inputs, Tensor):
        inputs = checked_like(inputs.detach(), target.module, "the training inputs")
    return inputs, labels.to(inputs.device)


def _players(inputs: Tensor | Rows, labels: Tensor, positions: Tensor) -> Players:
    geometry = {}
    if isinstance(inputs, Tensor) and inputs.dim() == 4 and len(inputs) <= PICTURES:
        geometry["images"] = inputs.cpu()
    if labels.dim() == 1 and not labels.is_floating_point():
        geometry["classes"] = labels.cpu()
    return Players("train", positions, geometry=geometry)


def _kind(train: Any) -> str:
    if isinstance(train, (tuple, list)):
        return f"{type(train).__name__} of {', '.join(type(part).__name__ for part in train[:4])}"
    return type(train).__name__
