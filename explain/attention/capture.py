"""``with capture(net) as maps:`` the attention weights of any torch model, its outputs unchanged to the last bit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing, TransformerConv

from explain.attention.interception import Interception, propagated
from explain.attention.labels import branch_of, looking, step_of
from explain.attention.maps import AttentionMap
from explain.attention.recomputed import Recomputed, ScaledDotProduct, Whole
from explain.attention.selection import GuidanceBranch, Heads, Modules, NothingCaptured, Selection, Steps
from explain.attention.told import Told, asked, layers_told
from explain.attention.written_out import Weighed, WrittenOut

_WEIGHING = ("mul", "mm", "einsum", "sum", "scatter", "index_add", "linear")  # in the names of what weights are put to


@contextmanager
def capture(
    net: nn.Module,
    reduce: Callable[[AttentionMap], Any] | None = None,
    *,
    modules: Modules = None,
    heads: Heads = None,
    steps: Steps = None,
    branch: GuidanceBranch = None,
    attention: Told = None,
) -> Iterator[list[Any]]:
    """Collect an `AttentionMap` for every attention that ``net`` computes within, in call order.

    Seen: ``F.scaled_dot_product_attention``, `nn.MultiheadAttention`, torch_geometric's `GATConv`, `GATv2Conv` and
    `TransformerConv`, and attention written out: a softmax, or an exponential over its sum, that is then summed
    over in a matrix product or einsum, or over the edges into each node (`HGTConv`, `RGATConv`, `SuperGATConv`,
    `AttentiveFP`), where its rows are proved to add up to 1. Outputs are those of the original calls; torch's fused
    encoder fast path is off meanwhile, whose rounding differs. A layer called twice gives two maps. Weights are
    detached, at least float32, without dropout for dense attention. Only calls in this thread, from a forward of
    ``net`` or of a part of it, count.

    A map's ``step`` and ``branch`` are those that the run tells, row by row in a batch doubled for guidance (every run
    of `wrap` does); else the arguments ``timestep`` (or ``timesteps``, ``t``, ``time``) and ``branch`` that ``net``
    itself was called with.

    What is not asked for is never computed: a pass without any map costs what it does without `capture`.

    Args:
        net: the network.
        reduce: what is kept of each map as it comes, None to drop it: whole maps of a long run may not fit in memory.
            The map it is given has not been computed yet, see `AttentionMap`: only what is read of it costs anything.
        modules: names of layers, or of modules that hold them, ``*`` for any letters: ``"*attn2"`` is the
            cross-attention of diffusers' UNets, ``"mid_block"`` all in it. Or a function of a layer's name.
        heads: a head or several; maps have these alone, in this order.
        steps: a timestep, several, or a function of one, such as ``lambda t: t > 500``.
        branch: "cond" or "uncond", or "perturbed" (see `passes`); of a doubled batch, maps have these rows alone.
        attention: of layers that weigh all pairs by a kernel and form no weights, such as linear attention: by the
            layer's name a function ``(layer, *its inputs) -> weights [queries, keys]``, ``[heads, ...]``,
            ``[batch, heads, ...]``, or ``(edge_index, weights [E, heads])``; rows that do not add up to 1 are refused.

    Raises:
        ValueError: a name that no module has; a head that a layer does not have; a step or branch asked of a call that
            does not tell it.
        NothingCaptured: on leaving, when nothing was seen, or a layer or step that was asked for never came (and no
            other exception is under way).

    >>> layer = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    >>> tokens = torch.ones(1, 3, 4)
    >>> with capture(layer, heads=1) as maps:
    ...     _ = layer(tokens, tokens, tokens, need_weights=False)
    >>> maps[0].weights.shape, maps[0].module
    (torch.Size([1, 1, 3, 3]), 'MultiheadAttention')
    """
    selection = Selection(modules, heads, steps, branch)
    selection.check(net)
    watch = _Capture(net, reduce, selection)
    with watch.opened(), watch.told(layers_told(net, attention)):
        yield watch.maps
    if not watch.layers:
        raise NothingCaptured(_why(watch))
    missed = selection.missed(watch.layers, watch.steps)
    if missed:
        raise NothingCaptured(missed)


class _Capture(Interception):
    def __init__(self, net: nn.Module, reduce: Callable[[AttentionMap], Any] | None, selection: Selection) -> None:
        super().__init__(net)
        self.maps: list[Any] = []
        self.reduce, self.selection = reduce, selection
        self.layers: dict[str, None] = {}  # that computed attention, and at which steps
        self.steps: dict[float, None] = {}
        self.curious = True  # until attention is seen: whether a softmax was taken, and something weighed
        self.softmax, self.summed = False, False
        self.written = WrittenOut()

    def passed(self, func: Callable[..., Any]) -> None:
        name = getattr(func, "__name__", "")
        self.summed = self.softmax and any(part in name for part in _WEIGHING)
        self.softmax |= name in ("exp", "exp_") or ("softmax" in name and "log" not in name)
        self.curious = not self.summed

    def scaled_dot_product(self, arguments: dict[str, Any]) -> Tensor:
        output = super().scaled_dot_product(arguments)
        if self._asked():
            self._keep_dense(ScaledDotProduct(**arguments, output=output))
        return output

    def multi_head(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        output = super().multi_head(arguments)
        if self._asked():
            self._keep_dense(_multi_head(arguments))
        return output

    def before_propagate(self, layer: MessagePassing, inputs: tuple[Any, Any, dict[str, Any]]) -> None:
        edge_index, size, arguments = inputs
        if not isinstance(layer, TransformerConv) and self._asked():
            self._keep_edges(layer, edge_index, _size(edge_index, size, *arguments["x"]), arguments["alpha"])

    def after_propagate(self, layer: MessagePassing, inputs: tuple[Any, Any, dict[str, Any]]) -> None:
        edge_index, _, arguments = inputs
        if (
            isinstance(layer, TransformerConv) and layer._alpha is not None and self._asked()
        ):  # set by its message(), cleared by forward()
            shape = _size(edge_index, None, arguments["key"], arguments["query"])
            self._keep_edges(layer, edge_index, shape, layer._alpha)

    @contextmanager
    def told(self, functions: dict[str, Callable[..., Any]]) -> Iterator[None]:
        """Within: these layers' maps are what their functions say after each call."""
        owner, whole = threading.get_ident(), type(self.net).__name__
        parts = dict(self.net.named_modules()) if functions else {}

        def after(name: str, layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if threading.get_ident() != owner or self.quiet:
                return
            self.parts.append(name)
            try:
                if self._asked():
                    self._keep_told(functions[name], layer, args, kwargs)
            finally:
                self.parts.pop()

        with ExitStack() as undo:
            for name in functions:
                part = parts["" if name == whole and name not in parts else name]
                undo.callback(part.register_forward_hook(partial(after, name), with_kwargs=True).remove)
            yield

    def _keep_told(self, function: Callable[..., Any], layer: nn.Module, args: Any, kwargs: Any) -> None:
        flow, name = getattr(layer, "flow", "source_to_target"), self.parts[-1]
        self.quiet = True
        try:
            found = asked(function, name, layer, args, kwargs, flow)
        finally:
            self.quiet = False
        if found.edge_index is None:
            weights = found.weights
            self._keep_dense(Whole(lambda: weights, (*weights.shape[:2], *weights.shape[2:])))
        else:
            columns = found.edge_index
            sent, received = (columns.max(1).values + 1).tolist() if columns.numel() else (0, 0)
            nodes = max(sent, received)
            self._keep_edges(layer, columns, (nodes, nodes), found.weights)

    def weighed(self, found: Weighed) -> bool:
        if self._asked():
            weights = found.rows()
            self._keep_dense(Whole(lambda: weights, (*weights.shape[:2], *weights.shape[2:])))
        return False

    def passed_along(self, layer: MessagePassing, edge_index: Any, size: tuple[int, int], weights: Tensor) -> bool:
        if self._asked():
            self._keep_edges(layer, edge_index, size, weights.flatten(1) if weights.dim() > 1 else weights[:, None])
        return False

    def _asked(self) -> bool:
        """Whether the layer that is running is asked for."""
        self.curious = False
        self.layers[self.parts[-1]] = None
        step = step_of(self.arguments)
        if step is not None:
            self.steps.update(dict.fromkeys(step if isinstance(step, tuple) else (step,)))
        return self.selection.takes(self.parts[-1])

    def _keep_dense(self, source: Recomputed) -> None:
        step, branch = step_of(self.arguments), looking(branch_of(self.arguments), source.shape[0])
        self._keep(AttentionMap.recomputed(source, self.parts[-1], step, branch))

    def _keep_edges(self, layer: nn.Module, edge_index: Any, size: tuple[int, int], weights: Tensor) -> None:
        weights = weights.detach().clone()
        columns = propagated(edge_index).detach().clone()
        step, branch = step_of(self.arguments), branch_of(self.arguments)
        flow = getattr(layer, "flow", "source_to_target")
        self._keep(AttentionMap(weights, self.parts[-1], columns, size, flow, step, branch))

    def _keep(self, attention: AttentionMap) -> None:
        part = self.selection.part(attention)
        if part is None:
            return
        kept = self.reduce(part) if self.reduce else part
        if isinstance(kept, AttentionMap):
            kept._settle()
            kept._close()
        if kept is not None:
            self.maps.append(kept)
        part._close()


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
    if watch.mixing:
        return (
            f"nothing captured: the softmax in {', '.join(sorted(watch.mixing))} weighs parts of one message (heads, "
            "each with its own matrix), so it adds up to 1 on every edge and says nothing of neighbours; ask "
            "Gradient, Occlusion, Shapley or Mask about edges"
        )
    if not watch.summed and not any(_may_hide(part) for part in watch.net.modules()):
        return (
            f"nothing captured: {name} has no attention that could be captured, as nothing in its forward is weighed "
            "by a softmax; weights of a kernel are said, attention={layer: function (layer, *inputs) -> weights}, and "
            "Shapley, Lime, Occlusion and Gradient explain any model"
        )
    return (
        f"nothing captured: {name} ran, but called neither scaled_dot_product_attention, nn.MultiheadAttention nor "
        "torch_geometric's GATConv, GATv2Conv or TransformerConv, and summed over no softmax whose rows add up to 1; "
        "attention by kernels or in scripted modules cannot be seen: say its weights, attention={layer: function "
        "(layer, *inputs) -> weights}, or let the model use scaled_dot_product_attention; of a graph network "
        "explain.analysis.diffusivity reads them too, also with signs, as SGFormer's"
    )


def _may_hide(part: nn.Module) -> bool:
    """Whether a module may hold an attention that no torch function tells of: scripted, or one by its name."""
    return isinstance(part, torch.jit.ScriptModule) or "att" in type(part).__name__.lower()
