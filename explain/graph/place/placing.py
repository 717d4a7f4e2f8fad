"""Where the coalitions of a number are evaluated: the cut, checked; or the whole graph.

The first cut of a model is held against the whole graph. Others of the same model state, and those of graphs too large
for that, are held against a cut two hops larger, and their answer with every player against the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.place.batching import known_batching
from explain.graph.place.completeness import DRAWS, held
from explain.graph.place.receptive import receptive_field, receptive_fields
from explain.graph.players.kinds import AFFORDABLE
from explain.graph.players.removals import node_edits
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import FAR, Focus, Place, Reach, cut, hop_distance, whole
from explain.graph.tensors.structure import Fields, Structure

LARGE = 2**21  # nodes and edges of a graph that is not run as a whole
_REGION = 2**20  # nodes and edges of a region in which the receptive field is looked for
_DRAWN = 3  # coalitions in which the rows of absent nodes are looked for
_FARTHEST = 16  # hops of the largest region
_OTHERS = 4  # nodes whose farthest ones are asked how deep a model is


def is_large(graph: Structure) -> bool:
    """Whether the model is never run on this graph as a whole."""
    return graph.num_nodes + graph.num_edges > LARGE


def placed(number: GraphNumber) -> Place:
    """The computation graph where the cut answers as the whole graph does, else the whole graph."""
    with torch.no_grad():
        chosen = _chosen(number) if number.focus else whole(number.graph, number.focus)
        return _checked_together(number, chosen)


def _checked_together(number: GraphNumber, chosen: Place) -> Place:
    """The place, and whether coalitions may share a pass there."""
    with torch.no_grad():
        together, squares = known_batching(number, chosen)
    where = "cut" if "hops" in chosen.checks else "whole graph"
    checks = {"computation": where, "batching": "together" if together else "one by one", **chosen.checks}
    checks.setdefault("left_out_edges", 0)
    return replace(chosen, together=together, squares=squares, checks=checks)


def _chosen(number: GraphNumber) -> Place:
    depth = _depth(number)
    if is_large(number.graph):
        return _local(number, depth) or whole(number.graph, number.focus)
    if depth in number.model.findings.proved and number.is_known:
        found = _checked(number, depth)
        if found is not None:
            return found
    return _global(number, depth)


def _global(number: GraphNumber, depth: Reach | None) -> Place:
    """The first cut that agrees with the whole graph, or the whole graph with the edges that matter."""
    full = whole(number.graph, number.focus)
    for reach in _reaches(number, full, depth):
        small = cut(number.graph, number.focus, *reach[:2])
        saves = int((small.nodes >= 0).sum()) < number.graph.num_nodes
        if not saves:
            small = replace(full, reachable=torch.isin(full.edges, small.edges[small.reachable]))
        proved = held(number, small, full)
        if proved is None:
            continue
        if saves:
            if number.is_known:
                number.model.findings.proved.add(reach)
            proved.checks.update(hops=reach.hops, direction=reach.direction, cut_against="whole graph")
        return proved
    return full


def _reaches(number: GraphNumber, place: Place, depth: Reach | None) -> Iterator[Reach]:
    """The depth of the model, and then what this number itself sees: in one order, whatever was asked before."""
    if depth is not None:
        yield depth
    ends = place.flat_focus().to(place.nodes.device)
    own = receptive_fields(_answers(number, place), place.graph, ends, None, number.answer[None], _bare(number, place))
    yield from (reach for reach in own if reach != depth)


def _depth(number: GraphNumber) -> Reach | None:
    """How far the model sees: the receptive field of nodes that are always the same ones; found once for each state.

    None where a few nodes far from others see all there is: values cannot tell how deep the model is.
    """
    model, kinds = number.model, tuple(kind for kind, _ in number.focus)
    graph = model.whole_structure
    if graph is None or number.state != model.findings.state or set(kinds) - set(graph.counts):
        return _measured(number, number.graph)
    if kinds not in model.findings.depths:
        model.findings.depths[kinds] = _measured(number, graph)
    return model.findings.depths[kinds]


def _measured(number: GraphNumber, graph: Structure) -> Reach | None:
    """The receptive field of the first of a few nodes that lies in more than it sees."""
    kind = number.focus[0][0]
    known = number.model.findings.answers.get(kind) if len(number.focus) == 1 else None
    for node in _candidates(graph, kind):
        focus = tuple((own, node if own == kind else 0) for own, _ in number.focus)
        expected = None if known is None or not number.is_known else known[0][node][None]
        for place, hops in _stages(graph, focus):
            ends = place.flat_focus().to(place.nodes.device)
            found = receptive_field(_answers(number, place), place.graph, ends, None, expected, _bare(number, place))
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


def _farthest(graph: Structure, kind: str, node: int) -> int:
    """The node of this type that lies farthest from one of them, of those that a path joins to it."""
    start = graph.node_starts[kind]
    distance = hop_distance(graph, torch.tensor([start + node], device=graph.flat_edges.device), "both")
    own = distance[start : start + graph.counts[kind]]
    return int(torch.where(own == FAR, -1, own).argmax())


def _local(number: GraphNumber, depth: Reach | None) -> Place | None:
    """The cut by the depth of the model, or by what the number sees of a region around it; None where none holds."""
    if depth is not None and (proved := _checked(number, depth)) is not None:
        return proved
    for region, hops in _stages(number.graph, number.focus):
        focus = region.flat_focus().to(region.nodes.device)
        for reach in receptive_fields(_answers(number, region), region.graph, focus, bare=_bare(number, region)):
            if hops is not None and not _inside(reach, region, focus, hops):
                break  # what lies at the border of the region may reach the answer: take a larger one
            if reach != depth and (proved := _checked(number, reach)) is not None:
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


def _checked(number: GraphNumber, reach: Reach) -> Place | None:
    """The cut held against the one two hops larger, and against what the model said; None where it differs."""
    hops, direction, _ = reach
    wide = cut(number.graph, number.focus, hops + 2, direction)
    inner = cut(wide.graph, wide.focus, hops, direction)
    proved = held(number, inner, wide, DRAWS if is_large(number.graph) else 1)
    if proved is None:
        return None
    small = replace(proved, nodes=_through(wide.nodes, proved.nodes), edges=wide.edges[proved.edges])
    if "answer" in vars(number):
        error = relative(number.outputs(small, 1)[0], number.answer)
        if not error <= tolerance(number.answer):
            return None
        small.checks["cut_error"] = max(error, small.checks["cut_error"])
    small.checks.update(hops=hops, direction=direction, cut_against="cut two hops larger")
    small.checks["left_out_edges"] = number.graph.num_edges - int(small.matters.sum())
    return small


def placed_nodes(number: GraphNumber, place: Place) -> Place:
    """Where coalitions of nodes are evaluated.

    A node without features and edges is as good as gone where nothing but edges leads from it to the answer, which is
    proved with the cut. Where norms, attention or positions see every row (and for pooled graphs), it leaves with its
    row: the model is asked about the smaller graph, unless it takes none, or would take other nodes for those that are
    left. A cut that is one of several graphs, or has as many rows as the whole graph, is no such proof.
    """
    if number.removal != "delete":
        return place
    if "hops" in place.checks:
        proves = place.graph.graphs == 1 and place.graph.num_nodes < number.graph.num_nodes
        if proves or not _sees_rows(number, place):
            return _with_far_nodes(number, place)
        if _is_its_graph(number, place):
            return replace(place, smaller=True)
        place = _checked_together(number, whole(number.graph, number.focus))
    return replace(place, smaller=not number.focus or (takes_smaller(number, place) and not _by_number(number, place)))


def _by_number(number: GraphNumber, place: Place) -> bool:
    """Whether nodes are known by their numbers alone: nothing of them is given, and numbered backwards they are others.

    Such a model has a row of its own for each (an embedding of users and items): in a smaller graph, whose nodes are
    numbered anew, it would answer about other ones.
    """
    inputs, graph = number.model.inputs, place.graph
    given = {name for fields in graph.nodes.values() for name in fields}
    if graph.graphs > 1 or (given if inputs.whole else given & {*inputs.sources.values()}):
        return False
    try:
        with torch.no_grad():
            turned, known = (number.outputs(where, 1) for where in (_backwards(place), place))
    except Exception:  # whatever a user's forward raises: what it cannot take says nothing about numbers
        return False
    return not relative(turned, known) <= tolerance(known)


def _backwards(place: Place) -> Place:
    """The same graph, nodes of each type numbered from the last."""
    graph = place.graph
    last = {kind: size - 1 for kind, size in graph.counts.items()}
    edges = {
        kind: torch.stack([last[kind[0]] - source, last[kind[2]] - target])
        for kind, (source, target) in graph.edges.items()
    }
    nodes = {kind: {name: rows.flip(0) for name, rows in fields.items()} for kind, fields in graph.nodes.items()}
    return replace(
        place,
        graph=replace(graph, nodes=nodes, edges=edges),
        focus=tuple((kind, last[kind] - node) for kind, node in place.focus),
    )


def takes_smaller(number: GraphNumber, place: Place) -> bool:
    """Whether the model answers for the graph without some of its nodes; not if it has a row of its own for each."""
    kept = torch.rand(1, place.graph.num_nodes, generator=torch.Generator().manual_seed(0)) < 0.7
    kept[:, place.flat_focus().cpu()] = True
    try:
        with torch.no_grad():
            return bool(number.outputs(place, 1, node_keep=kept.to(place.nodes.device)).isfinite().all())
    except Exception:  # whatever a user's forward raises of fewer rows
        return False


def _sees_rows(number: GraphNumber, place: Place) -> bool:
    """Whether nodes without features and edges answer otherwise than the graph without their rows."""
    present = torch.rand(_DRAWN, place.graph.num_nodes, generator=torch.Generator().manual_seed(0)) < 0.6
    present[:, place.flat_focus()] = True
    present = present.to(place.nodes.device)
    zeros = {kind: torch.zeros(()).to(f["x"]) for kind, f in place.graph.nodes.items() if "x" in f}
    try:
        with torch.no_grad():
            for one in present.split(1):
                bare = number.outputs(place, 1, **node_edits("delete", place, one, zeros))
                smaller = number.outputs(place, 1, node_keep=one)
                if not relative(bare, smaller) <= tolerance(smaller):
                    return True
    except Exception:  # whatever a user's forward raises of fewer rows
        return False
    return False


def _is_its_graph(number: GraphNumber, place: Place) -> bool:
    """Whether a cut answers as all the graphs do, without some rows of its own and of the others."""
    if number.graph.graphs == 1 or bool((place.nodes < 0).any()):
        return False
    full, generator = whole(number.graph, number.focus), torch.Generator().manual_seed(0)
    for _ in range(_DRAWN):
        present = (torch.rand(1, number.graph.num_nodes, generator=generator) < 0.7).to(place.nodes.device)
        present[:, full.flat_focus()] = True
        try:
            with torch.no_grad():
                here = number.outputs(place, 1, node_keep=present[:, place.nodes])
                there = number.outputs(full, 1, node_keep=present)
        except Exception:  # whatever a user's forward raises of fewer rows
            return False
        if not relative(here, there) <= tolerance(there):
            return False
    return True


def _with_far_nodes(number: GraphNumber, place: Place) -> Place:
    """The place with the nodes themselves at the far ends of edges that only count in a degree, as far as they are few.

    Deleting such a node changes the degree of another, as deleting the edge does.
    """
    if place.degrees is None:
        return place
    checks = place.checks
    wide = cut(number.graph, number.focus, checks["hops"], checks["direction"], far=True)
    if wide.graph.num_nodes > AFFORDABLE or not torch.equal(wide.edges, place.edges):
        return place
    return replace(place, graph=wide.graph, focus=wide.focus, nodes=wide.nodes)


def _through(outer: Tensor, inner: Tensor) -> Tensor:
    """Numbers in the whole graph, -1 for stand-ins of either cut."""
    return torch.where(inner >= 0, outer[inner.clamp_min(0)], -1)


def _answers(number: GraphNumber, place: Place, edge_keep: Tensor | None = None) -> Callable[[Fields], Tensor]:
    def answers(features: Fields) -> Tensor:
        return number.outputs(place, 1, edge_keep=edge_keep, features={kind: x[None] for kind, x in features.items()})

    return answers


def _bare(number: GraphNumber, place: Place) -> Callable[[Fields], Tensor] | None:
    """The answers of the place without its edges, where forward multiplies with a dense matrix of them.

    Elsewhere what spreads without edges is read: NaN tells even a mean of very small weight, which numbers do not.
    """
    if not number.model.inputs.dense:
        return None
    return _answers(number, place, torch.zeros_like(place.reachable)[None])
