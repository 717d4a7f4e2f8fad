"""Where edits of a graph are evaluated: the part of it that training examples are read from, or the whole.

The receptive field is found by asking the model (see `receptive`). The cuts are then held against the whole graph,
with random edges and features missing inside them and outside, and given up where the answers differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.graph.hooks.messages import scaled_in_copies
from explain.graph.network import GraphNetwork
from explain.graph.number import GraphNumber
from explain.graph.place.receptive import receptive_field
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import Focus, Place, Reach, cut, whole
from explain.graph.tensors.structure import Fields, Structure, copies
from explain.guard import evaluating
from explain.types import Parameters

ASKED = 4  # training examples whose receptive field is measured
DRAWS = 3  # random graphs on which cuts and whole are compared


@dataclass(frozen=True, eq=False)
class Site:
    """A part of the graph and the ``m`` training examples that are read from it, the foci of ``place`` in their order.

    ``examples [m]``: their positions in the training set. ``width``: nodes of an example: 1, 2 for pairs, 0 for graphs.
    """

    place: Place
    examples: Tensor
    width: int

    def outputs(
        self, model: GraphNetwork, params: Parameters | None, count: int, edits: dict[str, Any] | None = None
    ) -> Tensor:
        """Of each example in each of ``count`` edited copies, ``[count, m, outputs]``."""
        graph, changes = self.place.graph, dict(edits or {})
        amounts = changes.pop("amounts", None)
        made = copies(graph, count, **changes)
        kind = self.place.focus[0][0] if self.width else None
        with evaluating(model.module), scaled_in_copies(model.module, graph, made, amounts):
            found = model.outputs(made, self._pairs(count), kind, params)
        found = found.reshape(count, -1, found.size(1))
        return found[:, self._numbers()[:, 0]] if self.width == 1 else found

    def _numbers(self) -> Tensor:
        """Of the nodes of each example within their types, int64 ``[m, width]``."""
        numbers = [number for _, number in self.place.focus]
        return torch.tensor(numbers, device=self.place.nodes.device).reshape(-1, self.width)

    def _pairs(self, count: int) -> Tensor | None:
        """The nodes of each pair in each copy, ``[2, count * m]``."""
        if self.width != 2:
            return None
        pairs = self._numbers().T
        sizes = torch.tensor([self.place.graph.counts[kind] for kind, _ in self.place.focus[:2]], device=pairs.device)
        steps = sizes[:, None] * torch.arange(count, device=pairs.device)
        return (pairs[:, None] + steps[:, :, None]).reshape(2, -1)


class Sites(NamedTuple):
    """``number``: where the number is read; ``apart``: a site an example; ``together``: one for all of them.

    ``hops``: the receptive field that they are cut to, None where they are the whole graph.
    """

    number: Site
    apart: list[Site]
    together: Site
    hops: int | None


def sites(number: GraphNumber, foci: list[Focus]) -> Sites:
    """The sites of the number and of training examples, each given by its nodes: cuts where they answer as well."""
    full = whole_sites(number, foci)
    with torch.no_grad():
        found = _reach(number, [number.focus, *foci[:: max(1, len(foci) // ASKED)]]) if number.focus else None
        if found is None:
            return full
        made = Sites(
            replace(full.number, place=cut(number.graph, number.focus, *found[:2])),
            [
                Site(cut(number.graph, focus, *found[:2]), full.together.examples[[i]], len(focus))
                for i, focus in enumerate(foci)
            ],
            replace(full.together, place=cut(number.graph, full.together.place.focus, *found[:2])),
            found.hops,
        )
        return made if _alike(number, made, full) else full


def whole_sites(number: GraphNumber, foci: list[Focus]) -> Sites:
    """The same, each in the whole graph."""
    width, together = len(number.focus), tuple(node for focus in foci for node in focus)
    asked = Site(whole(number.graph, number.focus), torch.zeros(0, dtype=torch.long), width)
    everyone = Site(whole(number.graph, together), torch.arange(len(foci)), width)
    return Sites(asked, [everyone] if foci else [], everyone, None)


def _reach(number: GraphNumber, foci: list[Focus]) -> Reach | None:
    """The largest receptive field of these examples; None where one has none, or they differ in direction."""
    found: list[Reach] = []

    def answer(features: Fields, site: Site) -> Tensor:
        return site.outputs(number.model, None, 1, {"features": {kind: x[None] for kind, x in features.items()}})

    for focus in foci:
        site = Site(whole(number.graph, focus), torch.zeros(0, dtype=torch.long), len(focus))
        hint = next((reach for reach in reversed(found) if reach.measured), None)
        reach = receptive_field(partial(answer, site=site), number.graph, site.place.flat_focus(), hint)
        if reach is None:
            return None
        found.append(reach)
    told = [reach for reach in found if reach.measured and reach.hops] or found
    return None if len({reach.direction for reach in told}) > 1 else max(told)


def _alike(number: GraphNumber, made: Sites, full: Sites) -> bool:
    """Whether cuts and whole graph give the same outputs once edges and features are missing anywhere.

    The site of an example is asked once, on one of the random graphs.
    """
    for draw, edits in enumerate(_random_edits(number.graph)):
        expected = full.together.outputs(number.model, None, 1, edits)[0]
        of_number = full.number.outputs(number.model, None, 1, edits)[0]
        pairs = [(made.number, of_number), (made.together, expected)]
        pairs += [(site, expected[site.examples]) for site in made.apart[draw::DRAWS]]
        for site, wanted in pairs:
            found = site.outputs(number.model, None, 1, _within(site.place, number.graph, edits))[0]
            if not relative(found, wanted) <= tolerance(wanted):
                return False
    return True


def _random_edits(graph: Structure) -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    device = graph.flat_edges.device
    for kept in torch.linspace(0.9, 0.4, DRAWS).tolist():
        features = {}
        for kind, fields in graph.nodes.items():
            x = fields["x"]
            features[kind] = (x * torch.rand(x.shape, generator=generator, dtype=x.dtype).to(device))[None]
        edges = torch.rand(1, graph.num_edges, generator=generator).to(device) < kept
        yield {"edge_keep": edges, "features": features}


def _within(place: Place, graph: Structure, edits: dict[str, Any]) -> dict[str, Any]:
    """The same edits in a part of the graph; stand-ins stay as they are."""
    features = {}
    for kind, start in place.graph.node_starts.items():
        nodes = place.nodes[start : start + place.graph.counts[kind]]
        there = edits["features"][kind][0, (nodes - graph.node_starts[kind]).clamp_min(0)]
        real = (nodes >= 0).view(-1, *[1] * (there.dim() - 1))
        features[kind] = torch.where(real, there, place.graph.nodes[kind]["x"])[None]
    return {"edge_keep": edits["edge_keep"][:, place.edges], "features": features}
