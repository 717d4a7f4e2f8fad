"""Who owns the edges and nodes of a graph with types, and which of them a layer propagates."""

from __future__ import annotations

import torch

from explain.graph.hooks.propagated import typed_edges_of
from explain.graph.number import GraphNumber
from explain.graph.players.kinds import ATOMS, owners
from explain.graph.tensors.cuts import whole
from explain.types import Players, TypedEdges, Unsupported


def typed_edges(number: GraphNumber, players: Players) -> TypedEdges | None:
    """The edges of the whole graph where it has types, or where relations play; None of all others.

    Raises:
        Unsupported: players that own neither edges nor nodes.
    """
    graph = number.graph
    if len(graph.counts) == len(graph.edges) == 1 and players.kind != "relations":
        return None
    if ATOMS.get(players.kind, players.kind) not in ("edges", "nodes"):
        raise Unsupported(f"maps run along edges between nodes, and {players.kind} are neither")
    owner = owners(players, whole(graph, number.focus), graph)
    kinds = list(graph.counts)
    return TypedEdges(
        graph.num_nodes,
        torch.where(owner == len(players), -1, owner),
        tuple(kinds.index(target) for _, _, target in graph.edges),
        lambda layer, propagated: typed_edges_of(propagated, graph, layer),
    )
