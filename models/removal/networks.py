"""Two graph networks whose trained loss can be taken to its very minimum."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SGConv


class Sgc(nn.Module):
    """``logits = A^K x W + b`` (Wu et al. 2019): the trained loss is convex."""

    def __init__(self, features: int, classes: int, hops: int = 2) -> None:
        super().__init__()
        self.conv = SGConv(features, classes, K=hops)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[nodes, classes]``."""
        return self.conv(x, edge_index)


class SmoothGcn(nn.Module):
    """The two layers of Kipf and Welling (2017) with tanh: twice differentiable, so that a minimum has a Hessian."""

    def __init__(self, features: int, classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(features, hidden), GCNConv(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[nodes, classes]``."""
        return self.conv2(self.conv1(x, edge_index).tanh(), edge_index)
