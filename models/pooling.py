"""Networks for whole graphs that differ in how nodes become one row.

Each is built as ``kind(features, classes)`` and asked as ``net(x, edge_index, batch)``.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch_geometric.nn import GIN as Isomorphism
from torch_geometric.nn import (
    DeepSetsAggregation,
    DenseSAGEConv,
    GCNConv,
    SAGPooling,
    SortAggregation,
    dense_diff_pool,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)
from torch_geometric.utils import to_dense_adj, to_dense_batch

from models.convolutions import LineGraphNet


class GIN(nn.Module):
    """``MLP((1 + eps) x_i + sum_j x_j)`` in layers, nodes summed (Xu et al. 2019).

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units.
        layers: of the sums.
        norm: "batch_norm" after each, as the paper trains it, or None.
        jump: "cat" reads all layers, as in the paper, None the last.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: int = 32,
        layers: int = 3,
        norm: str | None = None,
        jump: str | None = None,
    ) -> None:
        super().__init__()
        self.net = Isomorphism(features, hidden, layers, hidden, norm=norm, jk=jump)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Features, edges and the graph ``[nodes]`` of each node to logits ``[graphs, classes]``."""
        h = self.net(x, edge_index)
        return self.out(h.new_zeros(int(batch.max()) + 1, h.size(1)).index_add(0, batch, h))


class DeepSets(nn.Module):
    """``rho(sum_i phi(x_i))`` (Zaheer et al. 2017): edges are not looked at."""

    def __init__(self, features: int, classes: int, hidden: int = 32) -> None:
        super().__init__()
        phi = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        rho = nn.Sequential(nn.ReLU(), nn.Linear(hidden, classes))
        self.pool = DeepSetsAggregation(phi, rho)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Features, edges and the graph ``[nodes]`` of each node to logits ``[graphs, classes]``."""
        return self.pool(x, batch)


class LineGraph(nn.Module):
    """Convolutions among the edges of each graph (`models.convolutions.LineGraphNet`), nodes summed."""

    def __init__(self, features: int, classes: int, hidden: int = 32) -> None:
        super().__init__()
        self.net = LineGraphNet(features, hidden, hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Features, edges and the graph ``[nodes]`` of each node to logits ``[graphs, classes]``."""
        return self.out(global_add_pool(self.net(x, edge_index).relu(), batch))


class SortPool(nn.Module):
    """Nodes sorted by the last column of all layers, the first ``k`` read by a convolution (Zhang et al. 2018, DGCNN).

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units of each layer; one more layer has a single column, by which nodes are sorted.
        layers: with so many units.
        k: nodes that are read.
        dropout: before the logits.
    """

    def __init__(
        self, features: int, classes: int, hidden: int = 32, layers: int = 3, k: int = 10, dropout: float = 0.5
    ) -> None:
        super().__init__()
        sizes = (features, *[hidden] * layers, 1)
        self.convs = nn.ModuleList(GCNConv(a, b) for a, b in itertools.pairwise(sizes))
        self.sort = SortAggregation(k)
        self.read = nn.Conv1d(1, hidden, sum(sizes[1:]), sum(sizes[1:]))
        self.out = nn.Sequential(
            nn.Linear(k * hidden, 2 * hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * hidden, classes)
        )

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Features, edges and the graph ``[nodes]`` of each node to logits ``[graphs, classes]``."""
        layers = []
        for conv in self.convs:
            x = conv(x, edge_index).tanh()
            layers.append(x)
        first = self.sort(torch.cat(layers, 1), batch)
        return self.out(self.read(first[:, None]).relu().flatten(1))


class SAGPool(nn.Module):
    """After each convolution the nodes of highest learned score stay, a share of them (Lee et al. 2019).

    ``[mean || max]`` of what is left is read after each, and added up (the paper's hierarchical form).
    """

    def __init__(self, features: int, classes: int, hidden: int = 32, layers: int = 3, ratio: float = 0.5) -> None:
        super().__init__()
        self.convs = nn.ModuleList(GCNConv(hidden if i else features, hidden) for i in range(layers))
        self.pools = nn.ModuleList(SAGPooling(hidden, ratio, GNN=GCNConv) for _ in range(layers))
        self.out = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Features, edges and the graph ``[nodes]`` of each node to logits ``[graphs, classes]``."""
        graphs, read = int(batch.max()) + 1, torch.zeros(())
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x, edge_index, _, batch, *_ = pool(conv(x, edge_index).relu(), edge_index, None, batch)
            read = read + torch.cat([global_mean_pool(x, batch, graphs), global_max_pool(x, batch, graphs)], 1)
        return self.out(read)


class DiffPool(nn.Module):
    """Nodes are assigned softly to clusters, and clusters to one, by networks of their own (Ying et al. 2018).

    ``x' = S^T z``, ``A' = S^T A S`` with ``S = softmax(GNN(A, x))``. `regulariser` is what the paper adds to the loss:
    linked nodes belong together, and each to few clusters.

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units.
        clusters: after the first assignment.
    """

    def __init__(self, features: int, classes: int, hidden: int = 32, clusters: int = 6) -> None:
        super().__init__()
        self.embed = nn.ModuleList([DenseSAGEConv(features, hidden), DenseSAGEConv(hidden, hidden)])
        self.assign = DenseSAGEConv(features, clusters)
        self.out = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        self._added = torch.zeros(())

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Features, edges and the graph ``[nodes]`` of each node to logits ``[graphs, classes]``."""
        dense, real = to_dense_batch(x, batch)
        adjacency = to_dense_adj(edge_index, batch, max_num_nodes=dense.size(1), batch_size=len(dense)).to(x.dtype)
        z = self.embed[0](dense, adjacency, real).relu()
        first = z.masked_fill(~real[..., None], 0).sum(1) / real.sum(1, keepdim=True)
        pooled, coarse, linked, spread = dense_diff_pool(z, adjacency, self.assign(dense, adjacency, real), real)
        if self.training:
            self._added = linked + spread
        second = self.embed[1](pooled, coarse).relu().mean(1)
        return self.out(torch.cat([first, second], 1))

    def regulariser(self) -> Tensor:
        """Of the last call in training mode."""
        return self._added
