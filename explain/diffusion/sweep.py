"""A sweep: the same question under other weights of guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from explain.diffusion.settings import checked_guidance


class Sweep(NamedTuple):
    """The number of runs that differ in the weight of guidance alone; ``plot.sweep(**found._asdict())`` draws it.

    Args:
        weights: of guidance, in increasing order, ``[n]``.
        numbers: a mean over draws each, float64 ``[n]``.
        images: the first draw at each weight, ``[n, ...]``.
        error: standard errors over the draws, float64 ``[n]``; None of one draw.
    """

    weights: list[float]
    numbers: Tensor
    images: Tensor
    error: Tensor | None


def checked_weights(weights: Sequence[float]) -> list[float]:
    """Weights in increasing order.

    Raises:
        ValueError: none, or one that is no number.
    """
    found = sorted(checked_guidance(weight) for weight in weights)
    if not found:
        raise ValueError("a sweep needs at least one weight of guidance, got none")
    return found


def swept(weights: list[float], values: Tensor, images: Tensor) -> Sweep:
    """The sweep of values ``[n, draws]`` and images ``[n, ...]``.

    >>> import torch
    >>> swept([1.0], torch.tensor([[1.0, 3.0]]), torch.zeros(1, 1, 2, 2)).error
    tensor([1.], dtype=torch.float64)
    """
    values = values.double().cpu()
    draws = values.size(1)
    error = values.std(1) / math.sqrt(draws) if draws > 1 else None
    return Sweep(weights, values.mean(1), images, error)
