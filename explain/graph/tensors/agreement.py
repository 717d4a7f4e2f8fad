"""When two answers of a model are the same."""

from __future__ import annotations

import torch
from torch import Tensor


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest number expected."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def tolerance(outputs: Tensor) -> float:
    """What rounding alone may explain."""
    return 1e-9 if outputs.dtype == torch.float64 else 1e-5
