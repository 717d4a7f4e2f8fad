"""Small graphs of a few communities, as graph generators are tried on."""

from __future__ import annotations

import torch
from torch import Tensor


def communities(count: int, sizes: tuple[int, int] = (12, 20), seed: int = 0, parts: int = 2) -> list[Tensor]:
    """Adjacency matrices, int64 ``[n, n]``, of parts as large as each other: dense within, a few edges between.

    A pair within a part is an edge with probability 0.7, one across with 0.05; one edge to the next is always there.

    Args:
        count: graphs.
        sizes: least and most nodes, multiples of ``parts``.
        seed: of the graphs.
        parts: communities in each.

    >>> [graph.size(0) % 2 for graph in communities(3)]
    [0, 0, 0]
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        each = int(torch.randint(sizes[0] // parts, sizes[1] // parts + 1, (), generator=generator))
        part = torch.arange(parts * each) // each
        p = torch.where(part[:, None] == part, 0.7, 0.05)
        upper = (torch.rand(p.shape, generator=generator) < p).triu(1)
        border = torch.arange(1, parts) * each
        upper[border - 1, border] = True
        found.append((upper | upper.T).long())
    return found
