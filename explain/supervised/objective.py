"""The trained loss of a classifier or regressor, and the number as a function of its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset, IterableDataset

from explain.guard import random_states_kept
from explain.objectives import TrainingObjective, example_loss, trainable
from explain.supervised.border import checked_like, outputs_of
from explain.types import NonFinite, Parameters, Players

if TYPE_CHECKING:
    from explain.supervised.targets import ExampleTarget

PICTURES = 2_000  # up to this many training images travel with an explanation


def training_objective(target: ExampleTarget, train: Any = None, remove: str = "labels") -> TrainingObjective:
    """The mean loss over the training examples, whose players are the examples themselves.

    Args:
        target: the number in question.
        train: ``(inputs [n, *shape], labels [n])``, a Dataset or a DataLoader; the model's own when None.
        remove: "labels": an example's loss is taken away.

    Raises:
        ValueError: no training examples, another ``remove``, or examples that do not fit the model or their labels.
        TypeError: labels that are no classes or no numbers, inputs of another dtype than the model.
        NonFinite: NaN or infinity in them.
    """
    if remove != "labels":
        raise ValueError(f"remove must be 'labels' for a supervised model, got {remove!r}")
    model, module = target.model, target.module
    inputs, labels = training_tensors(train if train is not None else model.train)
    inputs, labels = _checked(inputs.detach(), labels.detach(), target)

    def predict(params: Parameters, positions: Tensor) -> Tensor:
        return outputs_of(lambda x: functional_call(module, params, (x,)), inputs[positions])

    def number(params: Parameters) -> Tensor:
        outputs = outputs_of(lambda x: functional_call(module, params, (x,)), target.x[None])
        return target.number(outputs)[0]

    return TrainingObjective(
        params=trainable(module),
        players=_players(inputs),
        predict=predict,
        labels=labels,
        number=number,
        loss_of=model.loss or example_loss,
        weight_decay=model.weight_decay,
        batch_size=target.batching.rows,
    )


def training_tensors(train: Any) -> tuple[Tensor, Tensor]:
    """``(inputs [n, ...], labels [n, ...])`` out of such a pair, a Dataset or a DataLoader, in the data set's order.

    >>> training_tensors(torch.utils.data.TensorDataset(torch.eye(2), torch.tensor([0, 1])))[1]
    tensor([0, 1])
    """
    if train is None:
        raise ValueError("there are no training examples: give train=(inputs, labels), a Dataset or a DataLoader")
    if isinstance(train, (tuple, list)) and len(train) == 2 and all(isinstance(part, Tensor) for part in train):
        return train[0], train[1]
    if isinstance(train, DataLoader):
        batches = train if isinstance(train.dataset, IterableDataset) else _in_order(train.dataset, train.collate_fn)
    elif isinstance(train, Dataset) or (hasattr(train, "__getitem__") and hasattr(train, "__len__")):
        batches = _in_order(train)
    else:
        raise TypeError(
            f"train must be a pair (inputs, labels) of tensors, a Dataset or a DataLoader, got {_kind(train)}"
        )
    with random_states_kept():  # a DataLoader draws a seed even where it does not shuffle
        pairs = [(batch[0], batch[1]) for batch in batches]
    if not pairs:
        raise ValueError("the training set is empty")
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def _in_order(dataset: Any, collate: Any = None) -> DataLoader:
    return DataLoader(dataset, batch_size=256, collate_fn=collate)


def _checked(inputs: Tensor, labels: Tensor, target: ExampleTarget) -> tuple[Tensor, Tensor]:
    shape = target.x.shape
    if inputs.shape[1:] != shape or len(inputs) != len(labels) or not len(inputs):
        raise ValueError(
            f"train must be inputs [n, {', '.join(map(str, shape))}] and as many labels, got {list(inputs.shape)} and "
            f"{list(labels.shape)}"
        )
    for name, found in (("inputs", inputs), ("labels", labels)):
        if not found.isfinite().all():
            raise NonFinite(f"the training {name} hold NaN or infinity: drop those examples")
    inputs = checked_like(inputs, target.module, "the training inputs")
    if target.model.task == "regression":
        return inputs, labels.to(inputs)
    if labels.is_floating_point() and target.model.loss is None:
        raise TypeError(f"a classifier's labels must be integers, got {labels.dtype}: use labels.long(), or give loss=")
    return inputs, labels.to(inputs.device)


def _players(inputs: Tensor) -> Players:
    pictures = inputs.dim() == 4 and len(inputs) <= PICTURES
    index = torch.arange(len(inputs))
    return Players("train", index, geometry={"images": inputs.cpu()} if pictures else {})


def _kind(train: Any) -> str:
    if isinstance(train, (tuple, list)):
        return f"{type(train).__name__} of {', '.join(type(part).__name__ for part in train[:4])}"
    return type(train).__name__
