"""Graph networks whose trained loss can be taken to its very minimum: they are twice differentiable."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.nn import ChebConv, GATConv, GCNConv, SGConv
from torch_geometric.utils import softmax


class Sgc(nn.Module):
    """``logits = A^K x W + b`` (Wu et al. 2019): the trained loss is convex."""

    def __init__(self, features: int, classes: int, hops: int = 2) -> None:
        super().__init__()
        self.conv = SGConv(features, classes, K=hops)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[nodes, classes]``."""
        return self.conv(x, edge_index)


class SmoothGcn(nn.Module):
    """The two layers of Kipf and Welling (2017) with tanh."""

    def __init__(self, features: int, classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(features, hidden), GCNConv(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[nodes, classes]``."""
        return self.conv2(self.conv1(x, edge_index).tanh(), edge_index)


class SmoothGatConv(GATConv):
    """Graph attention whose leaky ReLU is rounded off, ``s a + (1 - s) softplus(a)``: no minimum lies on a kink."""

    def edge_update(
        self, alpha_j: Tensor, alpha_i: Tensor, edge_attr: None, index: Tensor, ptr: None, dim_size: int | None
    ) -> Tensor:
        """Attention weights ``[edges, heads]``."""
        alpha = alpha_j + alpha_i
        return softmax(self.negative_slope * alpha + (1 - self.negative_slope) * softplus(alpha), index, ptr, dim_size)


LAYERS = {
    "GCN": GCNConv,
    "GAT": SmoothGatConv,
    "ChebNet": lambda width, out: ChebConv(width, out, K=2),
}


class Deep(nn.Module):
    """Two to four layers of graph convolutions with tanh between.

    Args:
        kind: "GCN", "GAT" (one head, rounded off) or "ChebNet" (a node and its neighbours).
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units between layers.
        layers: how many.
    """

    def __init__(self, kind: str, features: int, classes: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [features, *[hidden] * (layers - 1), classes]
        self.convs = nn.ModuleList(LAYERS[kind](*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[nodes, classes]``."""
        for conv in self.convs[:-1]:
            x = conv(x, edge_index).tanh()
        return self.convs[-1](x, edge_index)
