"""Where a target's coalitions are evaluated: the cut, checked; or the whole graph.

The first target of a model is held against the whole graph. On others of the same model state, and on graphs too large
for that, the cut is held against a cut two hops larger, and its answer with every player against the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explain.graph.computation import Direction, Place, cut, receptive_field, whole
from explain.graph.structure import Fields, Structure

if TYPE_CHECKING:
    from explain.graph.targets import GraphTarget

LARGE = 2**21  # nodes and edges of a graph that is not run as a whole
_REGION = 2**20  # nodes and edges of a region in which the receptive field is looked for
_FARTHEST = 16  # hops of the largest region


def is_large(graph: Structure) -> bool:
    """Whether the model is never run on this graph as a whole."""
    return graph.num_nodes + graph.num_edges > LARGE


def placed(target: GraphTarget) -> Place:
    """The computation graph where the cut answers as the whole graph does, else the whole graph."""
    with torch.no_grad():
        chosen = _chosen(target) if target.focus else whole(target.graph, target.focus)
        together = _known_together(target, chosen)
    where = "cut" if "hops" in chosen.checks else "whole graph"
    checks = {"computation": where, "batching": "together" if together else "one by one", **chosen.checks}
    return replace(chosen, together=together, checks=checks)


def _chosen(target: GraphTarget) -> Place:
    programs = target.model.programs
    if is_large(target.graph):
        return _local(target) or whole(target.graph, target.focus)
    if programs.reach is not None and programs.known(target):
        found = _checked(target, *programs.reach)
        if found is not None:
            return found
    return _global(target)


def _global(target: GraphTarget) -> Place:
    """The cut held against the whole graph."""
    full = whole(target.graph, target.focus)
    found = receptive_field(_answers(target, full), target.graph, full.flat_focus(), target.model.reach)
    if found is None:
        return full
    target.model.reach = found
    small = cut(target.graph, target.focus, *found)
    if int((small.nodes >= 0).sum()) == target.graph.num_nodes:  # nothing is saved
        return replace(full, reachable=full.reachable & torch.isin(full.edges, small.edges[small.reachable]))
    error = cut_error(target, small, full, (1.0, 0.8, 0.5, 0.2))
    if not error <= tolerance(target.graph):
        return full
    target.model.programs.reach = found
    small.checks.update(hops=found[0], direction=found[1], cut_error=error, cut_against="whole graph")
    return small


def _local(target: GraphTarget) -> Place | None:
    """The cut, its receptive field found in a region around the target; None where no region holds it."""
    hint = target.model.reach
    for hops in range(2 if hint is None else hint[0] + 1, _FARTHEST):
        region = next((r for r in _regions(target, hops) if r.graph.num_nodes + r.graph.num_edges <= _REGION), None)
        if region is None:
            return None
        answers = _answers(target, region)
        found = receptive_field(answers, region.graph, region.flat_focus().to(region.nodes.device), hint)
        if found is None:
            return None
        if found[0] < hops:  # what lies at the border of the region does not reach the answer
            target.model.reach = found
            return _checked(target, *found)
    return None


def _regions(target: GraphTarget, hops: int) -> list[Place]:
    both = cut(target.graph, target.focus, hops, "both", stranger=True)
    small = both.graph.num_nodes + both.graph.num_edges <= _REGION
    return [both] if small else [cut(target.graph, target.focus, hops, "in", stranger=True)]


def _checked(target: GraphTarget, hops: int, direction: Direction) -> Place | None:
    """The cut held against the one two hops larger, and against what the model said; None where it differs."""
    wide = cut(target.graph, target.focus, hops + 2, direction)
    inner = cut(wide.graph, wide.focus, hops, direction)
    error = cut_error(target, inner, wide, (1.0, 0.8, 0.5, 0.2) if is_large(target.graph) else (0.5,))
    small = replace(inner, nodes=_through(wide.nodes, inner.nodes), edges=wide.edges[inner.edges])
    if "answer" in vars(target):
        error = max(error, relative(target.outputs(small, 1)[0], target.answer))
    if not error <= tolerance(target.graph):
        return None
    small.checks.update(hops=hops, direction=direction, cut_error=error, cut_against="cut two hops larger")
    return small


def _through(outer: Tensor, inner: Tensor) -> Tensor:
    """Numbers in the whole graph, -1 for stand-ins of either cut."""
    return torch.where(inner >= 0, outer[inner.clamp_min(0)], -1)


def _answers(target: GraphTarget, place: Place) -> Callable[[Fields], Tensor]:
    def answers(features: Fields) -> Tensor:
        return target.outputs(place, 1, features={kind: x[None] for kind, x in features.items()})

    return answers


def cut_error(target: GraphTarget, small: Place, full: Place, shares: tuple[float, ...]) -> float:
    """Largest relative difference between two places, with these shares of the edges that can carry a message."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for kept in shares:
        here = ~small.reachable | (torch.rand(len(small.edges), generator=generator).to(small.edges.device) < kept)
        there = torch.ones(len(full.edges), dtype=torch.bool, device=here.device)
        there[small.edges] = here
        expected = target.outputs(full, 1, edge_keep=there[None])
        worst = max(worst, relative(target.outputs(small, 1, edge_keep=here[None]), expected))
    return worst


def _known_together(target: GraphTarget, place: Place) -> bool:
    """`_together`, asked once for all cuts of a model state."""
    programs = target.model.programs
    if "hops" not in place.checks:
        return _together(target, place)
    if programs.together is None or not programs.known(target):
        programs.together = _together(target, place)
    return programs.together


def _together(target: GraphTarget, place: Place) -> bool:
    """Whether two different coalitions evaluated together answer as each does alone."""
    generator = torch.Generator().manual_seed(0)
    device = place.nodes.device
    edge_keep = torch.rand(2, place.graph.num_edges, generator=generator).to(device) < 0.7
    edge_keep[0] = True
    features = {}
    for kind, fields in place.graph.nodes.items():
        if "x" in fields and fields["x"].is_floating_point():
            x = fields["x"]
            halved = x * torch.rand(x.shape, generator=generator, dtype=x.dtype).to(device)
            features[kind] = torch.stack([x, halved])
    try:
        both = target.outputs(place, 2, edge_keep=edge_keep, features=features)
    except Exception:  # whatever a user's forward raises on two graphs: it can still be asked one by one
        return False
    alone = [
        target.outputs(
            place, 1, edge_keep=edge_keep[i : i + 1], features={k: x[i : i + 1] for k, x in features.items()}
        )
        for i in range(2)
    ]
    return relative(both, torch.cat(alone)) <= tolerance(target.graph)


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest number expected."""
    return float((found - expected).abs().max()) / float(expected.abs().max().clamp_min(1e-12))


def tolerance(graph: Structure) -> float:
    """What rounding alone may explain."""
    double = any(fields["x"].dtype == torch.float64 for fields in graph.nodes.values() if "x" in fields)
    return 1e-9 if double else 1e-5
