"""The edges at each node, found without looking at the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Incidence:
    """Edges by one of their ends: those at node ``v`` are ``edges[starts[v]:starts[v + 1]]``, on the CPU."""

    starts: np.ndarray
    edges: np.ndarray

    def at(self, nodes: Tensor) -> Tensor:
        """The edges at these nodes, int64, node by node."""
        rows = nodes.cpu().numpy()
        first = self.starts[rows].astype(np.int64)
        count = self.starts[rows + 1].astype(np.int64) - first
        offset = np.repeat(first - np.concatenate([[0], count.cumsum()[:-1]]), count)
        return torch.from_numpy(self.edges[offset + np.arange(len(offset))].astype(np.int64)).to(nodes.device)


def incidence(ends: Tensor, nodes: int) -> Incidence:
    """Sort edges by an end ``[E]``, in linear time.

    >>> incidence(torch.tensor([2, 0, 2]), 3).at(torch.tensor([2]))
    tensor([0, 2])
    """
    rows, edges = ends.cpu().numpy(), len(ends)
    small = np.int32 if max(nodes, edges) < 2**31 else np.int64
    places = np.arange(edges, dtype=small)
    made = csr_array((np.ones(edges, np.int8), (rows.astype(small), places)), shape=(nodes, max(edges, 1)))
    return Incidence(made.indptr, made.indices)
