"""Attention rollout: follow attention back from the rows a number is read from, through every layer, to the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from explain.attention.maps import AttentionMap

Residual: TypeAlias = float | Literal["auto"]


class NoChain(ValueError):
    """Maps of different sizes were to be put together."""


def rollout(maps: Sequence[AttentionMap], rows: Tensor, residual: Residual = "auto") -> list[Tensor]:
    """``r_{l-1} = r_l (rho I + (1 - rho) A_l)``, from ``r_L`` = an equal share for each of ``rows`` down to ``r_0``.

    ``A_l`` is the head mean of map ``l`` (Abnar and Zuidema 2020). Only vectors are multiplied, so a graph of thousands
    of nodes costs one pass over its edges a layer. Maps must be in call order, each reading what the one before wrote.

    Args:
        maps: ``L`` maps in call order.
        rows: the query rows of the last map, int64.
        residual: ``rho``, the share that the skip connection carries past the layer. "auto": 0.5 for dense maps (a
            transformer adds each block to its input), 0 along edges: there a node keeps itself by its self-loop, which
            is an edge with a weight like any other. Give a number where the layers differ from that.

    Returns:
        ``[r_0, ..., r_L]``, float64; ``r_l`` is the credit of each position after map ``l`` (``r_0``: of the inputs).

    Raises:
        ValueError: no maps, a row that the last map does not have.
        NoChain: maps that do not chain.

    >>> swap = AttentionMap(torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]), "layer")
    >>> rollout([swap, swap], torch.tensor([0]), residual=0.0)[0]
    tensor([1., 0.], dtype=torch.float64)
    """
    _check_chain(maps)
    reach = start(maps[-1], rows)
    reaches = [reach]
    for attention in reversed(maps):
        rho = residual_of(attention, residual)
        looked = (1 - rho) * attention.pull(reach)
        reach = looked + rho * reach if rho else looked
        reaches.append(reach)
    return reaches[::-1]


def edge_credit(maps: Sequence[AttentionMap], rows: Tensor, residual: Residual = "auto") -> list[Tensor]:
    """What passes through every weight of every map: ``(1 - rho) r_l[q] A_l(q <- k)``, ``[E']`` or ``[queries, keys]``.

    Without a residual each layer's credits sum to 1; an edge's credit is its sum over the layers.
    """
    reaches = rollout(maps, rows, residual)
    return [
        (1 - residual_of(attention, residual)) * attention.flow_from(reach)
        for attention, reach in zip(maps, reaches[1:], strict=True)
    ]


def start(attention: AttentionMap, rows: Tensor) -> Tensor:
    """An equal share for each row, zero elsewhere: float64 ``[queries]``, summing to 1.

    Raises:
        ValueError: no rows, or one that the map does not have.
    """
    if len(rows) == 0 or int(rows.min()) < 0 or int(rows.max()) >= attention.queries:
        raise ValueError(
            f"rows must be query rows of the map of {attention.module}, 0 to {attention.queries - 1}, "
            f"got {rows.tolist()}"
        )
    shares = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
    empty = torch.zeros(attention.queries, dtype=torch.float64)
    return empty.index_add_(0, rows.cpu(), shares).to(attention.weights.device)


def residual_of(attention: AttentionMap, residual: Residual) -> float:
    """The share of the skip connection around this map."""
    if residual == "auto":
        return 0.5 if attention.edge_index is None else 0.0
    return float(residual)


def _check_chain(maps: Sequence[AttentionMap]) -> None:
    if not maps:
        raise ValueError("rollout needs at least one attention map, got none")
    sizes = [(attention.queries, attention.keys) for attention in maps]
    chained = all(below[0] == above[1] for below, above in pairwise(sizes))
    if not chained or any(queries != keys for queries, keys in sizes):
        shapes = ", ".join(f"{attention.module} {attention.queries}x{attention.keys}" for attention in maps)
        raise NoChain(
            f"rollout needs square maps of one size, layer upon layer, got {shapes} (queries x keys); "
            "cross-attention, pooled or typed graphs do not chain"
        )
