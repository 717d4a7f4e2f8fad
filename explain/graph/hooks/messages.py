"""The ``message`` removal: scale an edge's messages in every layer, after normalisation and softmax."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from explain.graph.hooks.propagated import edges_of
from explain.graph.tensors.structure import Copies, Structure
from explain.types import Unsupported


@contextmanager
def scaled_messages(module: nn.Module, graph: Structure, amounts: Tensor) -> Iterator[None]:
    """Within: the message over each edge of ``graph`` is multiplied by ``amounts [E]`` (flat edge numbers).

    Loops that a layer adds for itself keep the amount 1: they are the node's own voice. Edges are found again by their
    ends and their order, see `edges_of`, never by position alone, since layers move stored self-loops.

    Raises:
        Unsupported: the module has no message-passing layers, or one that rearranges its edges.
    """
    layers = {part: name for name, part in module.named_modules() if isinstance(part, MessagePassing)}
    if not layers:
        raise Unsupported(
            'removal="message" needs torch_geometric message-passing layers: use Shapley or Lime with removal="delete"'
        )
    factors: dict[MessagePassing, Tensor] = {}
    padded = torch.cat([amounts, amounts.new_ones(1)])  # -1, a loop of the layer's own, is the 1 at the end

    def remember(name: str, layer: MessagePassing, arguments: tuple) -> None:
        factors[layer] = padded[edges_of(arguments[0], graph, name)]

    def multiply(layer: MessagePassing, _: tuple, messages: Tensor) -> Tensor:
        factor = factors[layer].to(messages.dtype)
        edge_dim = 0 if messages.size(0) == len(factor) else messages.dim() - 2
        shape = [1] * messages.dim()
        shape[edge_dim] = len(factor)
        return messages * factor.view(shape)

    handles = [layer.register_propagate_forward_pre_hook(partial(remember, name)) for layer, name in layers.items()]
    handles += [layer.register_message_forward_hook(multiply) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def scaled_in_copies(module: nn.Module, graph: Structure, made: Copies, amounts: Tensor | None) -> Iterator[None]:
    """Within: the messages in copies of a graph are multiplied by ``amounts [copies, E]``; with None they are not."""
    if amounts is None:
        yield
        return
    parameter = next(module.parameters(), torch.zeros(()))
    with scaled_messages(module, made.structure, _by_type(graph, amounts.to(parameter.dtype))):
        yield


def _by_type(graph: Structure, amounts: Tensor) -> Tensor:
    """Amounts ``[copies, E]`` in the order in which copies number their edges: type by type, then copy by copy."""
    starts = [(graph.edge_starts[kind], edges.size(1)) for kind, edges in graph.edges.items()]
    return torch.cat([amounts[:, start : start + size].reshape(-1) for start, size in starts])
