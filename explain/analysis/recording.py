"""One forward, written down: what each layer was given and gave, and what it propagated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing


@dataclass(frozen=True, eq=False)
class Propagation:
    """One call of a layer's ``propagate`` and what came of it."""

    edge_index: Any
    size: Any
    arguments: dict[str, Any]
    result: Tensor


@dataclass(eq=False)
class LayerCall:
    """One call of a module: its arguments, the first states ``[nodes, columns]`` among them, and those it gave."""

    name: str
    layer: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    before: Tensor | None = None
    after: Tensor | None = None
    propagations: list[Propagation] = field(default_factory=list)


@contextmanager
def recorded(net: nn.Module, nodes: int) -> Iterator[list[LayerCall]]:
    """Within: every call of a module of ``net``, in the order in which they end; states are copies."""
    done: list[LayerCall] = []
    running: list[LayerCall] = []

    def enter(name: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
        given = (*args, *kwargs.values())
        running.append(LayerCall(name, layer, args, kwargs, next(_states(given, nodes), None)))

    def leave(layer: nn.Module, args: Any, output: Any) -> None:
        call = running.pop()
        call.after = next(_states((output,), nodes), None)
        done.append(call)

    def propagated(layer: MessagePassing, inputs: Any, output: Any) -> None:
        if running and running[-1].layer is layer and isinstance(output, Tensor):
            edge_index, size, arguments = inputs
            running[-1].propagations.append(Propagation(edge_index, size, arguments, output.detach().clone()))

    with ExitStack() as undo:
        for name, part in net.named_modules():
            before = partial(enter, name or type(net).__name__)
            undo.callback(part.register_forward_pre_hook(before, with_kwargs=True).remove)
            undo.callback(part.register_forward_hook(leave).remove)
            if isinstance(part, MessagePassing):
                undo.callback(part.register_propagate_forward_hook(propagated).remove)
        yield done


def _states(values: Any, nodes: int) -> Iterator[Tensor]:
    """The tensors of real numbers with a row a node, as matrices; a batch of one graph counts."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _states(value, nodes)
        elif isinstance(value, Tensor) and value.is_floating_point() and not value.is_sparse:
            rows = value[0] if value.dim() == 3 and value.size(0) == 1 else value
            if rows.dim() > 1 and len(rows) == nodes:
                yield rows.detach().flatten(1).clone()


@torch.no_grad()
def mixes(call: LayerCall, nodes: int) -> bool:
    """Whether a row of a layer's output hangs on the other rows of its states: half of them are exchanged, then half.

    The rows that stay must give what they gave. States stand in the first tensor ``[nodes, columns]`` that it is given.
    """
    if call.before is None or call.after is None or nodes < 2:
        return False
    scale = call.after.abs().max().clamp_min(1e-12)
    for half in (0, 1):
        moved = torch.arange(half, nodes, 2)
        kept = torch.arange(1 - half, nodes, 2)
        args, kwargs = _exchanged(call, moved, nodes)
        after = next(_states((call.layer(*args, **kwargs),), nodes))
        if float((after[kept] - call.after[kept]).abs().max() / scale) > 1e-4:
            return True
    return False


def _exchanged(call: LayerCall, moved: Tensor, nodes: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with other numbers in these rows of the states: their neighbours in the order, and turned over."""
    seen = False

    def change(value: Any) -> Any:
        nonlocal seen
        if seen or not isinstance(value, Tensor) or next(_states((value,), nodes), None) is None:
            return value
        seen = True
        other = value.clone()
        rows = other[0] if other.dim() == 3 and other.size(0) == 1 else other
        rows[moved] = 1 - rows[moved].roll(1, 0)
        return other

    args = tuple(change(value) for value in call.args)
    return args, {name: change(value) for name, value in call.kwargs.items()}
