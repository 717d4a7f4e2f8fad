"""Janossy pooling (Murphy et al. 2019): the mean of a sequence model over orders of a set."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter


class JanossyPooling(nn.Module):
    """``mean over orders pi of f(x_pi(1), ..., x_pi(k))``, the last state of a GRU that reads ``k`` of a set.

    All ordered choices of ``k`` different members are read, not a sample of them: a sample would hang on how the
    members are numbered. Sets of fewer than ``k`` members are read in all orders and then zeros. ``k = 1`` is the mean
    of DeepSets; the larger ``k``, the more can be said of how members stand to one another, in time ``n^k``.

    Args:
        size: columns of members.
        out: columns of what is said of a set.
        k: how many members are read together.

    Raises:
        ValueError: k is below 1.

    >>> pooling, members = JanossyPooling(2, 3), torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> one, other = pooling(members, torch.tensor([0, 0, 1]), 2), pooling(members.flip(0), torch.tensor([1, 0, 0]), 2)
    >>> bool(torch.allclose(one, other))
    True
    """

    def __init__(self, size: int, out: int, k: int = 2) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k
        self.read = nn.GRU(size, out, batch_first=True)

    def forward(self, x: Tensor, index: Tensor, groups: int) -> Tensor:
        """Members ``[n, size]`` and the set ``[n]`` of each to ``[groups, out]``."""
        owner, chosen = orders(index, groups, self.k)
        padded = torch.cat([x, x.new_zeros(1, x.size(1))])
        return scatter(self.read(padded[chosen])[1][0], owner, 0, groups, "mean")


class Janossy(nn.Module):
    """``relu(W_0 x_i + JanossyPooling of the neighbours)``, twice; the second gives the logits.

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units.
        k: neighbours that are read together.

    >>> Janossy(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(self, features: int, classes: int, hidden: int = 16, k: int = 2) -> None:
        super().__init__()
        sizes = ((features, hidden), (hidden, classes))
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.pooled = nn.ModuleList(JanossyPooling(a, b, k) for a, b in sizes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        x = x.to_dense()
        source, target = edge_index
        for own, pooled in zip(self.own, self.pooled, strict=True):
            x = own(x) + pooled(x[source], target, len(x))
            if own is not self.own[-1]:
                x = x.relu()
        return x


def orders(index: Tensor, groups: int, k: int) -> tuple[Tensor, Tensor]:
    """All ordered choices of ``k`` members of each set: the set ``[choices]`` and the members ``[choices, k]``.

    Where a set has no more, the rest is ``len(index)``, which stands for nobody.

    >>> orders(torch.tensor([0, 0]), 2, 2)[1].tolist()
    [[0, 1], [1, 0], [2, 2]]
    """
    members = torch.arange(len(index), device=index.device)
    owner = torch.arange(groups, device=index.device)
    chosen = members.new_empty(groups, 0)
    for _ in range(k):
        free = (owner[:, None] == index) & (chosen[..., None] != members).all(1)
        row, member = free.nonzero().t()
        ended = (~free.any(1)).nonzero().view(-1)
        row = torch.cat([row, ended])
        member = torch.cat([member, torch.full_like(ended, len(index))])
        owner, chosen = owner[row], torch.cat([chosen[row], member[:, None]], 1)
    return owner, chosen
