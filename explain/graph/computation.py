"""The computation graph: the least part of a graph that answers for a node as the whole graph does.

The receptive field is found by asking the model, not by counting layers: values beyond ``k`` hops are made NaN, and the
smallest ``k`` at which none of them reaches the answer is the receptive field. Where no node lies beyond, values cannot
tell how deep the model is: every edge that a path leads from is then within it. The cut keeps every node within it
*and every edge into it*, whose far ends become one stand-in node: degrees on the boundary stay what they were, so a
GCN normalises in the cut as it does in the whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.graph.agreement import relative, tolerance
from explain.graph.structure import EdgeType, Fields, Structure

Focus: TypeAlias = tuple[tuple[str, int], ...]  # (node type, number within the type) of each explained node
Direction: TypeAlias = Literal["in", "out", "both"]
_PAIRS = 2**17  # numbers of a matrix of all pairs in one pass: its zeros between copies are computed with, too
_OTHERS = ((-1.7, 0.3), (40.0, -3.0), (-40.0, 3.0))  # what features far away are multiplied by, and moved by
_USUAL = 2  # hops that are asked about first
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


def whole(graph: Structure, focus: Focus, flat_focus: Tensor | None = None) -> Place:
    """The whole graph as a place; with a focus, edges that no path leads from are not reachable."""
    device = graph.flat_edges.device
    nodes = torch.arange(graph.num_nodes, device=device)
    edges = torch.arange(graph.num_edges, device=device)
    return Place(graph, focus, nodes, edges, torch.ones(graph.num_edges, dtype=torch.bool, device=device))


def receptive_fields(
    answer: Callable[[Fields], Tensor],
    graph: Structure,
    focus: Tensor,
    hint: Reach | None = None,
    expected: Tensor | None = None,
    bare: Callable[[Fields], Tensor] | None = None,
) -> Iterator[Reach]:
    """For each direction of the hops, the smallest ``k`` such that no value beyond ``k`` hops reaches the answer.

    After it, every hop of that direction: edges may matter where no value does (a bias is sent, a degree counted).
    Values are made NaN, and then, as a model may swallow NaN (a maximum, ``nan_to_num``), those of other nodes. Where
    NaN spreads without any edge (zero times NaN is NaN in a dense matrix), large numbers alone are asked about.

    Args:
        answer: outputs of the explained rows for other features ``x`` by node type.
        graph: the whole graph.
        focus: flat numbers of the explained nodes.
        hint: the answer for another node of the same model, tried first.
        expected: the outputs for the features as they are, where they are known.
        bare: the same as ``answer`` on the graph without edges.

    Yields:
        Nothing where everything reaches the answer (attention over all pairs, norms over the graph), or there are no
        floating-point features to change.
    """
    features = {kind: fields.get("x", torch.zeros(0, dtype=torch.long)) for kind, fields in graph.nodes.items()}
    if not all(x.is_floating_point() for x in features.values()):
        return
    probe = _Probe(answer, graph, features, expected)
    if hint is not None and probe.fits(hop_distance(graph, focus, hint.direction), hint):
        yield hint
    directions: tuple[Direction, ...] = ("in", "out", "both")
    for direction in directions:
        distance = hop_distance(graph, focus, direction)
        paths = distance[distance < FAR]
        farthest = int(paths.max())
        hops = probe.least(distance, farthest)
        if hops in (None, farthest) and bare is not None and _Probe(bare, graph, features, None).spreads(distance):
            hops = probe.fewest(distance, farthest)
        if hops is None:  # something that no path leads from reaches the answer
            continue
        if hops < farthest:
            yield Reach(hops, direction)
        yield Reach(len(paths), direction, measured=False)


def receptive_field(
    answer: Callable[[Fields], Tensor],
    graph: Structure,
    focus: Tensor,
    hint: Reach | None = None,
    expected: Tensor | None = None,
    bare: Callable[[Fields], Tensor] | None = None,
) -> Reach | None:
    """The first of the `receptive_fields`."""
    return next(receptive_fields(answer, graph, focus, hint, expected, bare), None)


class _Probe:
    """Whether features far away reach the answer."""

    def __init__(
        self, answer: Callable[[Fields], Tensor], graph: Structure, features: Fields, expected: Tensor | None
    ) -> None:
        self.answer, self.graph, self.features, self.expected = answer, graph, features, expected

    def least(self, distance: Tensor, farthest: int) -> int | None:
        """The fewest hops beyond which nothing reaches the answer; None where something without a path does.

        Most models are two layers deep: asked from there, few are asked for more than two numbers of hops.
        """
        hops = min(_USUAL, farthest)
        if self.unreached(distance, hops):
            while hops and self.unreached(distance, hops - 1):
                hops -= 1
        elif hops == farthest or not self.unreached(distance, farthest):
            return None
        elif not self.unreached(distance, farthest - 1):
            hops = farthest
        else:
            hops = next(k for k in range(hops + 1, farthest + 1) if self.unreached(distance, k))
        return next((k for k in range(hops, farthest + 1) if self.unread(distance, k)), None)

    def spreads(self, distance: Tensor) -> bool:
        """Whether NaN in all but the explained nodes reaches the answer."""
        return not self.unreached(distance, 0)

    def fewest(self, distance: Tensor, farthest: int) -> int | None:
        """`least` by numbers alone."""
        if not self.unread(distance, farthest, large=True):
            return None
        if farthest and not self.unread(distance, farthest - 1, large=True):
            return farthest
        return next(k for k in range(farthest + 1) if self.unread(distance, k, large=True))

    def fits(self, distance: Tensor, reach: Reach) -> bool:
        """Whether no fewer hops would do, as far as nodes lie there, and no more are needed."""
        hops = reach.hops
        if not self.unreached(distance, hops):
            return False
        return hops == 0 or not bool((distance == hops).any()) or not self.unreached(distance, hops - 1)

    def unreached(self, distance: Tensor, hops: int) -> bool:
        """Whether NaN beyond so many hops leaves the answer finite."""
        if not bool((distance > hops).any()):
            return True
        try:
            found = self.answer(self._beyond(distance, hops, float("nan"), 0.0))
        except Exception:  # whatever a user's forward raises of NaN: it was looked at
            return False
        return bool(found.isfinite().all())

    def unread(self, distance: Tensor, hops: int, large: bool = False) -> bool:
        """Whether other numbers beyond so many hops, and large ones, leave the answer as it is."""
        if not bool((distance > hops).any()):
            return True
        if self.expected is None:
            self.expected = self.answer(self.features)
        expected = self.expected
        found = (self.answer(self._beyond(distance, hops, *other)) for other in _OTHERS[: None if large else 1])
        return all(relative(each, expected) <= tolerance(expected) for each in found)

    def _beyond(self, distance: Tensor, hops: int, factor: float, shift: float) -> Fields:
        """Features times a factor, plus a shift, beyond so many hops; as they are within."""
        made = {}
        for kind, x in self.features.items():
            start = self.graph.node_starts[kind]
            far = distance[start : start + self.graph.counts[kind]] > hops
            far = far.view(-1, *[1] * (x.dim() - 1))
            made[kind] = x * torch.where(far, factor, 1.0).to(x)
            if shift:
                made[kind] += torch.where(far, shift, 0.0).to(x)
        return made


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
