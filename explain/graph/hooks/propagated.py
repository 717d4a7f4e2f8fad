"""Which edges of a graph a layer propagates: found again by their ends and order, as layers move and join them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from explain.graph.tensors.structure import EdgeType, Structure
from explain.types import Unsupported


def edges_of(propagated: Any, graph: Structure, layer: str) -> Tensor:
    """The flat number of each edge that a layer propagates, -1 for a loop of its own; int64 ``[E']``.

    A layer propagates all edges of a type; those of one relation, named by ``edge_type``; or all types side by side,
    each moved to where its nodes begin (HGT). Loops may be moved to the end, and added.

    Args:
        propagated: what it is given, ``[2, E']``.
        graph: the graph that the forward was given.
        layer: its name, which may hold an edge type (HeteroConv, ``to_hetero``).

    Raises:
        Unsupported: no tensor of pairs; edges that are rearranged otherwise; several types with the same edges, and a
            layer without the name of one.
    """
    return _edges_of(propagated, graph, layer)[1]


def typed_edges_of(propagated: Any, graph: Structure, layer: str) -> tuple[int | None, Tensor, Tensor]:
    """The same after the number of their type, None for all side by side; then their ends, flat, also of own loops."""
    kind, places = _edges_of(propagated, graph, layer)
    if kind is None:
        return None, places, graph.flat_edges[:, places]
    starts = [graph.node_starts[kind[0]], graph.node_starts[kind[2]]]
    ends = propagated + torch.tensor(starts, device=propagated.device)[:, None]
    return list(graph.edges).index(kind), places, ends


def _edges_of(propagated: Any, graph: Structure, layer: str) -> tuple[EdgeType | None, Tensor]:
    """The type of the edges, None for all side by side, and their flat numbers.

    Raises:
        Unsupported: see `edges_of`.
    """
    if not isinstance(propagated, Tensor) or propagated.layout != torch.strided:
        raise Unsupported(
            "messages can be told apart where edge_index is a [2, edges] tensor, got a sparse matrix: use Shapley or "
            'Lime with removal="delete"'
        )
    named = [kind for kind in graph.edges if _is_named(kind, layer)]
    found = list(_found(propagated, graph, named))
    if not found and named:  # a name that says something else
        found = list(_found(propagated, graph, list(graph.edges)))
    if not found and len(graph.edges) > 1 and _joined(propagated, graph):
        return None, torch.arange(graph.num_edges, device=propagated.device)
    if not found:
        raise Unsupported(
            "a layer rearranges its edges, so their messages cannot be told apart: "
            'use Shapley or Lime with removal="delete"'
        )
    if any(not torch.equal(found[0][1], other) for _, other in found[1:]):
        raise Unsupported(
            f"several types of edges join the same nodes in the same order, so the messages of {layer or 'a layer'} "
            'cannot be told apart: list the edges of one type in another order, or use removal="delete"'
        )
    return found[0]


def _found(propagated: Tensor, graph: Structure, kinds: list[EdgeType]) -> Iterator[tuple[EdgeType, Tensor]]:
    """What the edges may be, of one type or of one relation of it."""
    for kind in kinds or graph.edges:
        stored, start = graph.edges[kind], graph.edge_starts[kind]
        for chosen in _selections(graph, kind, stored):
            places = _matched(propagated, stored[:, chosen], bipartite=kind[0] != kind[2])
            if places is not None:
                yield kind, torch.where(places < 0, -1, start + chosen[places.clamp_min(0)]) if len(chosen) else places
                if len(chosen) == stored.size(1):  # no relation of it has other ones
                    break


def _selections(graph: Structure, kind: EdgeType, stored: Tensor) -> Iterator[Tensor]:
    """All edges of a type, then the edges of one relation, as relational layers propagate them."""
    yield torch.arange(stored.size(1), device=stored.device)
    relation = graph.edge_fields[kind].get("edge_type")
    if relation is not None:
        for value in relation.unique():
            yield (relation == value).nonzero().view(-1)


def _matched(propagated: Tensor, stored: Tensor, bipartite: bool) -> Tensor | None:
    """The column of ``stored`` that each propagated edge is, -1 for a loop that it does not have; None where others."""
    if torch.equal(propagated, stored):
        return torch.arange(stored.size(1), device=stored.device)
    if bipartite:
        return None
    moved, kept = propagated[0] == propagated[1], stored[0] == stored[1]
    if not torch.equal(propagated[:, ~moved], stored[:, ~kept]):
        return None
    places = torch.full((propagated.size(1),), -1, device=stored.device)
    places[~moved] = (~kept).nonzero().view(-1)
    if kept.any():  # a stored loop may have been moved: it is found by its node
        by_node = torch.full((int(max(propagated.max(), stored.max())) + 1,), -1, device=stored.device)
        by_node[stored[0, kept]] = kept.nonzero().view(-1)
        places[moved] = by_node[propagated[0, moved]]
    return places


def _joined(propagated: Tensor, graph: Structure) -> bool:
    """Whether these are all types one after the other, each moved as a whole, and targets of one type alike."""
    if propagated.size(1) != graph.num_edges:
        return False
    moved: dict[str, int] = {}
    for kind, stored in graph.edges.items():
        start, count = graph.edge_starts[kind], stored.size(1)
        if not count:
            continue
        shift = propagated[:, start : start + count] - stored
        if bool((shift != shift[:, :1]).any()) or moved.setdefault(kind[2], int(shift[1, 0])) != int(shift[1, 0]):
            return False
    return True


def _is_named(kind: EdgeType, layer: str) -> bool:
    """Whether a part of a layer's name is an edge type, as torch_geometric writes it."""
    joined = "__".join(kind)
    for strange in " -:":
        joined = joined.replace(strange, "_")
    return bool({f"<{'___'.join(kind)}>".replace(".", "#"), "__".join(kind), joined} & {*layer.split(".")})
