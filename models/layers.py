"""Pieces that several models share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """``F.dropout`` that keeps a sparse COO ``x`` sparse: its zeros stay zero either way.

    >>> dropout(torch.eye(2).to_sparse(), 0.0, True).to_dense()
    tensor([[1., 0.],
            [0., 1.]])
    """
    if x.layout is not torch.sparse_coo:
        return F.dropout(x, rate, training)
    x = x.coalesce()
    values = F.dropout(x.values(), rate, training)
    return torch.sparse_coo_tensor(x.indices(), values, x.shape, check_invariants=False, is_coalesced=True)
