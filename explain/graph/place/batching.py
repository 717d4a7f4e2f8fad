"""Whether several coalitions may share one forward pass: only where each answers there as it does alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from explain.graph.findings import Batching
from explain.graph.number import GraphNumber
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import Place

_KEPT = (1.0, 0.6, 0.3)  # chance of each edge in the copies that are tried
_STAY = (1.0, 0.8, 0.7)  # and of each node
_LARGE = 2**23  # numbers of a tensor that gains nothing from company
_aten = torch.ops.aten
_RANKS = {_aten.sort, _aten.topk, _aten.kthvalue}  # what argsort and msort are made of, too


def known_batching(number: GraphNumber, place: Place) -> Batching:
    """`batching`, asked once for all cuts of a model state."""
    findings = number.model.findings
    if "hops" not in place.checks:
        return batching(number, place)
    if findings.batching is None or not number.is_known:
        findings.batching = batching(number, place)
    return findings.batching


def batching(number: GraphNumber, place: Place) -> Batching:
    """How coalitions may share a pass.

    Not at all where forward ranks numbers (top-k pooling, sorted readouts): which of two that are alike up to rounding
    comes first hangs on what they are evaluated beside. Else it is tried: without edges, on other features, and for
    pooled graphs without nodes (a recurrent readout pads to the largest graph).
    """
    generator = torch.Generator().manual_seed(0)
    graph, device = place.graph, place.nodes.device
    chance = torch.tensor(_KEPT)[:, None]
    tried: dict[str, Any] = {
        "edge_keep": (torch.rand(len(_KEPT), graph.num_edges, generator=generator) < chance).to(device)
    }
    features = {}
    for kind, fields in graph.nodes.items():
        if "x" in fields and fields["x"].is_floating_point():
            x = fields["x"]
            scaled = [x * torch.rand(x.shape, generator=generator, dtype=x.dtype).to(device) for _ in _KEPT[1:]]
            features[kind] = torch.stack([x, *scaled])
    if not number.focus and number.removal == "delete":
        kept = torch.rand(len(_STAY), graph.num_nodes, generator=generator) < torch.tensor(_STAY)[:, None]
        kept[:, 0] |= ~kept.any(1)
        tried["node_keep"] = kept.to(device)

    def outputs(copies: slice) -> Tensor:
        edits = {name: value[copies] for name, value in tried.items()}
        count = len(tried["edge_keep"][copies])
        return number.outputs(place, count, features={kind: x[copies] for kind, x in features.items()}, **edits)

    try:
        one, first = _watched(lambda: outputs(slice(0, 1)))
        if one.ranks or (max(one.made) > _LARGE and "hops" not in place.checks):
            return Batching(False)
        several, both = _watched(lambda: outputs(slice(None)))
        alone = torch.cat([first, *(outputs(slice(i, i + 1)) for i in range(1, len(_KEPT)))])
    except Exception:  # whatever a user's forward raises on several graphs, or smaller ones: one by one says on which
        return Batching(False)
    return Batching(relative(both, alone) <= tolerance(alone), _squares(one, several))


def _squares(one: _Watch, several: _Watch) -> int:
    """Numbers of one copy in the largest tensor that grew faster than the copies."""
    count = len(_KEPT)
    pairs = zip(one.made, several.made, strict=True) if len(one.made) == len(several.made) else [one.most(several)]
    return max((small for small, large in pairs if large > small * count), default=0)


def _watched(ask: Callable[[], Tensor]) -> tuple[_Watch, Tensor]:
    """What is done meanwhile, and the answer."""
    with _Watch() as watch:
        answer = ask()
    return watch, answer


class _Watch(TorchDispatchMode):
    """Sees every operation of torch: the numbers that each ``made``, and whether one of them ``ranks``."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []
        self.ranks = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket in _RANKS and args[0].is_floating_point():
            self.ranks = True
        found = func(*args, **(kwargs or {}))
        self.made.append(found.numel() if isinstance(found, Tensor) else 0)
        return found

    def most(self, other: _Watch) -> tuple[int, int]:
        """The largest tensors of either."""
        return max(self.made), max(other.made)
