"""Where a target's coalitions are evaluated: the cut, checked; or the whole graph.

The first target of a model is held against the whole graph. On others of the same model state, and on graphs too large
for that, the cut is held against a cut two hops larger, and its answer with every player against the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explain.graph.agreement import relative, tolerance
from explain.graph.batching import known_batching
from explain.graph.completeness import DRAWS, held
from explain.graph.computation import FAR, Place, Reach, cut, hop_distance, receptive_field, receptive_fields, whole
from explain.graph.players import AFFORDABLE
from explain.graph.structure import Fields, Structure

if TYPE_CHECKING:
    from explain.graph.targets import GraphTarget

LARGE = 2**21  # nodes and edges of a graph that is not run as a whole
_REGION = 2**20  # nodes and edges of a region in which the receptive field is looked for
_FARTHEST = 16  # hops of the largest region
_OTHERS = 4  # nodes whose farthest ones are asked how deep a model is


def is_large(graph: Structure) -> bool:
    """Whether the model is never run on this graph as a whole."""
    return graph.num_nodes + graph.num_edges > LARGE


def placed(target: GraphTarget) -> Place:
    """The computation graph where the cut answers as the whole graph does, else the whole graph."""
    with torch.no_grad():
        chosen = _chosen(target) if target.focus else whole(target.graph, target.focus)
        together, squares = known_batching(target, chosen)
    where = "cut" if "hops" in chosen.checks else "whole graph"
    checks = {"computation": where, "batching": "together" if together else "one by one", **chosen.checks}
    checks.setdefault("left_out_edges", 0)
    return replace(chosen, together=together, squares=squares, checks=checks)


def _chosen(target: GraphTarget) -> Place:
    programs = target.model.programs
    if is_large(target.graph):
        return _local(target) or whole(target.graph, target.focus)
    if programs.reach is not None and programs.known(target):
        found = _checked(target, programs.reach)
        if found is not None:
            return found
    return _global(target)


def _global(target: GraphTarget) -> Place:
    """The first cut that agrees with the whole graph, or the whole graph with the edges that matter."""
    full = whole(target.graph, target.focus)
    model = target.model
    for reach in _reaches(target, full):
        small = cut(target.graph, target.focus, *reach[:2])
        saves = int((small.nodes >= 0).sum()) < target.graph.num_nodes
        if not saves:
            small = replace(full, reachable=torch.isin(full.edges, small.edges[small.reachable]))
        proved = held(target, small, full)
        if proved is None:
            continue
        if reach.measured:
            model.reach = reach
        if saves:
            model.programs.reach = reach if reach.measured else model.programs.reach
            proved.checks.update(hops=reach.hops, direction=reach.direction, cut_against="whole graph")
        return proved
    return full


def _reaches(target: GraphTarget, full: Place) -> Iterator[Reach]:
    """The receptive fields of the target; where no node lies beyond one, that of a node which sees how deep it is.

    So players do not hang on which nodes were asked about before.
    """
    model = target.model
    answers = _answers(target, full)
    for reach in receptive_fields(answers, target.graph, full.flat_focus(), model.reach):
        if not reach.measured and model.reach is None:
            model.reach = _elsewhere(target, full)
            if model.reach is not None:
                yield from receptive_fields(answers, target.graph, full.flat_focus(), model.reach)
                return
        yield reach


def _elsewhere(target: GraphTarget, full: Place) -> Reach | None:
    """The receptive field of another node, where one of a few far from others lies in more than it sees."""
    kind = target.focus[0][0]
    starts = torch.linspace(0, target.graph.counts[kind] - 1, _OTHERS).long().unique().tolist()
    for number in dict.fromkeys(_farthest(target, kind, start) for start in starts):
        focus = tuple((own, number if own == kind else end) for own, end in target.focus)
        other = replace(full, focus=focus)
        found = receptive_field(_answers(target, other), target.graph, other.flat_focus())
        if found is not None and found.measured:
            return found
    return None


def _farthest(target: GraphTarget, kind: str, number: int) -> int:
    """The node of this type that lies farthest from one of them, of those that a path joins to it."""
    graph = target.graph
    start = graph.node_starts[kind]
    distance = hop_distance(graph, torch.tensor([start + number], device=graph.flat_edges.device), "both")
    own = distance[start : start + graph.counts[kind]]
    return int(torch.where(own == FAR, -1, own).argmax())


def _local(target: GraphTarget) -> Place | None:
    """The cut, its receptive field found in a region around the target; None where no region holds it."""
    hint = target.model.reach
    for hops in range(2 if hint is None else hint.hops + 1, _FARTHEST):
        region = next((r for r in _regions(target, hops) if r.graph.num_nodes + r.graph.num_edges <= _REGION), None)
        if region is None:
            return None
        focus = region.flat_focus().to(region.nodes.device)
        for reach in receptive_fields(_answers(target, region), region.graph, focus, hint):
            if not _inside(reach, region, focus, hops):
                break  # what lies at the border of the region may reach the answer: take a larger one
            if (proved := _checked(target, reach)) is None:
                continue
            if reach.measured:
                target.model.reach = reach
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


def _regions(target: GraphTarget, hops: int) -> list[Place]:
    both = cut(target.graph, target.focus, hops, "both", stranger=True)
    small = both.graph.num_nodes + both.graph.num_edges <= _REGION
    return [both] if small else [cut(target.graph, target.focus, hops, "in", stranger=True)]


def _checked(target: GraphTarget, reach: Reach) -> Place | None:
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


def placed_nodes(target: GraphTarget) -> Place:
    """Where coalitions of nodes are evaluated.

    A node without features and edges is as good as gone where nothing but edges leads from it to the answer, which is
    proved with the cut. Where norms, attention or positions see every row (and for pooled graphs), it leaves with its
    row: the model is asked about the smaller graph, unless it takes none.
    """
    place = target.place
    if target.removal != "delete":
        return place
    if "hops" in place.checks:
        return _with_far_nodes(target)
    return replace(place, smaller=not target.focus or takes_smaller(target, place))


def takes_smaller(target: GraphTarget, place: Place) -> bool:
    """Whether the model answers for the graph without some of its nodes; not if it has a row of its own for each."""
    kept = torch.rand(1, place.graph.num_nodes, generator=torch.Generator().manual_seed(0)) < 0.7
    kept[:, place.flat_focus().cpu()] = True
    try:
        with torch.no_grad():
            return bool(target.outputs(place, 1, node_keep=kept.to(place.nodes.device)).isfinite().all())
    except Exception:  # whatever a user's forward raises of fewer rows
        return False


def _with_far_nodes(target: GraphTarget) -> Place:
    """The place with the nodes themselves at the far ends of edges that only count in a degree, as far as they are few.

    Deleting such a node changes the degree of another, as deleting the edge does.
    """
    place = target.place
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


def _answers(target: GraphTarget, place: Place) -> Callable[[Fields], Tensor]:
    def answers(features: Fields) -> Tensor:
        return target.outputs(place, 1, features={kind: x[None] for kind, x in features.items()})

    return answers
