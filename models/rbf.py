"""The RBF machine as a linear one: features whose inner products are the kernel."""

from __future__ import annotations

import torch
from torch import Tensor


def rbf_kernel(x: Tensor, y: Tensor, gamma: float) -> Tensor:
    """``exp(-gamma |x_i - y_j|^2)``, ``[n, d], [m, d] -> [n, m]``.

    >>> rbf_kernel(torch.zeros(1, 2), torch.tensor([[1.0, 1.0]]), 0.5)
    tensor([[0.3679]])
    """
    return (-gamma * torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()).exp()


class CholeskyFeatures:
    """``phi`` with ``phi(x) . phi(y) = exp(-gamma |x - y|^2)`` for all pairs of which one is a training example.

    ``K = L L^T`` of the training examples; their features are the rows of ``L``, those of others ``L^-1 k(x)``. A
    linear machine on them is the kernel machine (Koh and Liang 2017, section 5.1).

    Args:
        x: training examples ``[n, d]``, float64, no two alike.
        gamma: of the kernel.

    >>> x = torch.tensor([[0.0], [1.0], [3.0]]).double()
    >>> phi = CholeskyFeatures(x, 0.5)
    >>> bool(torch.allclose(phi(x) @ phi(x[:1]).T, rbf_kernel(x, x[:1], 0.5)))
    True
    """

    def __init__(self, x: Tensor, gamma: float) -> None:
        self.x, self.gamma = x, gamma
        self.factor = torch.linalg.cholesky(rbf_kernel(x, x, gamma))

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``[m, n]`` of examples ``[m, d]``."""
        return torch.linalg.solve_triangular(self.factor, rbf_kernel(self.x, x, self.gamma), upper=False).T
