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


def hop_distance(graph: Structure, focus: Tensor, direction: Direction) -> Tensor:
    """Hops from each node to the nearest explained one along the messages, int32 ``[N]``; very large without a path."""
    source, target = graph.flat_edges
    distance = torch.full((graph.num_nodes,), _FAR, dtype=torch.int32, device=source.device)
    distance[focus] = 0
    for hop in range(1, graph.num_nodes + 1):
        new = torch.zeros_like(distance, dtype=torch.bool)
        if direction in ("in", "both"):
            new[source[distance[target] == hop - 1]] = True
        if direction in ("out", "both"):
            new[target[distance[source] == hop - 1]] = True
        new &= distance == _FAR
        if not new.any():
            break
        distance[new] = hop
    return distance


def cut(graph: Structure, focus: Focus, hops: int, direction: Direction) -> Place:
    """The part of the graph that a model with this receptive field needs, boundary degrees kept."""
    flat = torch.tensor([graph.node_starts[kind] + number for kind, number in focus], device=graph.flat_edges.device)
    distance = hop_distance(graph, flat, direction)
    inside = distance <= hops
    source, target = graph.flat_edges
    into = {"in": inside[target], "out": inside[source], "both": inside[source] | inside[target]}[direction]
    carries = {
        "in": distance[target] < hops,
        "out": distance[source] < hops,
        "both": torch.minimum(distance[source], distance[target]) < hops,
    }[direction]
    counts, nodes, number, origin = {}, {}, torch.full_like(distance, -1, dtype=torch.long), []
    for kind, size in graph.counts.items():
        start = graph.node_starts[kind]
        own = slice(start, start + size)
        kept = inside[own].nonzero().view(-1)
        number[own][kept] = torch.arange(len(kept), device=kept.device)
        touched = torch.zeros_like(inside)
        touched[graph.flat_edges[:, into].reshape(-1)] = True
        outside = (touched[own] & ~inside[own]).nonzero().view(-1)
        number[own][outside] = len(kept)
        rows = torch.cat([kept, outside[:1]])  # the stand-in holds one far node's values, which do not matter
        counts[kind] = len(rows)
        nodes[kind] = {name: value[rows] for name, value in graph.nodes[kind].items()}
        origin.append(torch.cat([kept + start, torch.full_like(outside[:1], -1)]))
    edges, edge_fields, edge_origin = _cut_edges(graph, into, number)
    small = Structure(counts, nodes, edges, edge_fields, graph.shared)
    here = tuple((kind, int(number[graph.node_starts[kind] + i])) for kind, i in focus)
    return Place(small, here, torch.cat(origin), edge_origin, carries[edge_origin])


def _cut_edges(
    graph: Structure, into: Tensor, number: Tensor
) -> tuple[dict[EdgeType, Tensor], dict[EdgeType, Fields], Tensor]:
    edges, edge_fields, origin = {}, {}, []
    for kind, index in graph.edges.items():
        start = graph.edge_starts[kind]
        chosen = into[start : start + index.size(1)].nonzero().view(-1)
        ends = [number[graph.node_starts[end] + index[row, chosen]] for row, end in enumerate((kind[0], kind[2]))]
        edges[kind] = torch.stack(ends)
        edge_fields[kind] = {name: value[chosen] for name, value in graph.edge_fields[kind].items()}
        origin.append(chosen + start)
    return edges, edge_fields, torch.cat(origin)
