"""Which players are near each node: what exact values by locality need to know of a graph."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from explain.graph.tensors.structure import Structure


def neighbourhoods(graph: Structure, owner: Tensor, players: int) -> Iterator[list[Tensor]]:
    """For 0, 1, 2, ... hops, the players with a node within that many hops of each node, until they grow no more.

    Args:
        graph: where coalitions are evaluated; the direction of its edges does not matter.
        owner: int64 ``[nodes]``, the player of each node, ``players`` where it has none.
        players: how many there are.

    >>> from explain.graph.tensors.structure import EDGE
    >>> path = Structure({"": 3}, {"": {}}, {EDGE: torch.tensor([[0, 1], [1, 2]])}, {EDGE: {}}, {})
    >>> for near in neighbourhoods(path, torch.arange(3), 3):
    ...     print([players.tolist() for players in near])
    [[0], [1], [2]]
    [[0, 1], [0, 1, 2], [1, 2]]
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    owners = owner.tolist()
    beside: list[set[int]] = [set() for _ in owners]
    for source, target in graph.flat_edges.t().tolist():
        beside[source].add(target)
        beside[target].add(source)
    within = [{node} for node in range(len(owners))]
    while True:
        yield [torch.tensor(sorted({owners[node] for node in near} - {players}), dtype=torch.long) for near in within]
        grown = [near.union(*(within[node] for node in beside[at])) for at, near in enumerate(within)]
        if grown == within:
            return
        within = grown
