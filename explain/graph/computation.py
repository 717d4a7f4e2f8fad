"""The computation graph: the least part of a graph that answers for a node as the whole graph does.

The receptive field is found by asking the model, not by counting layers: values beyond ``k`` hops are made NaN, and the
smallest ``k`` at which none of them reaches the answer is the receptive field. The cut keeps every node within it
*and every edge into it*, whose far ends become one stand-in node: degrees on the boundary stay what they were, so a
GCN normalises in the cut as it does in the whole graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from explain.graph.structure import EdgeType, Fields, Structure

Focus: TypeAlias = tuple[tuple[str, int], ...]  # (node type, number within the type) of each explained node
Direction: TypeAlias = Literal["in", "out", "both"]
_FAR = torch.iinfo(torch.int32).max


@dataclass(frozen=True, eq=False)
class Place:
    """Where coalitions are evaluated: a cut, or the whole graph.

    ``nodes [n]``, ``edges [e]``: the flat number in the whole graph of each node and edge here, -1 for stand-ins.
    ``reachable [e]``: edges that can carry a message to the explained nodes. ``together``: whether several copies may
    share one forward pass. ``checks``: what was measured while it was chosen.
    """

    graph: Structure
    focus: Focus
    nodes: Tensor
    edges: Tensor
    reachable: Tensor
    together: bool = True
    checks: dict[str, Any] = field(default_factory=dict)

    def flat_focus(self) -> Tensor:
        """Flat numbers, in this place, of the explained nodes."""
        return torch.tensor([self.graph.node_starts[kind] + number for kind, number in self.focus], dtype=torch.long)


def whole(graph: Structure, focus: Focus, flat_focus: Tensor | None = None) -> Place:
    """The whole graph as a place; with a focus, edges that no path leads from are not reachable."""
    device = graph.flat_edges.device
    nodes = torch.arange(graph.num_nodes, device=device)
    edges = torch.arange(graph.num_edges, device=device)
    return Place(graph, focus, nodes, edges, torch.ones(graph.num_edges, dtype=torch.bool, device=device))


def receptive_field(
    answer: Callable[[Fields], Tensor], graph: Structure, focus: Tensor, hint: tuple[int, Direction] | None = None
) -> tuple[int, Direction] | None:
    """The smallest ``k``, and the direction of the hops, such that NaN beyond ``k`` hops does not reach the answer.

    Args:
        answer: outputs of the explained rows for other features ``x`` by node type.
        graph: the whole graph.
        focus: flat numbers of the explained nodes.
        hint: the answer for another node of the same model, tried first.

    Returns:
        None where everything reaches the answer (attention over all pairs, norms over the graph), or there are no
        floating-point features to make NaN.
    """
    if any(
        not fields.get("x", torch.zeros(0, dtype=torch.long)).is_floating_point() for fields in graph.nodes.values()
    ):
        return None

    def unreached(distance: Tensor, hops: int) -> bool:
        features = {}
        for kind, fields in graph.nodes.items():
            start = graph.node_starts[kind]
            far = distance[start : start + graph.counts[kind]] > hops
            features[kind] = fields["x"].masked_fill(far.view(-1, *[1] * (fields["x"].dim() - 1)), float("nan"))
        return bool(answer(features).isfinite().all())

    directions: tuple[Direction, ...] = ("in", "out", "both")
    if hint is not None:
        distance = hop_distance(graph, focus, hint[1])
        if unreached(distance, hint[0]) and (hint[0] == 0 or not unreached(distance, hint[0] - 1)):
            return hint
    for direction in directions:
        distance = hop_distance(graph, focus, direction)
        finite = distance[distance < _FAR]
        if not unreached(distance, int(finite.max())):
            continue  # something that no path of this direction leads from reaches the answer
        return next(k for k in range(int(finite.max()) + 1) if unreached(distance, k)), direction
    return None


def hop_distance(graph: Structure, focus: Tensor, direction: Direction, most: int | None = None) -> Tensor:
    """Hops from each node to the nearest explained one along the messages, int32 ``[N]``; very large without a path.

    Nodes are visited hop by hop, to ``most`` hops: what is farther away costs nothing.
    """
    source, target = graph.flat_edges
    distance = torch.full((graph.num_nodes,), _FAR, dtype=torch.int32, device=source.device)
    distance[focus] = 0
    border = focus.unique()
    for hop in range(1, (graph.num_nodes if most is None else most) + 1):
        near = []
        if direction in ("in", "both"):
            near.append(source[graph.into.at(border)])
        if direction in ("out", "both"):
            near.append(target[graph.out_of.at(border)])
        found = torch.cat(near)
        border = found[distance[found] == _FAR].unique()
        if not len(border):
            break
        distance[border] = hop
    return distance


def cut(graph: Structure, focus: Focus, hops: int, direction: Direction, stranger: bool = False) -> Place:
    """The part of the graph that a model with this receptive field needs, boundary degrees kept.

    ``stranger``: a stand-in of each type even where no edge leads to one, to see whether the model looks that far.
    """
    flat = torch.tensor([graph.node_starts[kind] + number for kind, number in focus], device=graph.flat_edges.device)
    distance = hop_distance(graph, flat, direction, hops)
    inside = (distance <= hops).nonzero().view(-1)
    chosen = _edges_at(graph, inside, direction)
    near, far = distance[graph.flat_edges[1, chosen]], distance[graph.flat_edges[0, chosen]]
    carries = {"in": near, "out": far, "both": torch.minimum(near, far)}[direction] < hops
    touched = graph.flat_edges[:, chosen].reshape(-1)
    outside = touched[distance[touched] > hops].unique()
    counts, nodes, number, origin = {}, {}, torch.full_like(distance, -1), []
    for kind, size in graph.counts.items():
        start = graph.node_starts[kind]
        kept, beyond = (part[(part >= start) & (part < start + size)] for part in (inside, outside))
        number[kept] = torch.arange(len(kept), dtype=number.dtype, device=kept.device)
        number[beyond] = len(kept)
        if stranger and not len(beyond) and len(kept) < size:
            beyond = start + (distance[start : start + size] > hops).int().argmax().view(1)
        rows = torch.cat([kept, beyond[:1]])  # the stand-in holds one far node's values, which do not matter
        counts[kind] = len(rows)
        nodes[kind] = {name: value[rows - start] for name, value in graph.nodes[kind].items()}
        origin.append(torch.cat([kept, torch.full_like(beyond[:1], -1)]))
    edges, edge_fields = _cut_edges(graph, chosen, number)
    small = Structure(counts, nodes, edges, edge_fields, graph.shared)
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
