"""Who can matter: the proof that no edge outside the players changes the answer, alone or with others.

A part of a graph and its players are held against the whole graph, in random coalitions, on the features as they are
and on others, with all of the left-out edges there and with random ones of them gone. An edge into a node at the end of
the receptive field carries no message, yet its removal may change the node's degree, and with it how a layer
normalises: where leaving such edges out changes the answer, they count as edges that matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import Fields

DRAWS = 4
_MORE = 12  # draws where the whole graph is tiny
_TINY = 2**10  # nodes and edges
_KEPT = (1.0, 0.8, 0.5, 0.2)  # chance of each player


class _Draw(NamedTuple):
    """What is asked of both places: edits of the part, edits of the whole, and whether left-out edges are gone."""

    here: dict[str, Any]
    there: dict[str, Any]


def held(number: GraphNumber, small: Place, full: Place, draws: int = DRAWS) -> Place | None:
    """The part ``small`` of ``full`` with what was measured, or None where they differ.

    ``checks``: ``cut_error``, the largest relative difference; ``left_out_edges``, edges whose removal changes nothing,
    and ``left_out_change``, the largest change of the outputs that was seen when random ones of them were removed.
    """
    border = ~small.reachable
    can_count = number.removal == "delete" and bool(border.any())
    attempts = [False, True] if can_count else [False]
    if can_count and _counts(number, small):
        attempts = [True]
    for counted in attempts:
        place = replace(small, degrees=border if counted else None, checks=dict(small.checks))
        found = _differences(number, place, full, draws)
        if found is not None:
            left_out = number.graph.num_edges - int(place.matters.sum())
            place.checks.update(cut_error=found[0], left_out_edges=left_out, left_out_change=found[1])
            return place
    return None


def _counts(number: GraphNumber, small: Place) -> bool:
    """Whether the answer of the part itself changes without edges that carry no message: they count in a degree."""
    device = small.edges.device
    own = replace(
        small,
        nodes=torch.arange(small.graph.num_nodes, device=device),
        edges=torch.arange(small.graph.num_edges, device=device),
    )
    drawn = list(_drawn(number, own, own, DRAWS))
    if _compared(number, own, own, [(drawn[0], 1)]) is None:
        return True
    rest = drawn[1:]
    side_by_side = _compared(number, own, own, [(_joined(rest), len(rest))])
    return (side_by_side or _compared(number, own, own, [(draw, 1) for draw in rest])) is None


def _differences(number: GraphNumber, small: Place, full: Place, draws: int) -> tuple[float, float] | None:
    """The largest difference, relative and absolute; None as soon as it is more than rounding."""
    if full.graph.num_nodes + full.graph.num_edges > _TINY:
        return _compared(number, small, full, ((draw, 1) for draw in _drawn(number, small, full, draws)))
    drawn = list(_drawn(number, small, full, max(draws, _MORE)))
    side_by_side = _compared(number, small, full, [(_joined(drawn), len(drawn))])
    return side_by_side or _compared(number, small, full, [(draw, 1) for draw in drawn])


def _compared(
    number: GraphNumber, small: Place, full: Place, drawn: Iterable[tuple[_Draw, int]]
) -> tuple[float, float] | None:
    error = change = 0.0
    for draw, copies in drawn:
        try:
            expected = number.outputs(full, copies, **draw.there)
            found = number.outputs(small, copies, **draw.here)
        except Exception:  # whatever a user's forward raises: nothing is proved, so nothing is left out
            return None
        error = max(error, relative(found, expected))
        if not error <= tolerance(expected):
            return None
        change = max(change, float((found - expected).abs().max()))
    return error, change


def _joined(drawn: list[_Draw]) -> _Draw:
    """Several draws as copies of one."""

    def joined(edits: list[dict[str, Any]]) -> dict[str, Any]:
        kinds = edits[0]["features"]
        return {
            "edge_keep": torch.cat([edit["edge_keep"] for edit in edits]),
            "features": {kind: torch.cat([edit["features"][kind] for edit in edits]) for kind in kinds},
        }

    return _Draw(joined([draw.here for draw in drawn]), joined([draw.there for draw in drawn]))


def _drawn(number: GraphNumber, small: Place, full: Place, draws: int) -> Iterator[_Draw]:
    generator = torch.Generator().manual_seed(0)
    device = full.edges.device

    def chance(size: int, below: float) -> Tensor:
        return (torch.rand(size, generator=generator) < below).to(device)

    idle = ~small.matters
    removable = number.removal == "delete"
    for draw in range(draws):
        kept = _KEPT[(draw if draws > 1 else 2) % len(_KEPT)]
        here = idle | chance(len(small.edges), kept)
        there = ~chance(len(full.edges), (0.0, 0.5)[draw % 2])
        gone = chance(len(small.edges), (1.0, 0.5)[draw % 2]) if removable else torch.zeros_like(idle)
        there[small.edges] = here & ~(idle & gone)
        of_small, of_full = _features(small, full, generator if draw % 2 else None)
        yield _Draw(
            {"edge_keep": here[None], "features": of_small},
            {"edge_keep": there[None], "features": of_full},
        )


def _features(small: Place, full: Place, generator: torch.Generator | None) -> tuple[Fields, Fields]:
    """Features with each row scaled by a random number (or as they are), in the part as in the whole.

    Those of stand-ins are as they are.
    """
    here, there = {}, {}
    for kind, fields in full.graph.nodes.items():
        x = fields.get("x")
        if x is None or not x.is_floating_point():
            continue
        own = small.graph.nodes[kind]["x"]
        if generator is None:
            here[kind], there[kind] = own[None], x[None]
            continue
        scale = torch.randn(len(x), generator=generator).to(x)
        there[kind] = (x * scale.view(-1, *[1] * (x.dim() - 1)))[None]
        start = small.graph.node_starts[kind]
        nodes = small.nodes[start : start + small.graph.counts[kind]] - full.graph.node_starts[kind]
        scales = torch.where(nodes >= 0, scale[nodes.clamp_min(0)], 1.0)
        here[kind] = (own * scales.view(-1, *[1] * (own.dim() - 1)).to(own))[None]
    return here, there
