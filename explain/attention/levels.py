"""Maps of the relations of a typed graph put together: one map a layer, over the nodes of all types.

Which relations stand side by side and which layer reads what another wrote is not guessed from names: the outputs of
layers are moved, and it is seen whose inputs move with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch_geometric.nn import HANConv, MessagePassing

from explain.attention.maps import AttentionMap
from explain.types import TypedEdges, Unsupported

_ALIKE = "each relation that reaches a node has a softmax of its own: the node's share is split alike over them"
_JOINT = "one softmax over the neighbours of all relations"
_SEMANTIC = "a softmax a relation, times that over relations (semantic attention)"


@dataclass
class LayerCall:
    """One call of a message-passing layer: its maps, and the floating-point tensors that it was given."""

    name: str
    layer: MessagePassing
    maps: list[AttentionMap] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Levels:
    """One map a layer, ``maps``, over the flat numbers of the nodes of all types; in call order.

    ``places``: of each map, the flat number of the edge that each of its entries is, -1 for a loop of the layer's own;
    ``layers``: whose maps were put together; ``shared``: how; ``broken``: the first that does not read what the one
    before wrote, with its reason, or None.
    """

    maps: list[AttentionMap]
    places: list[Tensor]
    layers: list[list[str]]
    shared: list[str]
    broken: str | None

    def to_players(self, flows: Sequence[Tensor], owner: Tensor, count: int) -> tuple[Tensor, int]:
        """Credit of the entries of each map as credit of the edges' owners, and how many of these have no entry."""
        scores, seen = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool)
        for places, flow in zip(self.places, flows, strict=True):
            own = torch.where(places >= 0, owner[places.clamp_min(0)], -1).cpu()
            scores.index_add_(0, own[own >= 0], flow.cpu()[own >= 0])
            seen[own[own >= 0]] = True
        return scores, int((~seen).sum())


@contextmanager
def layer_calls(
    net: nn.Module, maps: Sequence[AttentionMap] = (), moved: frozenset[int] = frozenset()
) -> Iterator[list[LayerCall]]:
    """Within: calls of message-passing layers, with what was added to ``maps`` meanwhile; some outputs are moved."""
    calls: list[LayerCall] = []
    begun: list[tuple[LayerCall, int]] = []

    def enter(name: str, layer: MessagePassing, args: Any, kwargs: Any) -> None:
        given = [each.detach().clone() for each in _pytree.tree_leaves((args, kwargs)) if _is_floating(each)]
        begun.append((LayerCall(name, layer, inputs=given), len(maps)))

    def leave(layer: MessagePassing, _: Any, output: Any) -> Any:
        call, before = begun.pop()
        call.maps = list(maps[before:])
        calls.append(call)
        return _pytree.tree_map(_moved, output) if len(calls) - 1 in moved else None

    handles = []
    for name, part in net.named_modules():
        if isinstance(part, MessagePassing):
            handles.append(part.register_forward_pre_hook(partial(enter, name), with_kwargs=True))
            handles.append(part.register_forward_hook(leave))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _is_floating(each: Any) -> bool:
    return isinstance(each, Tensor) and each.is_floating_point() and each.layout == torch.strided


def _moved(each: Any) -> Any:
    if not _is_floating(each):
        return each
    return each * 1.5 + torch.linspace(0.5, 1.5, each.numel(), dtype=each.dtype, device=each.device).view_as(each)


class _Part(NamedTuple):
    """One map: its relation (None: all of them), the edges and their flat ends, the mean weights, the layer's call."""

    relation: int | None
    places: Tensor
    source: Tensor
    target: Tensor
    weights: Tensor


def levels(calls: Sequence[LayerCall], edges: TypedEdges, again: Callable[[frozenset[int]], list[LayerCall]]) -> Levels:
    """Put maps together, layer by layer.

    Args:
        calls: of one run, in order.
        edges: of the graph.
        again: the calls of another run in which the outputs of these calls are moved.

    Raises:
        Unsupported: dense maps other than the semantic attention of `HANConv`; edges that cannot be told apart.
    """
    numbers = [number for number, call in enumerate(calls) if call.maps]
    parts = {number: _parts(calls[number], edges) for number in numbers}
    groups, broken = _side_by_side(calls, numbers, parts, again)
    made = [_joined([(calls[number], parts[number]) for number in group], edges) for group in groups]
    return Levels(
        [attention for attention, _, _ in made],
        [places for _, places, _ in made],
        [[calls[number].name for number in group] for group in groups],
        [how for _, _, how in made],
        broken,
    )


def _parts(call: LayerCall, edges: TypedEdges) -> list[_Part]:
    found = []
    for attention in call.maps:
        if attention.edge_index is None:
            if not isinstance(call.layer, HANConv):
                raise Unsupported(
                    f"{call.name} has a dense map among those along typed edges, which do not chain: choose layers by "
                    "modules=; `with capture(net) as maps` gives the maps themselves"
                )
            continue
        relation, places, ends = edges.find(call.name, attention.edge_index)
        source, target = ends if attention.flow == "source_to_target" else ends.flip(0)
        found.append(_Part(relation, places, source, target, attention.mean()))
    return found


def _side_by_side(
    calls: Sequence[LayerCall],
    numbers: list[int],
    parts: dict[int, list[_Part]],
    again: Callable[[frozenset[int]], list[LayerCall]],
) -> tuple[list[list[int]], str | None]:
    """Calls whose inputs do not hang on one another, in order, each group reading what the one before wrote."""
    groups: list[list[int]] = []
    broken, first = None, 0
    while first < len(numbers):
        last = _other_relations(calls, numbers, parts, first)
        if last == len(numbers) and last - first == 1:
            groups.append(numbers[first:])
            break
        moved = again(frozenset(numbers[first:last]))
        hangs = [_differ(calls[number], moved[number]) for number in numbers]
        later = next((i for i in range(first + 1, last) if hangs[i]), last)
        groups.append(numbers[first:later])
        if later == last < len(numbers) and not hangs[later]:
            broken = broken or f"{calls[numbers[later]].name} does not read what {calls[numbers[first]].name} wrote"
        first = later
    return groups, broken


def _other_relations(calls: Sequence[LayerCall], numbers: list[int], parts: dict[int, list[_Part]], first: int) -> int:
    """Up to where calls may stand side by side: no relation twice, none that weighs several relations itself."""
    known: set[int | None] = set()
    for place in range(first, len(numbers)):
        own = [part.relation for part in parts[numbers[place]]]
        whole = None in own or isinstance(calls[numbers[place]].layer, HANConv)
        if place > first and (whole or known & {*own}):
            return place
        if whole:
            return place + 1
        known |= {*own}
    return len(numbers)


def _differ(one: LayerCall, other: LayerCall) -> bool:
    pairs = zip(one.inputs, other.inputs, strict=True)
    return any(a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def _joined(group: list[tuple[LayerCall, list[_Part]]], edges: TypedEdges) -> tuple[AttentionMap, Tensor, str]:
    """The map of all relations together, its edges, and how it was made."""
    call = group[0][0]
    own = [part for _, parts in group for part in parts]
    if any(isinstance(each.layer, HANConv) for each, _ in group):
        shares = _semantic(call, edges)
        weights, how = [part.weights * shares[part.relation or 0] for part in own], _SEMANTIC
    elif len(own) == 1:
        weights, how = [own[0].weights], _JOINT if own[0].relation is None else "one relation"
    else:
        reached = torch.zeros(edges.nodes, dtype=torch.float64, device=own[0].target.device)
        for part in own:
            reached[part.target.unique()] += 1
        weights, how = [part.weights / reached[part.target] for part in own], _ALIKE
    ends = torch.stack([torch.cat([part.source for part in own]), torch.cat([part.target for part in own])])
    attention = AttentionMap(torch.cat(weights)[:, None], call.name, ends, (edges.nodes, edges.nodes))
    return attention, torch.cat([part.places for part in own]), how


def _semantic(call: LayerCall, edges: TypedEdges) -> dict[int, float]:
    """The weight of each relation in `HANConv`, which has a softmax over those into each type, type by type.

    Raises:
        Unsupported: other maps than these.
    """
    dense = [attention for attention in call.maps if attention.edge_index is None]
    into: dict[int, list[int]] = {}
    for relation, kind in enumerate(edges.into):
        into.setdefault(kind, []).append(relation)
    several = [into[kind] for kind in sorted(into) if len(into[kind]) > 1]
    if [attention.keys for attention in dense] != [len(relations) for relations in several]:
        raise Unsupported(
            f"{call.name} weighs {[attention.keys for attention in dense]} relations at once, and the graph has "
            f"{[len(relations) for relations in several]} into its types: `with capture(net) as maps` gives the maps"
        )
    shares = {relations[0]: 1.0 for relations in into.values() if len(relations) == 1}
    for relations, attention in zip(several, dense, strict=True):
        shares |= dict(zip(relations, attention.mean()[0].tolist(), strict=True))
    return shares
