"""A few directions with eigenvalues of their own, all others with one: what preconditioners are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """``M = U diag(values) U^T + shift (I - U U^T)``; calling it gives ``M^-1 v`` of ``[p]`` or ``[p, k]``.

    ``U [p, r]`` is orthonormal, float64. ``below``: whether ``M`` is never above the matrix it stands for.

    >>> import torch
    >>> M = LowRank(torch.eye(3, 1).double(), torch.tensor([4.0]).double(), 2.0)
    >>> M(torch.tensor([8.0, 8.0, 8.0]).double())
    tensor([2., 4., 4.], dtype=torch.float64)
    """

    U: Tensor
    values: Tensor
    shift: float
    below: bool = False

    def __call__(self, v: Tensor) -> Tensor:
        """``M^-1 v``."""
        columns = v.reshape(len(self.U), -1)
        inside = (1 / self.values - 1 / self.shift)[:, None] * (self.U.T @ columns)
        return (columns / self.shift + self.U @ inside).reshape(v.shape)
