"""Learned masks: `Mask`, and `FittedMask` that its `fit` returns.

No family may enter: a mask is learned on the copy of the module that a target hands out.
"""

from explain.mask.explainer import FittedMask, Mask

__all__ = ["FittedMask", "Mask"]
