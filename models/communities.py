"""Small graphs of two communities, as graph generators are tried on."""

from __future__ import annotations

import torch
from torch import Tensor


def communities(count: int, sizes: tuple[int, int] = (12, 20), seed: int = 0) -> list[Tensor]:
    """Adjacency matrices, int64 ``[n, n]``, of two halves: dense within, a few edges between.

    A pair within a half is an edge with probability 0.7, one across with 0.05; one edge across is always there.

    Args:
        count: graphs.
        sizes: least and most nodes, even numbers.
        seed: of the graphs.

    >>> [graph.size(0) % 2 for graph in communities(3)]
    [0, 0, 0]
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        half = int(torch.randint(sizes[0] // 2, sizes[1] // 2 + 1, (), generator=generator))
        side = torch.arange(2 * half) >= half
        p = torch.where(side[:, None] == side, 0.7, 0.05)
        upper = (torch.rand(p.shape, generator=generator) < p).triu(1)
        upper[half - 1, half] = True
        found.append((upper | upper.T).long())
    return found
