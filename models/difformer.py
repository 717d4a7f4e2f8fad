"""DIFFormer (Wu et al. 2023): diffusion among all pairs of nodes, with two kernels, -s and -a."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from models.layers import dropout, once
from models.training import Recipe

Kernel: TypeAlias = Literal["s", "a"]
Norm: TypeAlias = Literal["tensor", "rows"]

# the authors' settings for Cora, features normalised by row, 20 labels a class at random; theirs have no patience, as
# kernel "s" has none here; of "a", which costs ten times as much, the epochs end where validation nodes gain no more
CORA_S = Recipe(epochs=500, lr=1e-3, weight_decay=0.01)
CORA_A = Recipe(epochs=500, lr=1e-3, weight_decay=0.1, patience=100, every=5)


class AllPairs(nn.Module):
    """One diffusion among all pairs: ``out_i = sum_j S_ij z_j``, rows of ``S`` sum to 1.

    ``q = W_q z``, ``k = W_k z``. Kernel "s": ``S_ij = (1 + q_i k_j) / sum_l (1 + q_i k_l)`` of normalised ``q`` and
    ``k``, in ``O(N)`` as ``(sum_j z_j + q_i (K^T Z)) / (N + q_i sum_j k_j)``. Kernel "a":
    ``S_ij = sigmoid(q_i k_j) / sum_l sigmoid(q_i k_l)``, ``q`` and ``k`` as they are, in ``O(N^2)``. Several heads are
    averaged.

    Args:
        size: columns of ``z``.
        heads: pairs of ``W_q`` and ``W_k``.
        kernel: "s" or "a".
        norm: what "s" divides ``q`` and ``k`` by: the "rows'" own norms, as the paper has it (then ``S`` is between 0
            and ``2/N``), or the norm of the whole "tensor", as the authors' code has it (then ``S`` is nearly ``1/N``).

    Raises:
        ValueError: another kernel or norm.
    """

    def __init__(self, size: int, heads: int = 1, kernel: Kernel = "s", norm: Norm = "tensor") -> None:
        super().__init__()
        if kernel not in get_args(Kernel) or norm not in get_args(Norm):
            raise ValueError(f'kernel must be "s" or "a" and norm "tensor" or "rows", got {kernel!r} and {norm!r}')
        self.heads, self.kernel, self.norm = heads, kernel, norm
        self.query = nn.Linear(size, heads * size)
        self.key = nn.Linear(size, heads * size)

    def weights(self, z: Tensor) -> Tensor:
        """``S [heads, N, N]`` that `forward` applies, written out."""
        scores = self._scores(z)
        return scores / scores.sum(-1, keepdim=True)

    def forward(self, z: Tensor) -> Tensor:
        """``[N, size] -> [N, size]``."""
        if self.kernel == "a":
            scores = self._scores(z)
            return (scores @ z / scores.sum(-1, keepdim=True)).mean(0)
        q, k = self._queries_and_keys(z)
        scale = 1 if self.norm == "rows" else 1 / (q.norm() * k.norm())  # of what is small: q and k stay as they are
        told = z.sum(0) + q @ (scale * (k.mT @ z))
        return (told / (len(z) + q @ (scale * k.sum(1)[..., None]))).mean(0)

    def _scores(self, z: Tensor) -> Tensor:
        """``S [heads, N, N]`` before rows are divided by their sums."""
        q, k = self._queries_and_keys(z)
        scores = q @ k.mT
        if self.kernel == "a":
            return scores.sigmoid()
        return 1 + (scores if self.norm == "rows" else scores / (q.norm() * k.norm()))

    def _queries_and_keys(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``[heads, N, size]`` each, rows of length 1 where each has its own norm."""
        q, k = (part(z).unflatten(1, (self.heads, -1)).transpose(0, 1) for part in (self.query, self.key))
        own = self.kernel == "s" and self.norm == "rows"
        return (F.normalize(q, dim=-1), F.normalize(k, dim=-1)) if own else (q, k)


class DIFFormer(nn.Module):
    """``z' = LayerNorm((1 - tau) z + tau (S z + A z))``, no activation between layers (Wu et al. 2023).

    ``z_0 = relu(LayerNorm(W x))``, ``S`` from `AllPairs`, ``A = D^-1/2 (adjacency + I) D^-1/2``; linear to classes.

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: columns of ``z``.
        layers: diffusion steps.
        kernel: "s" or "a", see `AllPairs`.
        heads: of each step.
        tau: the size of a step (the authors' ``alpha``).
        dropout: on ``z`` before each step and after the last.
        graph: whether ``A z`` is added.
        norm: see `AllPairs`.

    >>> import torch
    >>> DIFFormer(3, 2, layers=2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: int = 64,
        layers: int = 8,
        kernel: Kernel = "s",
        heads: int = 1,
        tau: float = 0.5,
        dropout: float = 0.2,
        graph: bool = True,
        norm: Norm = "tensor",
    ) -> None:
        super().__init__()
        self.tau, self.dropout, self.graph = tau, dropout, graph
        self.first = nn.Linear(features, hidden)
        self.pairs = nn.ModuleList(AllPairs(hidden, heads, kernel, norm) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers + 1))
        self.last = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        z = self.norms[0](self.first(x)).relu()
        z = dropout(z, self.dropout, self.training)
        if self.graph:
            (source, target), weight = once(self._adjacency, edge_index, x)
        for pairs, norm in zip(self.pairs, self.norms[1:], strict=True):
            heard = pairs(z)
            if self.graph:
                heard = heard.index_add(0, target, weight[:, None] * z.index_select(0, source))
            z = norm((1 - self.tau) * z + self.tau * heard)
            z = dropout(z, self.dropout, self.training)
        return self.last(z)

    @staticmethod
    def _adjacency(edge_index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Edges and weights of ``A``."""
        return gcn_norm(edge_index, None, len(x), dtype=x.dtype)
