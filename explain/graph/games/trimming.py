"""What of a coalition's graph can reach the explained nodes: the rest need not be evaluated, nor evaluated twice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from explain.graph.tensors.cuts import Place


class Relevant(NamedTuple):
    """The part of each copy that matters: bool ``edge_keep [copies, E]``, ``node_keep [copies, N]``."""

    edge_keep: Tensor
    node_keep: Tensor

    def at(self, copies: Tensor) -> Relevant:
        """Some of the copies."""
        return Relevant(self.edge_keep[copies], self.node_keep[copies])

    def sizes(self) -> Tensor:
        """Nodes and edges of each copy, int64 ``[copies]``."""
        return self.edge_keep.sum(1) + self.node_keep.sum(1)


def relevant(place: Place, edge_keep: Tensor, degrees: bool = True) -> Relevant:
    """The edges into nodes that still reach an explained one within the receptive field, and the nodes at them.

    The argument of the cut, on each coalition's own graph. Nodes at the far end of an edge stay: degrees count them.
    ``degrees=False`` leaves out the edges into the farthest nodes, which are there for those nodes' degrees alone.
    """
    graph, kept = place.graph, edge_keep.t().float()
    source, target = graph.flat_edges
    inner = place.reachable.nonzero().view(-1)
    reached = kept.new_zeros(graph.num_nodes, len(edge_keep))
    reached[place.flat_focus().to(reached.device)] = 1
    near, ends = kept[inner], (source[inner], target[inner])
    counted = reached
    for _ in range(place.checks["hops"]):
        counted = reached
        carried = near * reached.index_select(0, ends[1])
        reached = reached.index_add(0, ends[0], carried).clamp_(max=1)
    edges = kept * (reached if degrees else counted).index_select(0, target)
    nodes = reached.index_add(0, source, edges) > 0
    return Relevant((edges > 0).t(), nodes.t())


def distinct(copies: Relevant) -> tuple[Tensor, Tensor]:
    """One copy of each kind, by number, and for every copy the place of its kind among those."""
    return distinct_columns(copies.edge_keep.t())


def distinct_columns(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first column of each kind of bool ``[rows, columns]``, and for every column the place of its kind."""
    packed = np.packbits(np.pad(rows.cpu().numpy(), ((0, 1), (0, 0))), axis=0)  # one byte at least
    keys = np.ascontiguousarray(packed.T).view(np.dtype((np.void, len(packed)))).reshape(-1)
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    return torch.from_numpy(first).to(rows.device), torch.from_numpy(place).to(rows.device)


def parts(sizes: Tensor, budget: int) -> list[Tensor]:
    """Copies in groups, large with large, of at most this size together (or one copy)."""
    order = sizes.argsort(descending=True)
    group = (sizes[order].cumsum(0) - 1) // max(budget, 1)
    return list(order.split(torch.unique_consecutive(group, return_counts=True)[1].tolist()))
