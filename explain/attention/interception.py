"""Stand between a network and its attention: every softmax attention that it computes comes past here.

Dense attention is met by a `TorchFunctionMode`: it sees ``scaled_dot_product_attention`` under whatever name a model
bound it to, belongs to this thread alone and disappears with its context. Graph convolutions are met by
torch_geometric's own propagate hooks; what is written out is followed from its softmax on (`written_out`). All act only
while a forward of the network, or of a part of it, is running.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch_geometric.nn import GATConv, GATv2Conv, MessagePassing, TransformerConv
from torch_geometric.utils import is_sparse, to_edge_index

from explain.attention.written_out import Weighed, WrittenOut, alike, replaced, shares

CONVOLUTIONS = (GATConv, GATv2Conv, TransformerConv)
_SCALED_DOT_PRODUCT = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")  # a builtin without a signature
_MULTI_HEAD = tuple(inspect.signature(F.multi_head_attention_forward).parameters)


class Interception(TorchFunctionMode):
    """Base of `capture` and `uniform`: overrides say what happens at each attention; the default lets it pass.

    ``parts`` names the modules of the network that are running, outermost first, without torch's own layers that never
    attend; ``ran`` those that ever did, ``called`` tells whether any;
    ``arguments`` are those of the network's own call, by name, empty while only a part of it runs. Every torch function
    comes past here, so what is asked of each is little: `passed` is told of those that are no attention as long as the
    interception is ``curious``.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.parts: list[str] = []
        self.ran: set[str] = set()
        self.arguments: dict[str, Any] = {}
        self.curious = False
        self.quiet = False  # while somebody else computes within the network
        self.written: WrittenOut | None = None  # where what is written out is followed
        self.propagating: list[tuple[MessagePassing, Any, tuple[int, int]]] = []
        self.mixing: set[str] = set()  # layers whose softmax weighs the parts of one message

    @property
    def called(self) -> bool:
        """Whether any part of the network ran."""
        return bool(self.ran)

    def scaled_dot_product(self, arguments: dict[str, Any]) -> Tensor:
        """``F.scaled_dot_product_attention(**arguments)``."""
        return F.scaled_dot_product_attention(**arguments)

    def multi_head(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """``F.multi_head_attention_forward(**arguments)``, which `nn.MultiheadAttention` ends in."""
        return F.multi_head_attention_forward(**arguments)

    def weighed(self, found: Weighed) -> bool:
        """At a product that sums over softmax weights: whether they are to be `Weighed.uniform` in it."""
        return False

    def passed_along(self, layer: MessagePassing, edge_index: Any, size: tuple[int, int], weights: Tensor) -> bool:
        """At softmax weights over the edges into each node: whether they are to be `alike` instead."""
        return False

    def passed(self, func: Callable[..., Any]) -> None:
        """Before a torch function that is no attention, within the network, as long as this is ``curious``."""

    def before_propagate(self, layer: MessagePassing, inputs: tuple[Any, Any, dict[str, Any]]) -> Any:
        """Before messages are sent: ``(edge_index, size, arguments)``, or None to leave them as they are."""
        return None

    def after_propagate(self, layer: MessagePassing, inputs: tuple[Any, Any, dict[str, Any]]) -> None:
        """After messages were sent."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.quiet:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention and self.parts:
            return self.scaled_dot_product(dict(zip(_SCALED_DOT_PRODUCT, args, strict=False), **kwargs))
        if func is F.multi_head_attention_forward and self.parts:
            return self.multi_head(dict(zip(_MULTI_HEAD, args, strict=False), **kwargs))
        if self.curious and self.parts:
            self.passed(func)
        if self.written is not None and self.parts and (kind := self.written.may_follow(func)) is not None:
            return self._followed(self.written, kind, func, args, kwargs)
        return func(*args, **kwargs)

    def _followed(
        self, written: WrittenOut, kind: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """A function that may be a part of attention written out."""
        if kind in ("product", "einsum", "sum"):
            if kind == "sum" and "dim" in kwargs:
                args, kwargs = (args[0], kwargs["dim"]), {k: v for k, v in kwargs.items() if k != "dim"}
            found = written.weighed(kind, args) if written.weights else None
            if found is not None and not self._mixed(found) and self.weighed(found):
                return func(*replaced(kind, args, found.place, found.uniform()), **kwargs)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        written.follow(kind, func, args, kwargs, result)
        if kind == "divided" and self.propagating and written.clean(result) is not None:
            return self._along(*self.propagating[-1], result)
        return result

    def _mixed(self, found: Weighed) -> bool:
        """Whether each edge's message weighs parts of its own, as FeaStConv its heads: no attention over neighbours."""
        if not self.propagating or not found.one_row:
            return False
        edges = propagated(self.propagating[-1][1]).size(1)
        mixed = found.weights.size(0) == edges and found.keys % found.weights.dim() != 0
        if mixed:
            self.mixing.add(self.parts[-1])
        return mixed

    def _along(self, layer: MessagePassing, edge_index: Any, size: tuple[int, int], weights: Tensor) -> Tensor:
        """Weights over the edges that are being propagated, or what stands for them."""
        target = propagated(edge_index)[1 if layer.flow == "source_to_target" else 0]
        known = len(weights) == len(target) and shares(weights, target)
        return alike(weights, target) if known and self.passed_along(layer, edge_index, size, weights) else weights

    def _before_other(self, edge_index: Any, size: Any, arguments: dict[str, Any]) -> Any:
        """Softmax weights among what a layer of another kind propagates."""
        if self.written is None:
            return None
        given = {}
        for name, value in arguments.items():
            clean = self.written.clean(value)
            if clean is not None and (now := self._along(*self.propagating[-1], clean)) is not clean:
                given[name] = now
        return (edge_index, size, arguments | given) if given else None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Within: everything is met. After: hooks and torch's fast path setting as before, also after an exception."""
        fastpath = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as undo:
            for handle in self._watch_arguments():
                undo.callback(handle.remove)
            for handle in self._watch_parts():
                undo.callback(handle.remove)
            undo.callback(torch.backends.mha.set_fastpath_enabled, fastpath)
            torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer would pass unseen
            with self:
                yield

    def _watch_arguments(self) -> Iterator[Any]:
        owner = threading.get_ident()

        def enter(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if threading.get_ident() == owner:
                self.arguments = by_name(net, args, kwargs)

        def leave(*_: Any) -> None:
            if threading.get_ident() == owner:
                self.arguments = {}

        yield self.net.register_forward_pre_hook(enter, with_kwargs=True)
        yield self.net.register_forward_hook(leave, always_call=True)

    def _watch_parts(self) -> Iterator[Any]:
        owner = threading.get_ident()
        whole = type(self.net).__name__

        def enter(name: str, *_: Any) -> None:
            if threading.get_ident() == owner and not self.quiet:
                self.ran.add(name)
                self.parts.append(name)

        def leave(*_: Any) -> None:
            if threading.get_ident() == owner and self.parts and not self.quiet:
                self.parts.pop()

        def before(layer: MessagePassing, inputs: Any) -> Any:
            if not self.parts or self.quiet or threading.get_ident() != owner:
                return None
            if isinstance(layer, CONVOLUTIONS):
                return self.before_propagate(layer, inputs)
            edge_index, size, arguments = inputs
            self.propagating.append((layer, edge_index, _ends(edge_index, size, arguments)))
            return self._before_other(*inputs)

        def after(layer: MessagePassing, inputs: Any, output: Tensor) -> None:
            if not self.parts or self.quiet or threading.get_ident() != owner:
                return
            if isinstance(layer, CONVOLUTIONS):
                self.after_propagate(layer, inputs)
            elif self.propagating:
                self.propagating.pop()

        for name, part in self.net.named_modules():
            if name and _never_attends(part):
                continue
            yield part.register_forward_pre_hook(partial(enter, name or whole))
            yield part.register_forward_hook(leave, always_call=True)
            if isinstance(part, MessagePassing):
                yield part.register_propagate_forward_pre_hook(before)
                yield part.register_propagate_forward_hook(after)


def _ends(edge_index: Any, size: Any, arguments: dict[str, Any]) -> tuple[int, int]:
    """How many nodes send and receive: as the layer says, as it is given rows, or up to the last with an edge."""
    if size is not None and None not in tuple(size):
        return int(size[0]), int(size[1])
    columns = propagated(edge_index)
    for value in arguments.values():
        pair = value if isinstance(value, tuple) else (value, value)
        rows = len(pair) == 2 and all(isinstance(one, Tensor) and one.dim() > 1 for one in pair)
        if rows and (isinstance(value, tuple) or len(value) != columns.size(1)):
            return len(pair[0]), len(pair[1])
    sent, received = (columns.max(1).values + 1).tolist() if columns.numel() else (0, 0)
    return sent, received


def _never_attends(part: nn.Module) -> bool:
    """Whether a part is one of torch's own layers without attention: most of a network, and each hook costs a call."""
    home = type(part).__module__
    attends = isinstance(part, nn.MultiheadAttention) or home.endswith("transformer")
    return home.startswith("torch.nn.modules.") and not attends


def attends(part: nn.Module) -> bool:
    """Whether a module is likely to compute attention itself: one by its name that holds no other."""
    inner = any("att" in type(other).__name__.lower() for other in part.modules() if other is not part)
    return isinstance(part, CONVOLUTIONS) or ("att" in type(part).__name__.lower() and not inner)


def by_name(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names in the signature of ``net.forward``; without one, those given by name."""
    try:
        return {**inspect.signature(net.forward).bind_partial(*args, **kwargs).arguments, **kwargs}
    except (TypeError, ValueError):  # scripted modules have no signature
        return dict(kwargs)


def propagated(edge_index: Any) -> Tensor:
    """``edge_index [2, E']`` of what a layer propagates: also of an (already transposed) sparse adjacency."""
    if is_sparse(edge_index):
        return to_edge_index(edge_index)[0].flip(0)
    return edge_index.as_subclass(Tensor)
