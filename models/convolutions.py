"""Networks for nodes that differ in their convolution alone: features, one or more layers of it, logits.

``GCN`` and ``GAT`` have files of their own. Each is built as ``kind(features, classes)`` and asked as
``net(x, edge_index)``, R-GCN with ``edge_type`` as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import APPNP as Propagated
from torch_geometric.nn import (
    ChebConv,
    GCNConv,
    GMMConv,
    GPSConv,
    JumpingKnowledge,
    RGCNConv,
    SAGEConv,
    SGConv,
)
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models.sgformer import SGModule
from torch_geometric.utils import degree, scatter

from models.layers import dropout, once
from models.training import Recipe

# Defferrard et al. 2016, trained as Kipf and Welling 2017 did it for their table
CHEBNET = Recipe(epochs=200, lr=0.01, weight_decay=5e-4)
# Monti et al. 2017 give no more than the widths for Cora: 16 units, three Gaussians of two pseudo-coordinates
MONET = Recipe(epochs=200, lr=0.01, weight_decay=5e-4)
# Xu et al. 2018, section 6.1: six layers of GCN, all of them concatenated, on 60 % of the nodes
JK_CORA = Recipe(epochs=300, lr=0.005, weight_decay=5e-4, patience=100)
# of Hamilton et al. 2017, Rossi et al. 2020 and Rampasek et al. 2022 none tried Cora: as Kipf and Welling 2017
CORA = Recipe(epochs=200, lr=0.01, weight_decay=5e-4, patience=100, every=5)
# Wu et al. 2019, the settings of their code for Cora
SGC_CORA = Recipe(epochs=100, lr=0.2, weight_decay=1.3e-5)
# Gasteiger et al. 2019, who penalise the first layer alone, ten times as much as here every layer
APPNP_CORA = Recipe(epochs=1000, lr=0.01, weight_decay=5e-4, patience=100)
# Wu et al. 2023, the settings of their code for Cora, one penalty for both halves, until validation nodes gain no more
SGFORMER_CORA = Recipe(epochs=500, lr=0.01, weight_decay=5e-4, patience=100, every=5)


class Stack(nn.Module):
    """``relu`` between convolutions, dropout before each.

    Args:
        layers: called as ``layer(x, edge_index)``.
        dropout: on the input of each.
    """

    def __init__(self, layers: Sequence[nn.Module], dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        for layer in self.layers[:-1]:
            x = layer(dropout(x, self.dropout, self.training), edge_index).relu()
        return self.layers[-1](dropout(x, self.dropout, self.training), edge_index)


class ChebNet(Stack):
    """``sum_k T_k(L - I) x W_k``, polynomials of Chebyshev up to ``order`` (Defferrard et al. 2016).

    ``L = I - D^-1/2 adjacency D^-1/2``, and 2 for its largest eigenvalue, as Kipf and Welling 2017 have it.

    >>> ChebNet(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(self, features: int, classes: int, hidden: int = 16, order: int = 2, dropout: float = 0.5) -> None:
        super().__init__([Clenshaw(a, b, order + 1) for a, b in ((features, hidden), (hidden, classes))], dropout)


class Clenshaw(ChebConv):
    """`ChebConv`, its sum by Clenshaw's recurrence: neighbours exchange the columns of the output, not those of ``x``.

    ``b_k = x W_k + 2 L b_(k+1) - b_(k+2)`` downwards, and the sum is ``x W_0 + L b_1 - b_2``; ``x`` may be sparse.
    """

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, in]`` and edges ``[2, edges]`` to ``[nodes, out]``."""
        first, *others = [lin(x) for lin in self.lins]
        edges, weight = self.__norm__(edge_index, len(x), None, self.normalization, dtype=first.dtype)
        above = above_that = torch.zeros_like(first)
        for part in reversed(others):
            heard = self.propagate(edges, x=above, norm=weight, size=None)
            above, above_that = part + 2 * heard - above_that, above
        found = first + self.propagate(edges, x=above, norm=weight, size=None) - above_that
        return found if self.bias is None else found + self.bias


class SAGE(Stack):
    """``W_0 x_i + W_1 mean_j x_j`` (Hamilton et al. 2017); ``aggregation`` "mean", "max" or "lstm"."""

    def __init__(
        self, features: int, classes: int, hidden: int = 16, aggregation: str = "mean", dropout: float = 0.5
    ) -> None:
        layers = (SAGEConv(features, hidden, aggregation), SAGEConv(hidden, classes, aggregation))
        super().__init__(layers, dropout)
        self.aggregation = aggregation

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """As of any `Stack`; of sparse features the mean is that of ``W_1 x_j``, which has fewer columns."""
        first, second = self.layers
        if x.layout is not torch.sparse_coo or self.aggregation != "mean":
            return super().forward(x.to_dense(), edge_index)
        assert isinstance(first, SAGEConv)
        x = dropout(x, self.dropout, self.training)
        told = F.linear(x, first.lin_l.weight)[edge_index[0]]
        heard = scatter(told, edge_index[1], 0, len(x), "mean") + first.lin_l.bias
        x = (heard + first.lin_r(x)).relu()
        return second(dropout(x, self.dropout, self.training), edge_index)


class MoNet(Stack):
    """``sum_k sum_j w_k(u_ij) W_k x_j`` with Gaussians ``w_k`` of ``u_ij = (d_i^-1/2, d_j^-1/2)`` (Monti et al. 2017).

    >>> MoNet(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(self, features: int, classes: int, hidden: int = 16, gaussians: int = 3, dropout: float = 0.5) -> None:
        layers = [GMMConv(a, b, dim=2, kernel_size=gaussians) for a, b in ((features, hidden), (hidden, classes))]
        super().__init__([_OfDegrees(layer) for layer in layers], dropout)


class _OfDegrees(nn.Module):
    """A convolution that is given ``(d_i^-1/2, d_j^-1/2)`` of each edge."""

    def __init__(self, conv: GMMConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        root = degree(target, len(x), x.dtype).clamp(min=1).rsqrt()  # of edges into a node: 0 of them counts as 1
        return self.conv(x, edge_index, torch.stack([root[source], root[target]], 1))


class SGC(Stack):
    """``A^hops x W`` (Wu et al. 2019), ``A = D^-1/2 (adjacency + I) D^-1/2``."""

    def __init__(self, features: int, classes: int, hops: int = 2) -> None:
        super().__init__([SGConv(features, classes, hops)], 0.0)
        self.hops = hops

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """As of any `Stack`; sparse features, of which nothing is learned before the weights, are walked once."""
        if x.layout is not torch.sparse_coo:
            return super().forward(x, edge_index)
        (conv,) = self.layers
        assert isinstance(conv, SGConv)
        return conv.lin(once(self._walked, x, edge_index))

    def _walked(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``A^hops x``."""
        return powers(x, edge_index, self.hops)[-1]


class JK(nn.Module):
    """GCN layers, of which the logits read all: "cat", "max" or "lstm" of them (Xu et al. 2018).

    >>> JK(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(
        self, features: int, classes: int, hidden: int = 32, layers: int = 6, jump: str = "cat", dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(GCNConv(hidden if i else features, hidden) for i in range(layers))
        self.jump = JumpingKnowledge(jump, hidden, layers)
        self.out = nn.Linear(hidden * layers if jump == "cat" else hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        kept = []
        for layer in self.layers:
            x = layer(dropout(x, self.dropout, self.training), edge_index).relu()
            kept.append(x)
        return self.out(self.jump(kept))


class RGCN(nn.Module):
    """``W_0 x_i + sum_r mean_(j in N_r(i)) W_r x_j`` (Schlichtkrull et al. 2018).

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        relations: kinds of edges, numbered from 0 in ``edge_type``.
        hidden: units.
        bases: ``W_r = sum_b a_rb V_b`` of so many ``V_b``; a weight for each relation when None.

    >>> edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
    >>> RGCN(3, 2, relations=2, bases=1)(torch.ones(4, 3), edges, torch.tensor([0, 1, 0])).shape
    torch.Size([4, 2])
    """

    def __init__(self, features: int, classes: int, relations: int, hidden: int = 16, bases: int | None = None) -> None:
        super().__init__()
        self.conv1 = RGCNConv(features, hidden, relations, num_bases=bases)
        self.conv2 = RGCNConv(hidden, classes, relations, num_bases=bases)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        """Features, edges and the relation ``[edges]`` of each to logits ``[nodes, classes]``."""
        return self.conv2(self.conv1(x, edge_index, edge_type).relu(), edge_index, edge_type)


class APPNP(nn.Module):
    """``z <- (1 - alpha) A z + alpha h``, ``hops`` times from ``h = MLP(x)`` (Gasteiger et al. 2019)."""

    def __init__(
        self, features: int, classes: int, hidden: int = 64, hops: int = 10, alpha: float = 0.1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, classes)
        self.walk = Propagated(hops, alpha)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        h = self.first(dropout(x, self.dropout, self.training)).relu()
        return self.walk(self.second(dropout(h, self.dropout, self.training)), edge_index)


class SIGN(nn.Module):
    """``W relu([x W_0 || A x W_1 || ... || A^hops x W_hops])``: no convolution is learned (Rossi et al. 2020)."""

    def __init__(self, features: int, classes: int, hidden: int = 32, hops: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        self.hops, self.dropout = hops, dropout
        self.each = nn.ModuleList(nn.Linear(features, hidden) for _ in range(hops + 1))
        self.out = nn.Linear((hops + 1) * hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        walked = once(self._walked, x, edge_index)
        parts = [
            layer(dropout(part, self.dropout, self.training)) for layer, part in zip(self.each, walked, strict=True)
        ]
        return self.out(dropout(torch.cat(parts, 1).relu(), self.dropout, self.training))

    def _walked(self, x: Tensor, edge_index: Tensor) -> list[Tensor]:
        return powers(x, edge_index, self.hops)


def powers(x: Tensor, edge_index: Tensor, hops: int) -> list[Tensor]:
    """``x, A x, ..., A^hops x``, dense, with ``A = D^-1/2 (adjacency + I) D^-1/2``.

    >>> powers(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 1], [1, 0]]), 1)[1]
    tensor([[2.0000],
            [2.0000]])
    """
    (source, target), weight = gcn_norm(edge_index, None, len(x), dtype=x.dtype)
    found = [x.to_dense()]
    for _ in range(hops):
        found.append(scatter(weight[:, None] * found[-1][source], target, 0, len(x)))
    return found


class LineGraphNet(nn.Module):
    """Convolutions among edges: an edge hears those that end where it starts; a node is the mean of edges into it.

    An edge starts as ``[x_source || x_target]``, a node without edges answers from its own features alone.
    """

    def __init__(self, features: int, classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(2 * features, hidden), GCNConv(hidden, hidden)
        self.own, self.out = nn.Linear(features, hidden), nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        source, target = edge_index
        line = self._line(edge_index)
        h = self.conv1(torch.cat([x[source], x[target]], 1), line).relu()
        h = self.conv2(h, line).relu()
        return self.out(scatter(h, target, 0, len(x), "mean") + self.own(x))

    @staticmethod
    def _line(edge_index: Tensor) -> Tensor:
        """The pairs of edges, numbered as in ``edge_index``, of which the second starts where the first ends."""
        first, second = (edge_index[1][:, None] == edge_index[0]).nonzero().t()
        return torch.stack([first, second])


class GPS(nn.Module):
    """A convolution and attention among all nodes, side by side (Rampasek et al. 2022)."""

    def __init__(
        self, features: int, classes: int, hidden: int = 16, layers: int = 2, heads: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.first = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(
            GPSConv(hidden, GCNConv(hidden, hidden), heads, dropout=dropout, norm="layer_norm") for _ in range(layers)
        )
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        x = self.first(dropout(x, self.dropout, self.training))
        for layer in self.layers:
            x = layer(x, edge_index)
        return self.out(x)


class SGFormer(nn.Module):
    """Linear attention among all nodes beside a GCN (Wu et al. 2023): ``W (share GCN(x) + (1 - share) attended(x))``.

    The attention is torch_geometric's; its GCN is another, that of large graphs, where each layer adds the first.

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units.
        attended: layers of attention.
        layers: of the GCN.
        share: of the GCN in the sum of both.
        dropout: after each layer of attention, and after each of the GCN but the last.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: int = 16,
        attended: int = 2,
        layers: int = 3,
        share: float = 0.5,
        dropout: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        super().__init__()
        self.share, self.dropout = share, dropout[1]
        self.pairs = SGModule(features, hidden, attended, dropout=dropout[0])
        self.convs = nn.ModuleList(GCNConv(hidden if i else features, hidden) for i in range(layers))
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        attended = self.pairs(x.to_dense(), edge_index.new_zeros(len(x)))
        for conv in self.convs[:-1]:
            x = F.dropout(conv(x, edge_index).relu(), self.dropout, self.training)
        return self.out(self.share * self.convs[-1](x, edge_index) + (1 - self.share) * attended)
