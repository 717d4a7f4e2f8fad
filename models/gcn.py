"""GCN (Kipf and Welling 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from models.layers import dropout
from models.training import Recipe

# Kipf and Welling 2017, section 5.2; they penalise the first layer alone, here the penalty is on every parameter, so
# that the objective is the one that influence functions differentiate
PAPER = Recipe(epochs=200, lr=0.01, weight_decay=5e-4)
# the karate club has too few labels to select a model by: trained to an optimum instead, without dropout, and with a
# smooth unit, as the optimum of a ReLU network lies on kinks, where no gradient vanishes
KARATE = Recipe(epochs=200, lr=0.01, weight_decay=5e-4, polish=500)


class GCN(nn.Module):
    """``logits = A relu(A x W_0 + b_0) W_1 + b_1`` with ``A = D^-1/2 (adjacency + I) D^-1/2`` (Kipf and Welling 2017).

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units of the first layer.
        dropout: on the input of both layers.
        smooth: ELU in the place of ReLU.

    >>> GCN(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(
        self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5, smooth: bool = False
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation = F.elu if smooth else torch.relu
        self.conv1 = GCNConv(features, hidden)
        self.conv2 = GCNConv(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        x = dropout(x, self.dropout, self.training)
        x = self.activation(self.conv1(x, edge_index))
        x = dropout(x, self.dropout, self.training)
        return self.conv2(x, edge_index)
