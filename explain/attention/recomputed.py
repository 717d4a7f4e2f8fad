"""The weights of one dense attention, computed when they are asked for: whole, by rows, or only what is wanted.

No weight is needed to know what the rows put onto a few groups of keys: the same kernel with values that mark the
groups says it, ``W V``, in the memory of its answer. Where the weights themselves are needed, rows come in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.bias import CausalBias, CausalVariant

_BLOCK = 2**20  # weights at a time: what stays in a processor's cache
BLOCKED = -1e4  # an additive mask from here down means "never": its weight underflows to zero
_WIDER = 2  # so many calls of the kernel cost what the weights themselves do


class Recomputed(Protocol):
    """``W [batch, heads, queries, keys]`` of one call, never held whole unless asked for; rows sum to 1, or to 0 where
    they may look at nothing.

    ``shape`` is that of ``W``; ``output [batch, heads, queries, d]`` what the layer itself made of it, before heads are
    joined, where that is known.
    """

    shape: tuple[int, int, int, int]
    output: Tensor | None

    def whole(self) -> Tensor:
        """``W``, at least float32."""
        ...

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """``W`` a few rows at a time: which queries, and theirs ``[batch, heads, rows, keys]``."""
        ...

    def times(self, values: Tensor) -> Tensor:
        """``W V`` for ``values [keys, d]`` or ``[batch, keys, d]``: ``[batch, heads, queries, d]``."""
        ...

    def chance(self, values: Tensor) -> Tensor:
        """``U V`` with ``U`` uniform over the keys that each row may see: float64 ``[batch, heads, queries, d]``."""
        ...

    def part(
        self,
        rows: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        queries: Tensor | None = None,
    ) -> Recomputed:
        """Of these rows of the batch, heads and queries alone; None for all."""
        ...


class ScaledDotProduct:
    """``W = softmax(scale Q K' + mask)`` of one `F.scaled_dot_product_attention`, by its own arguments.

    Q, K and an additive mask are taken to float32 first, where they are less: what is summed is summed in float32.
    Dropout is left out. Leading dimensions of any number are one batch; grouped queries have their keys repeated.
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        output: Tensor | None = None,
    ) -> None:
        query, key = query.detach(), key.detach()
        if enable_gqa:
            key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        lead = query.shape[:-2]
        if key.shape[:-2] != lead:
            lead = torch.broadcast_shapes(lead, key.shape[:-2])
        heads = lead[-1] if len(lead) > 1 else 1
        self.shape = lead.numel() // heads, heads, query.size(-2), key.size(-2)
        self.query, self.key = (_four(x, lead, heads) for x in (query, key))
        known = output is not None and output.shape[:-2] == lead  # values may be more than queries and keys
        self.output = _four(output.detach(), lead, heads) if output is not None and known else None
        self.scale = query.size(-1) ** -0.5 if scale is None else scale
        self.mask: Tensor | None = None
        self.causal = is_causal
        if isinstance(attn_mask, CausalBias):
            self.causal = attn_mask.variant == CausalVariant.UPPER_LEFT
            if not self.causal:
                places = torch.ones(attn_mask.seq_len_q, attn_mask.seq_len_kv, dtype=torch.bool, device=query.device)
                self.mask = places.tril(attn_mask.seq_len_kv - attn_mask.seq_len_q)
        elif attn_mask is not None:
            mask = torch.atleast_2d(attn_mask.detach())
            self.mask = _four(mask, lead, heads) if mask.dim() > 2 else mask

    def whole(self) -> Tensor:
        """``W``."""
        weights = torch.empty(self.shape, dtype=self._dtype, device=self.query.device)
        for queries, block in self.blocks():
            weights[:, :, queries] = block
        return weights

    @torch.no_grad()
    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """``W`` by rows, ``2^20`` weights at a time: what stays in a processor's cache."""
        query, key = self.query.to(self._dtype) * self.scale, self.key.to(self._dtype).mT.contiguous()
        for some in _slices(self.shape):
            with torch.autocast(query.device.type, enabled=False):
                yield some, self._softmax(query[:, :, some] @ key, some)

    def _softmax(self, scores: Tensor, some: slice) -> Tensor:
        mask = self._mask(some)
        if mask is None:
            return scores.softmax(-1)
        if mask.dtype == torch.bool:
            scores.masked_fill_(~mask, float("-inf"))
        else:
            scores += mask
        return scores.softmax(-1).nan_to_num_(0.0)

    def _mask(self, some: slice) -> Tensor | None:
        if self.causal:
            places = torch.arange(self.shape[2], device=self.query.device)[some, None]
            return places >= torch.arange(self.shape[3], device=self.query.device)
        if self.mask is None or self.mask.size(-2) == 1:
            return self.mask
        return self.mask[..., some, :]

    @torch.no_grad()
    def times(self, values: Tensor) -> Tensor:
        """``W V``: by the kernel, or by rows where the values are so many that the weights cost less."""
        values = values.to(self.query.device, self._dtype)
        values = values[:, None] if values.dim() == 3 else values
        width = self.query.size(-1)
        if values.size(-1) > _WIDER * width:
            return torch.cat([block @ values for _, block in self.blocks()], -2)
        return torch.cat([self._kernel(some) for some in values.split(width, -1)], -1)

    @torch.no_grad()
    def chance(self, values: Tensor) -> Tensor:
        """``U V``; an additive mask only forbids, where it is at or below -1e4."""
        values = values.to(self.query.device, self._dtype)
        if self.mask is None and not self.causal:
            mean = values.double().mean(-2, keepdim=True)
            return (mean[:, None] if mean.dim() == 3 else mean).expand(*self.shape[:3], -1)
        blind = self.part()
        blind.query = torch.zeros_like(self.query)  # every score is then 0
        if self.mask is not None and self.mask.dtype != torch.bool:
            blind.mask = self.mask > BLOCKED
        return blind.times(values).double()

    def _kernel(self, values: Tensor) -> Tensor:
        """``W V`` by the kernel that torch picks; values as wide as keys, which the fused ones want."""
        batch, heads, _, keys = self.shape
        width = self.query.size(-1)
        padded = F.pad(values, (0, width - values.size(-1))).expand(batch, heads, keys, width)
        mask = self.mask
        if mask is not None and mask.is_floating_point():
            mask = mask.to(self._dtype)
        query, key = (x.to(self._dtype).expand(batch, heads, -1, -1) for x in (self.query, self.key))
        with torch.autocast(query.device.type, enabled=False):
            answer = F.scaled_dot_product_attention(query, key, padded, mask, 0.0, self.causal, scale=self.scale)
        answer = answer[..., : values.size(-1)]
        return answer if mask is None else answer.nan_to_num(0.0)

    def part(
        self,
        rows: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        queries: Tensor | None = None,
    ) -> ScaledDotProduct:
        """Of these alone."""
        some = object.__new__(ScaledDotProduct)
        some.scale, some.causal = self.scale, self.causal
        some.query, some.key = (_taken(_taken(x, 0, rows), 1, heads) for x in (self.query, self.key))
        some.output = _part_of(self.output, rows, heads, queries)
        some.mask = self.mask
        if self.mask is not None and self.mask.dim() > 2:
            some.mask = _taken(_taken(self.mask, 0, rows), 1, heads)
        if queries is not None:
            places = queries.to(self.query.device)
            some.query = some.query[:, :, places]
            if self.causal:  # they are no longer the first
                some.mask, some.causal = places[:, None] >= torch.arange(self.shape[3], device=places.device), False
            elif some.mask is not None and some.mask.size(-2) > 1:
                some.mask = some.mask[..., places, :]
        batch, number = (
            len(taken) if taken is not None else size for taken, size in zip((rows, heads), self.shape[:2], strict=True)
        )
        some.shape = batch, number, some.query.size(2), self.shape[3]
        return some

    @property
    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.query.dtype, torch.float32)


class Whole:
    """Weights that come whole or not at all: ``compute() -> [batch, heads, queries, keys]``, for each reading anew."""

    def __init__(
        self, compute: Callable[[], Tensor], shape: tuple[int, int, int, int], output: Tensor | None = None
    ) -> None:
        self.compute, self.shape, self.output = compute, shape, output

    def whole(self) -> Tensor:
        """``W``."""
        with torch.no_grad():
            return self.compute().detach()

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """``W`` by rows, ``2^20`` weights at a time: what stays in a processor's cache."""
        weights = self.whole()
        for some in _slices(self.shape):
            yield some, weights[:, :, some]

    def times(self, values: Tensor) -> Tensor:
        """``W V``."""
        weights = self.whole()
        return weights @ (values[:, None] if values.dim() == 3 else values).to(weights)

    def chance(self, values: Tensor) -> Tensor:
        """``U V`` over the keys whose weight is above zero."""
        looked = (self.whole() > 0).double()
        share = looked @ (values[:, None] if values.dim() == 3 else values).to(looked)
        return share / looked.sum(-1, keepdim=True).clamp_min(1)

    def part(
        self,
        rows: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        queries: Tensor | None = None,
    ) -> Whole:
        """Of these alone."""
        taken = [rows, heads, None if queries is None else queries.tolist()]
        shape = [size if some is None else len(some) for some, size in zip(taken, self.shape, strict=False)]
        output = _part_of(self.output, rows, heads, queries)
        return Whole(lambda: _part(self.compute(), *taken), (shape[0], shape[1], shape[2], self.shape[3]), output)


def _slices(shape: tuple[int, int, int, int]) -> Iterator[slice]:
    """Of the queries, so many at a time that their weights are a block."""
    batch, heads, queries, keys = shape
    rows = max(1, _BLOCK // max(1, batch * heads * keys))
    for start in range(0, max(1, queries), rows):
        yield slice(start, min(start + rows, queries))


def _four(x: Tensor, lead: torch.Size, heads: int) -> Tensor:
    """``[..., n, d] -> [batch, heads, n, d]``, with 1 for a batch or heads that are alike where that costs no copy."""
    if x.dim() < len(lead) + 2:
        x = x.reshape(*(1,) * (len(lead) + 2 - x.dim()), *x.shape)
    if len(lead) == 2:
        return x
    if len(lead) < 2:
        return x.reshape(-1, 1, *x.shape[-2:])
    return x.expand(*lead, *x.shape[-2:]).reshape(-1, heads, *x.shape[-2:])


def _part_of(
    output: Tensor | None, rows: Sequence[int] | None, heads: Sequence[int] | None, queries: Tensor | None
) -> Tensor | None:
    return None if output is None else _part(output, rows, heads, None if queries is None else queries.tolist())


def _part(x: Tensor, *taken: Sequence[int] | None) -> Tensor:
    """These entries along the first dimensions."""
    for dim, some in enumerate(taken):
        x = _taken(x, dim, some)
    return x


def _taken(x: Tensor, dim: int, places: Sequence[int] | None) -> Tensor:
    """These entries along a dimension; a single one stands for all."""
    if places is None or x.size(dim) == 1:
        return x
    return x.index_select(dim, torch.tensor(places, dtype=torch.int64, device=x.device))
