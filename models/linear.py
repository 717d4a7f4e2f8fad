"""Linear classifiers: all that stands between the inputs and the logits is one layer."""

from __future__ import annotations

from torch import Tensor, nn


class Linear(nn.Module):
    """``logits = W x (+ b)`` of the flattened input; starts at zero, in float64.

    Args:
        features: numbers in an input.
        outputs: 1 for two classes, of which it is the logit of the second; else one a class.
        bias: whether there is ``b``.

    >>> import torch
    >>> Linear(4)(torch.ones(3, 1, 2, 2).double()).shape
    torch.Size([3, 1])
    """

    def __init__(self, features: int, outputs: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(features, outputs, bias).double()
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs ``[n, ...]`` to logits ``[n, outputs]``."""
        return self.layer(x.flatten(1))
