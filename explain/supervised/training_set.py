"""The examples that a network was trained on: read from whatever holds them, and checked against the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from explain.examples import Examples, Read, Rows, check_parts, examples_of
from explain.guard import recordable
from explain.supervised.border import checked_like
from explain.supervised.number import ExampleNumber
from explain.types import NonFinite


def fitting(train: Any, number: ExampleNumber) -> tuple[Tensor | Rows, Tensor, Tensor]:
    """Inputs ``[n, *shape]``, labels ``[n, ...]`` and their positions, where they fit the example that is asked about.

    Inputs of a data set that is read a batch at a time are checked as the labels are read, and not kept.

    Raises:
        ValueError: no examples, other shapes than the example's, or another count of labels.
        TypeError: no training set, or inputs of another dtype.
        NonFinite: NaN or infinity in them.
    """
    found, positions = training_set(train, number.x.device)
    if not isinstance(found, Examples):
        return *_checked(found[0], recordable(found[1].detach()), number), positions
    inputs = Rows(found, 0).to(number.x.device, number.x.dtype)
    labels = [_checked(x.to(number.x.device), y, number)[1] for x, y in found.batches()]
    return inputs, torch.cat(labels), positions


def training_set(train: Any, device: torch.device | None = None) -> Read:
    """``(inputs [n, ...], labels [n, ...])`` out of such a pair, a Dataset or a DataLoader, in the data set's order.

    Data sets are brought to the device, as training brings them; tensors must be there.

    Raises:
        ValueError: there are none.
        TypeError: it is none of these.

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


def _checked(inputs: Tensor | Rows, labels: Tensor, number: ExampleNumber) -> tuple[Tensor | Rows, Tensor]:
    """Both, where they fit the model; rows that are read later were checked when their labels were.

    Raises:
        ValueError: none, or another shape.
        NonFinite: NaN or infinity in them.
    """
    shape = number.x.shape
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
        inputs = checked_like(inputs.detach(), number.model.module, "the training inputs")
    return inputs, labels.to(inputs.device)


def _kind(train: Any) -> str:
    if isinstance(train, (tuple, list)):
        return f"{type(train).__name__} of {', '.join(type(part).__name__ for part in train[:4])}"
    return type(train).__name__
