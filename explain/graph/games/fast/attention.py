"""Graph attention in every coalition: a softmax over those present."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from explain.graph.games.fast.program import Attend, Rule
from explain.graph.games.fast.steps import Batch, Entry

_LEAST = 1e-16  # as torch_geometric adds to a softmax's denominator


def rule_of(op: Attend) -> Rule:
    """Whom a node attends to: its neighbours, and itself where the layer adds loops."""
    return Rule("sum", 1.0 if op.loops else None)


@dataclass(frozen=True, eq=False)
class Attention:
    """``sum over u of alpha_uv h_u`` with ``h = W x``; ``shared [rows, channels, 1]`` where no coalition changes ``h``.

    ``near [E]``: the row of ``h`` of each entry's source; ``own``: that of each node itself. ``after``: absent messages
    are multiplied by zero after the softmax.
    """

    source: int | None
    shared: Tensor | None
    op: Attend
    entry: Entry
    near: Tensor
    own: Tensor
    after: bool

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        h: Any = self.shared if self.source is None else batch.values[self.source]
        heads, channels = self.op.source.shape
        h = h.reshape(len(h), heads, channels, -1)
        towards, at = ((h * weight[..., None]).sum(2) for weight in (self.op.source, self.op.target))
        here = self.entry(batch)[:, None]
        made = h.new_zeros(len(self.own), heads, channels, batch.present.size(1))
        start = 0
        for row, size, own in zip(made, self.entry.sizes, self.own.tolist(), strict=True):
            near, present = self.near[start : start + size], here[start : start + size]
            start += size
            if size:
                logits = F.leaky_relu(towards.index_select(0, near) + at[own], self.op.slope)
                self._attend(row, self._softmax(logits, present), h, near)
        return made.view(len(made), heads * channels, -1)

    def _softmax(self, logits: Tensor, present: Tensor) -> Tensor:
        """``alpha [entries, heads, B]`` over those present."""
        counted = torch.ones_like(present) if self.after else present
        largest = logits.masked_fill(counted == 0, -torch.inf).amax(0)
        weights = (logits - largest.masked_fill(largest == -torch.inf, 0)).exp() * counted
        alpha = weights / (weights.sum(0) + _LEAST)
        return alpha * present if self.after else alpha

    @staticmethod
    def _attend(row: Tensor, alpha: Tensor, h: Tensor, near: Tensor) -> None:
        if h.size(3) == 1:
            row.copy_(h.index_select(0, near)[..., 0].permute(1, 2, 0) @ alpha.permute(1, 0, 2))
            return
        for u, weight in zip(near.tolist(), alpha.unbind(0), strict=True):
            row.addcmul_(h[u], weight[:, None])
