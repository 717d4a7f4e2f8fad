"""``with capture(net) as maps:`` the attention weights of any torch model, its outputs unchanged to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing, TransformerConv

from explain.attention.interception import Interception, propagated
from explain.attention.maps import AttentionMap
from explain.attention.passes import branch_of, step_of
from explain.attention.recomputed import Recomputed, ScaledDotProduct, Whole

_WEIGHING = ("mul", "mm", "einsum", "sum", "scatter", "index_add", "linear")  # in the names of what weights are put to


class NothingCaptured(RuntimeError):
    """No attention was computed while the context was open."""


@contextmanager
def capture(net: nn.Module, reduce: Callable[[AttentionMap], Any] | None = None) -> Iterator[list[Any]]:
    """Collect an `AttentionMap` for every attention that ``net`` computes within, in call order.

    Seen: ``F.scaled_dot_product_attention``, `nn.MultiheadAttention`, and torch_geometric's `GATConv`, `GATv2Conv` and
    `TransformerConv`. Outputs are those of the original calls; torch's fused encoder fast path is off meanwhile, whose
    rounding differs. A layer called twice gives two maps. Weights are detached, at least float32, without dropout for
    dense attention. Only calls in this thread, from a forward of ``net`` or of a part of it, count. A map's ``step``
    and ``branch`` are the arguments ``timestep`` (or ``timesteps``, ``t``, ``time``) and ``branch`` that ``net`` itself
    was called with.

    Args:
        net: the network.
        reduce: what is kept of each map as it comes, None to drop it: whole maps of a long run may not fit in memory.
            The map it is given has not been computed yet, see `AttentionMap`: only what is read of it costs anything.

    Raises:
        NothingCaptured: on leaving, when nothing was seen (and no other exception is under way).

    >>> layer = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    >>> tokens = torch.ones(1, 3, 4)
    >>> with capture(layer) as maps:
    ...     _ = layer(tokens, tokens, tokens, need_weights=False)
    >>> maps[0].weights.shape, maps[0].module
    (torch.Size([1, 2, 3, 3]), 'MultiheadAttention')
    """
    watch = _Capture(net, reduce)
    with watch.opened():
        yield watch.maps
    if not watch.seen:
        raise NothingCaptured(_why(watch))


class _Capture(Interception):
    def __init__(self, net: nn.Module, reduce: Callable[[AttentionMap], Any] | None) -> None:
        super().__init__(net)
        self.maps: list[Any] = []
        self.reduce, self.seen = reduce, 0
        self.softmax, self.weighed = False, False  # whether one was taken, and something then multiplied or summed

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self.parts and not self.weighed:
            name = getattr(func, "__name__", "")
            self.weighed = self.softmax and any(part in name for part in _WEIGHING)
            self.softmax |= name in ("exp", "exp_") or ("softmax" in name and "log" not in name)
        return super().__torch_function__(func, types, args, kwargs)

    def scaled_dot_product(self, arguments: dict[str, Any]) -> Tensor:
        output = super().scaled_dot_product(arguments)
        self._keep_dense(ScaledDotProduct(**arguments))
        return output

    def multi_head(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        output = super().multi_head(arguments)
        self._keep_dense(_multi_head(arguments))
        return output

    def before_propagate(self, layer: MessagePassing, inputs: tuple[Any, Any, dict[str, Any]]) -> None:
        edge_index, size, arguments = inputs
        if not isinstance(layer, TransformerConv):
            self._keep_edges(layer, edge_index, _size(edge_index, size, *arguments["x"]), arguments["alpha"])

    def after_propagate(self, layer: MessagePassing, inputs: tuple[Any, Any, dict[str, Any]]) -> None:
        edge_index, _, arguments = inputs
        if (
            isinstance(layer, TransformerConv) and layer._alpha is not None
        ):  # set by its message(), cleared by forward()
            shape = _size(edge_index, None, arguments["key"], arguments["query"])
            self._keep_edges(layer, edge_index, shape, layer._alpha)

    def _keep_dense(self, source: Recomputed) -> None:
        step, branch = step_of(self.arguments), branch_of(self.arguments)
        attention = AttentionMap.recomputed(source, self.parts[-1], step, branch)
        self._keep(attention)
        attention._close()

    def _keep_edges(self, layer: MessagePassing, edge_index: Any, size: tuple[int, int], weights: Tensor) -> None:
        weights = weights.detach().clone()
        columns = propagated(edge_index).detach().clone()
        step, branch = step_of(self.arguments), branch_of(self.arguments)
        self._keep(AttentionMap(weights, self.parts[-1], columns, size, layer.flow, step, branch))

    def _keep(self, attention: AttentionMap) -> None:
        self.seen += 1
        kept = self.reduce(attention) if self.reduce else attention
        if isinstance(kept, AttentionMap):
            kept._settle()
        if kept is not None:
            self.maps.append(kept)


def _multi_head(arguments: dict[str, Any]) -> Whole:
    """The weights of a `F.multi_head_attention_forward`, as it gives them itself when asked again."""
    query, key = arguments["query"], arguments["key"]  # [tokens, batch, width] or [tokens, width]
    fixed = arguments.get("static_k")
    keys = (key.size(0) if fixed is None else fixed.size(1)) + (arguments["bias_k"] is not None)
    again = arguments | {"need_weights": True, "average_attn_weights": False, "training": False}

    def compute() -> Tensor:
        weights = F.multi_head_attention_forward(**again)[1]
        assert weights is not None  # need_weights is set
        return (weights if weights.dim() == 4 else weights[None]).nan_to_num(0.0)  # unbatched

    batch = query.size(1) if query.dim() == 3 else 1
    shape = batch, int(arguments["num_heads"]), query.size(0), keys + bool(arguments["add_zero_attn"])
    return Whole(compute, shape)


def _size(edge_index: Any, size: Any, senders: Tensor, receivers: Tensor | None) -> tuple[int, int]:
    """``(keys, queries)``; a bipartite layer without receiving features says it by ``size``."""
    if receivers is not None:
        return senders.size(0), receivers.size(0)
    if size is not None:
        return int(size[0]), int(size[1])
    columns = propagated(edge_index)
    return senders.size(0), int(columns[1].max()) + 1 if columns.numel() else 0


def _why(watch: _Capture) -> str:
    name = type(watch.net).__name__
    if not watch.called:
        return f"nothing captured: {name} was not called inside the context (in this thread); call it there"
    if not watch.weighed and not any(_may_hide(part) for part in watch.net.modules()):
        return (
            f"nothing captured: {name} has no attention that could be captured, as nothing in its forward is weighed "
            "by a softmax: Shapley, Lime, Occlusion and Gradient explain any model"
        )
    return (
        f"nothing captured: {name} ran, but called neither scaled_dot_product_attention, nn.MultiheadAttention nor "
        "torch_geometric's GATConv, GATv2Conv or TransformerConv; attention written out as matmul and softmax, in "
        "third-party kernels or in scripted modules cannot be seen: let the model use scaled_dot_product_attention"
    )


def _may_hide(part: nn.Module) -> bool:
    """Whether a module may hold an attention that no torch function tells of: scripted, or one by its name."""
    return isinstance(part, torch.jit.ScriptModule) or "att" in type(part).__name__.lower()
