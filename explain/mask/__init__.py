"""Learned masks: `Mask`, and `FittedMask` that its `fit` returns."""

from explain.mask.explainer import FittedMask, Mask

__all__ = ["FittedMask", "Mask"]
