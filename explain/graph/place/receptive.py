"""The receptive field is found by asking the model, not by counting layers.

Values beyond ``k`` hops are made NaN, and the smallest ``k`` at which none of them reaches the answer is the receptive
field. Where no node lies beyond, values cannot tell how deep the model is: every edge that a path leads from is then
within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import FAR, Direction, Reach, hop_distance
from explain.graph.tensors.structure import Fields, Structure

_OTHERS = ((-1.7, 0.3), (40.0, -3.0), (-40.0, 3.0))  # what features far away are multiplied by, and moved by
_USUAL = 2  # hops that are asked about first


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
        bare: the same as ``answer`` on the graph without edges, for models of dense matrices.

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
