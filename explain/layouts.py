"""What a tensor of any layout is made of: a sparse one has no memory of its own, and PyTorch asks it for none."""

from __future__ import annotations

import torch
from torch import Tensor


def strided_parts(value: Tensor) -> tuple[Tensor, ...]:
    """The plain tensors that hold a tensor: itself, or of a sparse one where its entries are, and their values.

    >>> [part.tolist() for part in strided_parts(torch.eye(2).to_sparse())]
    [[[0, 1], [0, 1]], [1.0, 1.0]]
    """
    if value.layout == torch.strided:
        return (value,)
    if value.layout == torch.sparse_coo:
        return value._indices(), value._values()
    if value.layout in (torch.sparse_csr, torch.sparse_bsr):
        return value.crow_indices(), value.col_indices(), value.values()
    return value.ccol_indices(), value.row_indices(), value.values()


def held_bytes(value: Tensor) -> int:
    """Bytes of memory that a tensor holds.

    >>> held_bytes(torch.eye(2)), held_bytes(torch.eye(2).to_sparse())
    (16, 40)
    """
    return sum(part.nbytes for part in strided_parts(value))
