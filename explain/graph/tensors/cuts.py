"""Parts of a graph: the least one that answers for a node as the whole graph does, its computation graph, is a cut.

The cut keeps every node within the receptive field *and every edge into it*, whose far ends become one stand-in node:
degrees on the boundary stay what they were, so a GCN normalises in the cut as it does in the whole graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.graph.tensors.structure import EdgeType, Fields, Structure

Focus: TypeAlias = tuple[tuple[str, int], ...]  # (node type, number within the type) of each explained node
Direction: TypeAlias = Literal["in", "out", "both"]
_PAIRS = 2**17  # numbers of a matrix of all pairs in one pass: its zeros between copies are computed with, too
FAR = torch.iinfo(torch.int32).max  # no path


class Reach(NamedTuple):
    """A receptive field: ``hops`` along a ``direction``.

    ``measured``: whether a node lies farther away. Else the hops are those of the longest path that there may be.
    """

    hops: int
    direction: Direction
    measured: bool = True


@dataclass(frozen=True, eq=False)
class Place:
    """Where coalitions are evaluated: a cut, or the whole graph.

    ``nodes [n]``, ``edges [e]``: the flat number in the whole graph of each node and edge here, -1 for stand-ins.
    ``reachable [e]``: edges that can carry a message to the explained nodes. ``degrees [e]``: others whose removal
    changes the answer all the same, as they count in a degree; None for none. ``together``: whether several copies may
    share one forward pass. ``squares``: numbers of one copy that grow with the square of the copies in it. ``smaller``:
    whether an absent node leaves with its row, "delete" being the model on the smaller graph. ``checks``: what was
    measured while it was chosen.
    """

    graph: Structure
    focus: Focus
    nodes: Tensor
    edges: Tensor
    reachable: Tensor
    degrees: Tensor | None = None
    together: bool = True
    squares: int = 0
    smaller: bool = False
    checks: dict[str, Any] = field(default_factory=dict)

    def copies_at_once(self, nodes: int) -> int | None:
        """Copies of so many nodes in one pass that makes a matrix of all pairs of them; None where it does not."""
        if not self.squares:
            return None
        return max(1, int((_PAIRS / self.squares) ** 0.5 * self.graph.num_nodes / max(nodes, 1)))

    @property
    def matters(self) -> Tensor:
        """Edges whose removal can change the answer, bool ``[e]``."""
        return self.reachable if self.degrees is None else self.reachable | self.degrees

    def flat_focus(self) -> Tensor:
        """Flat numbers, in this place, of the explained nodes."""
        return torch.tensor([self.graph.node_starts[kind] + number for kind, number in self.focus], dtype=torch.long)


def whole(graph: Structure, focus: Focus) -> Place:
    """The whole graph as a place; every edge counts as reachable."""
    device = graph.flat_edges.device
    nodes = torch.arange(graph.num_nodes, device=device)
    edges = torch.arange(graph.num_edges, device=device)
    return Place(graph, focus, nodes, edges, torch.ones(graph.num_edges, dtype=torch.bool, device=device))


def hop_distance(graph: Structure, focus: Tensor, direction: Direction, most: int | None = None) -> Tensor:
    """Hops from each node to the nearest explained one along the messages, int32 ``[N]``; very large without a path.

    Nodes are visited hop by hop, to ``most`` hops: what is farther away costs nothing.
    """
    source, target = graph.flat_edges
    distance = torch.full((graph.num_nodes,), FAR, dtype=torch.int32, device=source.device)
    distance[focus] = 0
    border = focus.unique()
    for hop in range(1, (graph.num_nodes if most is None else most) + 1):
        near = []
        if direction in ("in", "both"):
            near.append(source[graph.into.at(border)])
        if direction in ("out", "both"):
            near.append(target[graph.out_of.at(border)])
        found = torch.cat(near)
        border = found[distance[found] == FAR].unique()
        if not len(border):
            break
        distance[border] = hop
    return distance


def cut(
    graph: Structure, focus: Focus, hops: int, direction: Direction, stranger: bool = False, far: bool = False
) -> Place:
    """The part of the graph that a model with this receptive field needs, boundary degrees kept.

    ``stranger``: a stand-in of each type even where no edge leads to one, to see whether the model looks that far.
    ``far``: no stand-ins, but the far ends of edges into the boundary as they are.
    """
    flat = torch.tensor([graph.node_starts[kind] + number for kind, number in focus], device=graph.flat_edges.device)
    distance = hop_distance(graph, flat, direction, hops)
    inside = (distance <= hops).nonzero().view(-1)
    chosen = _edges_at(graph, inside, direction)
    source, target = distance[graph.flat_edges[:, chosen]]
    carries = {"in": target, "out": source, "both": torch.minimum(source, target)}[direction] < hops
    touched = graph.flat_edges[:, chosen].reshape(-1)
    outside = touched[distance[touched] > hops].unique()
    counts, nodes, number, origin = {}, {}, torch.full_like(distance, -1), []
    for kind, size in graph.counts.items():
        start = graph.node_starts[kind]
        kept, beyond = (part[(part >= start) & (part < start + size)] for part in (inside, outside))
        number[kept] = torch.arange(len(kept), dtype=number.dtype, device=kept.device)
        number[beyond] = len(kept) + (torch.arange(len(beyond), dtype=number.dtype, device=kept.device) if far else 0)
        if stranger and not len(beyond) and len(kept) < size:
            beyond = start + (distance[start : start + size] > hops).int().argmax().view(1)
        beyond = beyond if far else beyond[:1]  # a stand-in holds one far node's values, which do not matter
        rows = torch.cat([kept, beyond])
        counts[kind] = len(rows)
        nodes[kind] = {name: value[rows - start] for name, value in graph.nodes[kind].items()}
        origin.append(torch.cat([kept, beyond if far else torch.full_like(beyond, -1)]))
    edges, edge_fields = _cut_edges(graph, chosen, number)
    small = replace(graph, counts=counts, nodes=nodes, edges=edges, edge_fields=edge_fields)
    here = tuple((kind, int(number[graph.node_starts[kind] + i])) for kind, i in focus)
    return Place(small, here, torch.cat(origin), chosen, carries)


def _edges_at(graph: Structure, inside: Tensor, direction: Direction) -> Tensor:
    """The edges that a layer reads for these nodes, flat numbers in order."""
    if direction == "both":
        return torch.cat([graph.into.at(inside), graph.out_of.at(inside)]).unique()
    return (graph.into if direction == "in" else graph.out_of).at(inside).sort().values


def _cut_edges(
    graph: Structure, chosen: Tensor, number: Tensor
) -> tuple[dict[EdgeType, Tensor], dict[EdgeType, Fields]]:
    edges, edge_fields = {}, {}
    for kind, index in graph.edges.items():
        start = graph.edge_starts[kind]
        own = chosen[(chosen >= start) & (chosen < start + index.size(1))] - start
        ends = [number[graph.node_starts[end] + index[row, own]].long() for row, end in enumerate((kind[0], kind[2]))]
        edges[kind] = torch.stack(ends)
        edge_fields[kind] = {name: value[own] for name, value in graph.edge_fields[kind].items()}
    return edges, edge_fields
