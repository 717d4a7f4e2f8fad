"""Where a target's coalitions are evaluated: the cut, checked; or the whole graph.

The first target of a model is held against the whole graph. On others of the same model state, and on graphs too large
for that, the cut is held against a cut two hops larger, and its answer with every player against the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from explain.graph.agreement import relative, tolerance
from explain.graph.batching import known_batching
from explain.graph.completeness import DRAWS, held
from explain.graph.computation import (
    FAR,
    Focus,
    Place,
    Reach,
    cut,
    hop_distance,
    receptive_field,
    receptive_fields,
    whole,
)
from explain.graph.number import GraphNumber
from explain.graph.players import AFFORDABLE
from explain.graph.structure import Fields, Structure

LARGE = 2**21  # nodes and edges of a graph that is not run as a whole
_REGION = 2**20  # nodes and edges of a region in which the receptive field is looked for
_FARTHEST = 16  # hops of the largest region
_OTHERS = 4  # nodes whose farthest ones are asked how deep a model is


def is_large(graph: Structure) -> bool:
    """Whether the model is never run on this graph as a whole."""
    return graph.num_nodes + graph.num_edges > LARGE


def placed(target: GraphNumber) -> Place:
    """The computation graph where the cut answers as the whole graph does, else the whole graph."""
    with torch.no_grad():
        chosen = _chosen(target) if target.focus else whole(target.graph, target.focus)
        together, squares = known_batching(target, chosen)
    where = "cut" if "hops" in chosen.checks else "whole graph"
    checks = {"computation": where, "batching": "together" if together else "one by one", **chosen.checks}
    checks.setdefault("left_out_edges", 0)
    return replace(chosen, together=together, squares=squares, checks=checks)


def _chosen(target: GraphNumber) -> Place:
    depth = _depth(target)
    if is_large(target.graph):
        return _local(target, depth) or whole(target.graph, target.focus)
    if depth in target.model.programs.proved and target.is_known:
        found = _checked(target, depth)
        if found is not None:
            return found
    return _global(target, depth)


def _global(target: GraphNumber, depth: Reach | None) -> Place:
    """The first cut that agrees with the whole graph, or the whole graph with the edges that matter."""
    full = whole(target.graph, target.focus)
    for reach in _reaches(target, full, depth):
        small = cut(target.graph, target.focus, *reach[:2])
        saves = int((small.nodes >= 0).sum()) < target.graph.num_nodes
        if not saves:
            small = replace(full, reachable=torch.isin(full.edges, small.edges[small.reachable]))
        proved = held(target, small, full)
        if proved is None:
            continue
        if saves:
            if target.is_known:
                target.model.programs.proved.add(reach)
            proved.checks.update(hops=reach.hops, direction=reach.direction, cut_against="whole graph")
        return proved
    return full


def _reaches(target: GraphNumber, place: Place, depth: Reach | None) -> Iterator[Reach]:
    """The depth of the model, and then what this target itself sees: in one order, whatever was asked before."""
    if depth is not None:
        yield depth
    ends = place.flat_focus().to(place.nodes.device)
    own = receptive_fields(_answers(target, place), place.graph, ends, None, target.answer[None], _bare(target, place))
    yield from (reach for reach in own if reach != depth)


def _depth(target: GraphNumber) -> Reach | None:
    """How far the model sees: the receptive field of nodes that are always the same ones; found once for each state.

    None where a few nodes far from others see all there is: values cannot tell how deep the model is.
    """
    model, kinds = target.model, tuple(kind for kind, _ in target.focus)
    graph = model.whole_structure
    if graph is None or target.state != model.programs.state or set(kinds) - set(graph.counts):
        return _measured(target, target.graph)
    if kinds not in model.programs.depths:
        model.programs.depths[kinds] = _measured(target, graph)
    return model.programs.depths[kinds]


def _measured(target: GraphNumber, graph: Structure) -> Reach | None:
    """The receptive field of the first of a few nodes that lies in more than it sees."""
    kind = target.focus[0][0]
    known = target.model.programs.answers.get(kind) if len(target.focus) == 1 else None
    for number in _candidates(graph, kind):
        focus = tuple((own, number if own == kind else 0) for own, _ in target.focus)
        expected = None if known is None or not target.is_known else known[0][number][None]
        for place, hops in _stages(graph, focus):
            ends = place.flat_focus().to(place.nodes.device)
            found = receptive_field(_answers(target, place), place.graph, ends, None, expected, _bare(target, place))
            if found is not None and (hops is None or _inside(found, place, ends, hops)):
                break
        else:
            return None  # nodes that no path joins to this one are seen: so they are from the others
        if found.measured:
            return found
    return None


def _candidates(graph: Structure, kind: str) -> Iterator[int]:
    """The first node of a type, and those that lie farthest from a few of them; in a large graph these few."""
    yield 0
    starts = torch.linspace(0, graph.counts[kind] - 1, _OTHERS).long().unique().tolist()
    yield from dict.fromkeys(start if is_large(graph) else _farthest(graph, kind, start) for start in starts)


def _stages(graph: Structure, focus: Focus) -> Iterator[tuple[Place, int | None]]:
    """Where a node is asked what it sees, and hops: the whole graph; of a large one larger and larger regions."""
    if not is_large(graph):
        yield whole(graph, focus), None
        return
    for hops in range(2, _FARTHEST):
        region = next(
            (r for r in _regions(graph, focus, hops) if r.graph.num_nodes + r.graph.num_edges <= _REGION), None
        )
        if region is None:
            return
        yield region, hops


def _farthest(graph: Structure, kind: str, number: int) -> int:
    """The node of this type that lies farthest from one of them, of those that a path joins to it."""
    start = graph.node_starts[kind]
    distance = hop_distance(graph, torch.tensor([start + number], device=graph.flat_edges.device), "both")
    own = distance[start : start + graph.counts[kind]]
    return int(torch.where(own == FAR, -1, own).argmax())


def _local(target: GraphNumber, depth: Reach | None) -> Place | None:
    """The cut by the depth of the model, or by what the target sees of a region around it; None where none holds."""
    if depth is not None and (proved := _checked(target, depth)) is not None:
        return proved
    for region, hops in _stages(target.graph, target.focus):
        focus = region.flat_focus().to(region.nodes.device)
        for reach in receptive_fields(_answers(target, region), region.graph, focus, bare=_bare(target, region)):
            if hops is not None and not _inside(reach, region, focus, hops):
                break  # what lies at the border of the region may reach the answer: take a larger one
            if reach != depth and (proved := _checked(target, reach)) is not None:
                return proved
        else:
            return None
    return None


def _inside(reach: Reach, region: Place, focus: Tensor, hops: int) -> bool:
    """Whether a receptive field ends before the border of the region, or no path of its direction leads there."""
    if reach.measured:
        return reach.hops < hops
    beyond = hop_distance(region.graph, focus, reach.direction)[region.nodes < 0]
    return not bool((beyond <= reach.hops).any())


def _regions(graph: Structure, focus: Focus, hops: int) -> list[Place]:
    both = cut(graph, focus, hops, "both", stranger=True)
    small = both.graph.num_nodes + both.graph.num_edges <= _REGION
    return [both] if small else [cut(graph, focus, hops, "in", stranger=True)]


def _checked(target: GraphNumber, reach: Reach) -> Place | None:
    """The cut held against the one two hops larger, and against what the model said; None where it differs."""
    hops, direction, _ = reach
    wide = cut(target.graph, target.focus, hops + 2, direction)
    inner = cut(wide.graph, wide.focus, hops, direction)
    proved = held(target, inner, wide, DRAWS if is_large(target.graph) else 1)
    if proved is None:
        return None
    small = replace(proved, nodes=_through(wide.nodes, proved.nodes), edges=wide.edges[proved.edges])
    if "answer" in vars(target):
        error = relative(target.outputs(small, 1)[0], target.answer)
        if not error <= tolerance(target.answer):
            return None
        small.checks["cut_error"] = max(error, small.checks["cut_error"])
    small.checks.update(hops=hops, direction=direction, cut_against="cut two hops larger")
    small.checks["left_out_edges"] = target.graph.num_edges - int(small.matters.sum())
    return small


def placed_nodes(target: GraphNumber, place: Place) -> Place:
    """Where coalitions of nodes are evaluated.

    A node without features and edges is as good as gone where nothing but edges leads from it to the answer, which is
    proved with the cut. Where norms, attention or positions see every row (and for pooled graphs), it leaves with its
    row: the model is asked about the smaller graph, unless it takes none.
    """
    if target.removal != "delete":
        return place
    if "hops" in place.checks:
        return _with_far_nodes(target, place)
    return replace(place, smaller=not target.focus or takes_smaller(target, place))


def takes_smaller(target: GraphNumber, place: Place) -> bool:
    """Whether the model answers for the graph without some of its nodes; not if it has a row of its own for each."""
    kept = torch.rand(1, place.graph.num_nodes, generator=torch.Generator().manual_seed(0)) < 0.7
    kept[:, place.flat_focus().cpu()] = True
    try:
        with torch.no_grad():
            return bool(target.outputs(place, 1, node_keep=kept.to(place.nodes.device)).isfinite().all())
    except Exception:  # whatever a user's forward raises of fewer rows
        return False


def _with_far_nodes(target: GraphNumber, place: Place) -> Place:
    """The place with the nodes themselves at the far ends of edges that only count in a degree, as far as they are few.

    Deleting such a node changes the degree of another, as deleting the edge does.
    """
    if place.degrees is None:
        return place
    checks = place.checks
    wide = cut(target.graph, target.focus, checks["hops"], checks["direction"], far=True)
    if wide.graph.num_nodes > AFFORDABLE or not torch.equal(wide.edges, place.edges):
        return place
    return replace(place, graph=wide.graph, focus=wide.focus, nodes=wide.nodes)


def _through(outer: Tensor, inner: Tensor) -> Tensor:
    """Numbers in the whole graph, -1 for stand-ins of either cut."""
    return torch.where(inner >= 0, outer[inner.clamp_min(0)], -1)


def _answers(target: GraphNumber, place: Place, edge_keep: Tensor | None = None) -> Callable[[Fields], Tensor]:
    def answers(features: Fields) -> Tensor:
        return target.outputs(place, 1, edge_keep=edge_keep, features={kind: x[None] for kind, x in features.items()})

    return answers


def _bare(target: GraphNumber, place: Place) -> Callable[[Fields], Tensor]:
    """The answers of the place without its edges."""
    return _answers(target, place, torch.zeros_like(place.reachable)[None])
