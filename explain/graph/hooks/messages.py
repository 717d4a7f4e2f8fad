"""The ``message`` removal: scale an edge's messages in every layer, after normalisation and softmax."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from explain.graph.tensors.structure import Copies, Structure
from explain.types import Unsupported


@contextmanager
def scaled_messages(module: nn.Module, graph: Structure, amounts: Tensor) -> Iterator[None]:
    """Within: the message over each edge of ``graph`` is multiplied by ``amounts [E]`` (flat edge numbers).

    Loops that a layer adds for itself keep the amount 1: they are the node's own voice. Edges are found again by their
    ends and their order, never by position alone, since layers move stored self-loops.

    Raises:
        Unsupported: the module has no message-passing layers, or one that rearranges its edges.
    """
    layers = [part for part in module.modules() if isinstance(part, MessagePassing)]
    if not layers:
        raise Unsupported(
            'removal="message" needs torch_geometric message-passing layers: use Shapley or Lime with removal="delete"'
        )
    factors: dict[MessagePassing, Tensor] = {}

    def remember(layer: MessagePassing, arguments: tuple) -> None:
        factors[layer] = _factors(arguments[0], graph, amounts)

    def multiply(layer: MessagePassing, _: tuple, messages: Tensor) -> Tensor:
        factor = factors[layer].to(messages.dtype)
        edge_dim = 0 if messages.size(0) == len(factor) else messages.dim() - 2
        shape = [1] * messages.dim()
        shape[edge_dim] = len(factor)
        return messages * factor.view(shape)

    handles = [layer.register_propagate_forward_pre_hook(remember) for layer in layers]
    handles += [layer.register_message_forward_hook(multiply) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _factors(propagated: Tensor, graph: Structure, amounts: Tensor) -> Tensor:
    """The amount of every propagated edge.

    Raises:
        Unsupported: edges that are no tensor of pairs, or that a layer rearranges.
    """
    if not isinstance(propagated, Tensor) or propagated.layout != torch.strided:
        raise Unsupported(
            'removal="message" needs edge_index as a [2, edges] tensor: use Shapley or Lime with removal="delete"'
        )
    for kind, stored in graph.edges.items():
        start = graph.edge_starts[kind]
        own = amounts[start : start + stored.size(1)]
        for chosen in _selections(graph, kind, stored):
            factors = _matched(propagated, stored[:, chosen], own[chosen], bipartite=kind[0] != kind[2])
            if factors is not None:
                return factors
    raise Unsupported(
        "a layer rearranges its edges, so their messages cannot be told apart: "
        'use Shapley or Lime with removal="delete"'
    )


def _selections(graph: Structure, kind: tuple, stored: Tensor) -> Iterator[Tensor]:
    """All edges of a type, then the edges of one relation, as relational layers propagate them."""
    yield torch.arange(stored.size(1), device=stored.device)
    relation = graph.edge_fields[kind].get("edge_type")
    if relation is not None:
        for value in relation.unique():
            yield (relation == value).nonzero().view(-1)


def _matched(propagated: Tensor, stored: Tensor, amounts: Tensor, bipartite: bool) -> Tensor | None:
    if torch.equal(propagated, stored):
        return amounts
    if bipartite:
        return None
    moved, kept = propagated[0] == propagated[1], stored[0] == stored[1]
    if not torch.equal(propagated[:, ~moved], stored[:, ~kept]):
        return None
    factors = torch.ones(propagated.size(1), dtype=amounts.dtype, device=amounts.device)
    factors = factors.masked_scatter(~moved, amounts[~kept])
    if kept.any():  # a stored loop may have been moved: its amount is found by its node
        by_node = torch.ones(int(max(propagated.max(), stored.max())) + 1, dtype=amounts.dtype, device=amounts.device)
        by_node = by_node.index_put((stored[0, kept],), amounts[kept])
        factors = factors.masked_scatter(moved, by_node[propagated[0, moved]])
    return factors


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
