"""DCNN, diffusion-convolutional network (Atwood and Towsley 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import once, row_normalised
from models.training import Recipe

# on words that are there or not (rows that sum to one are too small for tanh); theirs: AdaGrad on the hinge
CORA = Recipe(epochs=60, lr=0.01, weight_decay=5e-4, patience=16, every=2)


class DCNN(nn.Module):
    """``logits = W_d tanh(W_c * P*x)``: of each hop and feature its mean over random walks, with a weight of its own.

    ``P*x [nodes, hops + 1, features]`` are ``x, P x, ..., P^hops x`` with ``P = D^-1 adjacency`` by row,
    ``W_c [hops + 1, features]`` multiplies element by element, ``W_d`` is linear (Atwood and Towsley 2016, section 2).

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hops: the longest walk.

    >>> DCNN(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(self, features: int, classes: int, hops: int = 2) -> None:
        super().__init__()
        self.hops = hops
        self.weight = nn.Parameter(torch.empty(hops + 1, features))
        self.dense = nn.Linear((hops + 1) * features, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each hop and feature starts as it is."""
        nn.init.ones_(self.weight)
        self.dense.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        walked = once(self._walked, x, edge_index)
        return self.dense((self.weight * walked).tanh().flatten(1))

    def _walked(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``P*x``."""
        x = x.to_dense()
        step = row_normalised(edge_index, len(x), x.dtype)
        found = [x]
        for _ in range(self.hops):
            found.append(step @ found[-1])
        return torch.stack(found, 1)
