"""``with uniform(net):`` every attention looks alike at all it may look at.

If the number hardly moves, attention maps do not explain it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import CausalBias
from torch_geometric.nn import MessagePassing, TransformerConv

from explain.attention.interception import Interception, propagated
from explain.attention.recomputed import BLOCKED
from explain.attention.written_out import Weighed, WrittenOut, alike


@contextmanager
def uniform(net: nn.Module) -> Iterator[None]:
    """Replace every attention distribution by the uniform one over the same allowed keys or edges.

    ``w = 1/n`` on the ``n`` keys that the masks leave, or on the ``n`` edges into a node; values, projections and all
    else stay. Covers what `capture` covers; of weights that are written out those above 0 are allowed. Layers,
    masks and torch's settings are as before afterwards. Additive masks keep only what they forbid (entries at or
    below -1e4): a finite bias is part of the distribution that is replaced.

    >>> layer = nn.MultiheadAttention(4, 1, batch_first=True).eval()
    >>> tokens = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    >>> with uniform(layer):
    ...     layer(tokens, tokens, tokens)[1][0]
    tensor([[0.3333, 0.3333, 0.3333],
            [0.3333, 0.3333, 0.3333],
            [0.3333, 0.3333, 0.3333]], grad_fn=<SelectBackward0>)
    """
    with _Uniform(net).opened():
        yield


class _Uniform(Interception):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.written = WrittenOut()

    def weighed(self, found: Weighed) -> bool:
        return True

    def passed_along(self, layer: MessagePassing, edge_index: Any, size: tuple[int, int], weights: Tensor) -> bool:
        return True

    def scaled_dot_product(self, arguments: dict[str, Any]) -> Tensor:
        blind = arguments | {"query": torch.zeros_like(arguments["query"])}  # every score is then 0
        return super().scaled_dot_product(_forbidding(blind, "attn_mask"))

    def multi_head(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        width = arguments["embed_dim_to_check"]
        blind = dict(arguments)
        for name in (
            "in_proj_weight",
            "q_proj_weight",
            "in_proj_bias",
        ):  # the query's part comes first in the packed ones
            if blind.get(name) is not None:
                keep = torch.arange(len(blind[name]), device=blind[name].device) >= width
                blind[name] = torch.where(keep.view(-1, *[1] * (blind[name].dim() - 1)), blind[name], 0.0)
        return super().multi_head(_forbidding(blind, "attn_mask", "key_padding_mask"))

    def before_propagate(self, layer: MessagePassing, inputs: tuple[Any, Any, dict[str, Any]]) -> Any:
        edge_index, size, arguments = inputs
        if isinstance(layer, TransformerConv):
            return edge_index, size, arguments | {"query": torch.zeros_like(arguments["query"])}
        target = propagated(edge_index)[1 if layer.flow == "source_to_target" else 0]
        return edge_index, size, arguments | {"alpha": alike(arguments["alpha"], target)}


def _forbidding(arguments: dict[str, Any], *masks: str) -> dict[str, Any]:
    """The same arguments with additive masks that only forbid: 0 or minus infinity."""
    for name in masks:
        mask = arguments.get(name)
        if isinstance(mask, Tensor) and not isinstance(mask, CausalBias) and mask.is_floating_point():
            arguments[name] = torch.zeros_like(mask).masked_fill_(mask <= BLOCKED, float("-inf"))
    return arguments
