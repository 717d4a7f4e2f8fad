"""The data of the experiments: digits of MNIST or of scikit-learn, in two parts, as brightness from 0 to 1."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.datasets import images

SOURCES = {"mnist": "10,000 test images of MNIST", "digits": "1,797 digits of 8 x 8"}


class Split(NamedTuple):
    """Inputs ``[n, ...]``, float64, and labels ``[n]`` to train on, and others to test on."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def ten_digits(source: str = "mnist", count: int | None = None) -> Split:
    """All ten classes, brightness from 0 to 1; the first ``count`` to train on, two thirds of all when None.

    Raises:
        ValueError: unknown data.
        FileNotFoundError: MNIST is not at hand.

    >>> split = ten_digits("digits")
    >>> split.x.shape, split.test_x.shape, float(split.x.min()), float(split.x.max())
    (torch.Size([1198, 1, 8, 8]), torch.Size([599, 1, 8, 8]), 0.0, 1.0)
    """
    train, test = images(source)
    x, test_x = ((part.images.double() + 1) / 2 for part in (train, test))
    return Split(x[:count], train.labels[:count], test_x, test.labels)


def two_digits(source: str, zero: int, one: int, count: int | None = None) -> Split:
    """Two of `ten_digits`: the class 0 is ``zero``, the class 1 ``one``."""
    split = ten_digits(source)
    train, test = ((y == zero) | (y == one) for y in (split.y, split.test_y))
    x, y = split.x[train][:count], (split.y[train] == one).long()[:count]
    return Split(x, y, split.test_x[test], (split.test_y[test] == one).long())


def ones_and_sevens(source: str = "mnist", count: int | None = None) -> Split:
    """1 and 7 of `ten_digits`; a 7 is class 1.

    >>> ones_and_sevens("digits").y.bincount().tolist()
    [120, 117]
    """
    return two_digits(source, 1, 7, count)


def worst(losses: Tensor, labels: Tensor | None = None, label: int | None = None) -> int:
    """The example with the largest loss, among those of one label where one is given."""
    if label is not None and labels is not None:
        losses = losses.where(labels == label, -torch.inf)
    return int(losses.argmax())
