"""GAT (Veličković et al. 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from models.layers import dropout
from models.training import Recipe

# Veličković et al. 2018, section 3.3, Cora
PAPER = Recipe(epochs=1000, lr=0.005, weight_decay=5e-4, patience=100)
# as for the GCN: to an optimum, without dropout
KARATE = Recipe(epochs=200, lr=0.005, weight_decay=5e-4, polish=500)


class GAT(nn.Module):
    """Two graph attention layers, ``h_i' = sum_j alpha_ij W h_j`` (Veličković et al. 2018).

    ``alpha_ij = softmax_j LeakyReLU_0.2(a^T [W h_i || W h_j])``; the first layer concatenates ``heads`` of them and an
    ELU follows, the second has one.

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units of each head of the first layer.
        heads: of the first layer.
        dropout: on the input of both layers and on the attention weights.

    >>> import torch
    >>> GAT(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(self, features: int, classes: int, hidden: int = 8, heads: int = 8, dropout: float = 0.6) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv1 = GATConv(features, hidden, heads, dropout=dropout)
        self.conv2 = GATConv(hidden * heads, classes, heads=1, concat=False, dropout=dropout)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        x = dropout(x, self.dropout, self.training)
        x = F.elu(self.conv1(x, edge_index))
        x = dropout(x, self.dropout, self.training)
        return self.conv2(x, edge_index)
