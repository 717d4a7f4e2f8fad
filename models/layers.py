"""Pieces that several models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_known: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


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


@contextmanager
def same_data() -> Iterator[None]:
    """Within: the data does not change, and what `once` is asked about it is computed once, as in a training."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def once(compute: Callable[..., Any], *inputs: Tensor) -> Any:
    """``compute(*inputs)``, of which nothing is learned; within `same_data` what it was for these very tensors.

    >>> double = lambda x: 2 * x
    >>> x = torch.ones(2)
    >>> once(double, x) is once(double, x)
    False
    >>> with same_data():
    ...     once(double, x) is once(double, x)
    True
    """
    known = _known.get()
    if known is None:
        return compute(*inputs)
    key = (compute, *map(id, inputs))
    if key not in known:
        known[key] = compute(*inputs), inputs  # as long as the inputs are held nothing else has their ids
    return known[key][0]


def row_normalised(edge_index: Tensor, nodes: int, dtype: torch.dtype) -> Tensor:
    """``D^-1 adjacency``, sparse ``[nodes, nodes]``: a node's row is the mean over those it hears; 0 where nobody.

    >>> row_normalised(torch.tensor([[0, 1, 2], [2, 2, 0]]), 3, torch.float32).to_dense()
    tensor([[0.0000, 0.0000, 1.0000],
            [0.0000, 0.0000, 0.0000],
            [0.5000, 0.5000, 0.0000]])
    """
    target = edge_index[1]
    weight = 1 / torch.bincount(target, minlength=nodes).clamp(min=1).to(dtype)
    found = torch.sparse_coo_tensor(edge_index.flip(0), weight[target], (nodes, nodes), check_invariants=False)
    return found.coalesce()
