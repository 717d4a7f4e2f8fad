"""A glass box: an additive network on a graph, whose attributions are its own terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter


class Shapes(nn.Module):
    """A function of each feature alone, ``g_f(x_f) - g_f(0)``: ``[..., features] -> [..., features, out]``.

    Args:
        features: of them, each with two layers of its own.
        out: what each says.
        hidden: units of each.
    """

    def __init__(self, features: int, out: int, hidden: int) -> None:
        super().__init__()
        self.slope, self.shift = (nn.Parameter(torch.empty(features, hidden)) for _ in range(2))
        self.height = nn.Parameter(torch.empty(features, hidden, out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal slopes and shifts, small heights."""
        nn.init.normal_(self.slope)
        nn.init.normal_(self.shift)
        nn.init.normal_(self.height, std=self.slope.size(1) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Zero where ``x`` is."""
        bent = (x[..., None] * self.slope + self.shift).tanh() - self.shift.tanh()
        return torch.einsum("...fh,fhc->...fc", bent, self.height)


class Additive(nn.Module):
    """``logits_i = b + sum_f g_f(x_if) + sum over edges j -> i of sum_f h_f(x_jf)``.

    A generalised additive model (Hastie and Tibshirani 1986) of a node and its neighbours. Nothing acts together, so
    what a feature, an edge or a neighbour brings is the same in every coalition: its Shapley value is a sum of terms,
    `contributions`, when absent features are zeros and absent edges are taken out.

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units of each ``g_f`` and ``h_f``.

    >>> net, x, edges = Additive(3, 2), torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 1]])
    >>> own, told = net.contributions(x, edges)
    >>> own.shape, told.shape
    (torch.Size([4, 3, 2]), torch.Size([3, 3, 2]))
    >>> bool(torch.allclose(net(x, edges)[1], net.bias + own[1].sum(0) + told[[0, 2]].sum((0, 1)), atol=1e-5))
    True
    """

    def __init__(self, features: int, classes: int, hidden: int = 8) -> None:
        super().__init__()
        self.own, self.told = Shapes(features, classes, hidden), Shapes(features, classes, hidden)
        self.bias = nn.Parameter(torch.zeros(classes))

    def reset_parameters(self) -> None:
        """No class is preferred; the shapes reset themselves."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        x = x.to_dense()
        source, target = edge_index
        heard = scatter(self.told(x).sum(1)[source], target, 0, len(x))
        return self.bias + self.own(x).sum(1) + heard

    def contributions(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """What each node's features say of it ``[nodes, features, classes]``, and along each edge ``[edges, ...]``."""
        return self.own(x), self.told(x)[edge_index[0]]
