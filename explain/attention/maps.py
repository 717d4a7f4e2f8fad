"""AttentionMap: one attention distribution a query row, dense or along edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """What one call of one attention layer weighed: ``weights >= 0``, each query row summing to 1.

    Dense: ``weights [batch, heads, queries, keys]``. Along edges: ``weights [E', heads]`` with ``edge_index [2, E']``,
    the columns that were really propagated (self-loops added by the layer included), where the rows are the receiving
    ends. Every reading below averages over heads, and over the batch of a dense map.

    Args:
        weights: the attention weights.
        module: name of the layer inside the network.
        edge_index: node ids as propagated, or None for a dense map.
        size: ``(keys, queries)``: how many nodes send and receive; a dense map knows it from its weights.
        flow: "source_to_target" when messages go from ``edge_index[0]`` to ``edge_index[1]``, as in torch_geometric.
        step: the timestep that the network was called with, one for each row where they differ, or None.
        branch: the guidance branch that the network was called for, "cond" or "uncond", or None.

    >>> attention = AttentionMap(torch.tensor([[0.25], [0.75]]), "conv", torch.tensor([[0, 1], [0, 0]]), (2, 2))
    >>> attention.dense().squeeze()
    tensor([[0.2500, 0.7500],
            [0.0000, 0.0000]])
    """

    weights: Tensor
    module: str
    edge_index: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    flow: str = "source_to_target"
    step: float | tuple[float, ...] | None = None
    branch: str | None = None

    def __post_init__(self) -> None:
        if self.edge_index is None:
            object.__setattr__(self, "size", (self.weights.size(3), self.weights.size(2)))

    @property
    def keys(self) -> int:
        """How many positions can be looked at."""
        return self.size[0]

    @property
    def queries(self) -> int:
        """How many positions look."""
        return self.size[1]

    def ends(self) -> tuple[Tensor, Tensor]:
        """Sender and receiver of each edge, ``([E'], [E'])``.

        Raises:
            ValueError: the map is dense.
        """
        if self.edge_index is None:
            raise ValueError(f"the map of {self.module} is dense: it has no edges")
        source, target = self.edge_index if self.flow == "source_to_target" else self.edge_index.flip(0)
        return source, target

    def mean(self) -> Tensor:
        """Weights averaged over heads (and batch): float64 ``[queries, keys]``, or ``[E']`` along edges."""
        return self.weights.double().mean((0, 1) if self.edge_index is None else 1)

    def dense(self) -> Tensor:
        """``[batch, heads, queries, keys]``; parallel edges are added up."""
        if self.edge_index is None:
            return self.weights
        source, target = self.ends()
        full = self.weights.new_zeros(self.queries, self.keys, self.weights.size(1))
        full.index_put_((target, source), self.weights, accumulate=True)
        return full.permute(2, 0, 1).unsqueeze(0)

    def flow_from(self, reach: Tensor) -> Tensor:
        """How much passes through each weight when ``reach [queries]`` looks back: ``reach[q] * weight(q <- k)``.

        Float64 ``[queries, keys]``, or ``[E']`` along edges.
        """
        reach = reach.to(self.weights.device)
        return reach[:, None] * self.mean() if self.edge_index is None else reach[self.ends()[1]] * self.mean()

    def pull(self, reach: Tensor) -> Tensor:
        """``reach @ weights``: where ``reach [queries]`` looks, float64 ``[keys]``; never builds a matrix of edges."""
        reach = reach.to(self.weights.device)
        if self.edge_index is None:
            return reach @ self.mean()
        return self.mean().new_zeros(self.keys).index_add_(0, self.ends()[0], self.flow_from(reach))

    def row_sums(self) -> Tensor:
        """What each row of each head sums to, flat; rows that may look at nothing are left out."""
        sums, count = self._rows()
        return sums[count > 0]

    def deviation(self) -> float:
        """Largest ``|n w - 1|``, ``n`` the number of keys that the row looks at: 0 for uniform attention."""
        if self.edge_index is None:
            count = (self.weights > 0).sum(-1, keepdim=True)
            ratio = (self.weights.double() * count - 1)[self.weights > 0]
        else:
            _, count = self._rows()
            ratio = self.weights.double() * count[self.ends()[1]] - 1
        return float(ratio.abs().max()) if ratio.numel() else 0.0

    def widest(self) -> int:
        """The most keys that any row looks at; rows of one key have nothing to choose."""
        count = self._rows()[1]
        return int(count.max()) if count.numel() else 0

    def _rows(self) -> tuple[Tensor, Tensor]:
        weights = self.weights.double()
        if self.edge_index is None:
            return weights.sum(-1), (weights > 0).sum(-1)
        target = self.ends()[1]
        empty = weights.new_zeros(self.queries, weights.size(1))
        return empty.index_add(0, target, weights), empty.index_add(0, target, torch.ones_like(weights))
