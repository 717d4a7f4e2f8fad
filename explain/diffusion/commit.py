"""When each part of a sample is settled: from which step on the foreseen image keeps to what it will be."""

from __future__ import annotations

import torch
from torch import Tensor


def commit_times(foreseen: Tensor, sample: Tensor, tolerance: float) -> Tensor:
    """The first step from which ``x0_hat`` stays within a tolerance of the final sample, int64 ``[*sites]``.

    ``min {k : max over channels of |x0_hat_j - sample| <= tolerance for every j >= k}``; the number of steps where
    that never holds, as where the last step itself still changes the picture.

    Args:
        foreseen: ``x0_hat`` at each step, ``[steps, *shape]``.
        sample: what the run ends in, ``[*shape]``.
        tolerance: on the scale of the samples.

    Raises:
        ValueError: a tolerance that is no positive number.

    >>> foreseen = torch.tensor([[0.0, 1.0], [0.5, 0.2], [1.0, 1.0]])
    >>> commit_times(foreseen, torch.tensor([1.0, 1.0]), 0.1)
    tensor([2, 2])
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance > 0:
        raise ValueError(f"tolerance must be a number above 0, on the scale of the samples, got {tolerance!r:.60}")
    apart = (foreseen - sample).abs()
    if sample.dim() > 1:  # a site is settled with all of its channels
        apart = apart.amax(1)
    beyond = apart > tolerance
    steps = torch.arange(1, len(foreseen) + 1, device=foreseen.device).view(-1, *[1] * (beyond.dim() - 1))
    return torch.where(beyond, steps, 0).amax(0)
