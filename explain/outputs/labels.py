"""What labels are: classes, signs, yes or no for several outputs, shares, or plain values."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Form: TypeAlias = Literal["none", "classes", "signs", "one_hot", "multi_hot", "soft", "whole", "reals"]


def label_form(labels: Tensor | None, count: int) -> Form:
    """What labels ``[n]``, ``[n, 1]`` or ``[n, outputs]`` are; NaN are left out.

    >>> label_form(torch.tensor([0.0, 1.0, 1.0]), 1), label_form(torch.tensor([0.5, -2.0]), 1)
    ('classes', 'reals')
    """
    if labels is None or not labels.numel():
        return "none"
    wide = labels.reshape(len(labels), -1) if labels.dim() > 1 else labels[:, None]
    known = wide[~wide.isnan()] if wide.is_floating_point() else wide.reshape(-1)
    if not len(known):
        return "none"
    low, high = float(known.min()), float(known.max())
    zero_one = labels.dtype == torch.bool or bool(((known == 0) | (known == 1)).all())
    whole = zero_one or bool((known == known.round()).all())
    if wide.size(1) > 1:
        if zero_one:
            return "one_hot" if wide.size(1) == count and bool((wide.double().sum(1) == 1).all()) else "multi_hot"
        even = wide.double().nan_to_num().sum(1)
        return "soft" if low >= 0 and torch.allclose(even, torch.ones_like(even), atol=1e-4) else "reals"
    if zero_one:
        return "classes"
    if count == 1:
        if whole and low == -1 and high == 1 and bool((known != 0).all()):
            return "signs"
        return "reals" if labels.is_floating_point() else "whole" if high > 1 else "classes"
    return "classes" if not labels.is_floating_point() or (whole and 0 <= low <= high < count) else "reals"


def column_count(labels: Tensor | None) -> int | None:
    """How many outputs labels speak of: their columns, or their classes; None where they do not say."""
    if labels is None or not labels.numel():
        return None
    wide = labels.reshape(len(labels), -1)
    if wide.size(1) > 1:
        return wide.size(1)
    if labels.is_floating_point():
        return 1
    return int(labels.max()) + 1
