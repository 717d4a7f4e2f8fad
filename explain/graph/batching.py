"""Whether several coalitions may share one forward pass: only where each answers there as it does alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from explain.graph.agreement import relative, tolerance
from explain.graph.computation import Place

if TYPE_CHECKING:
    from explain.graph.targets import GraphTarget

_KEPT = (1.0, 0.6, 0.3)  # chance of each edge and node of the copies that are tried
_aten = torch.ops.aten
_RANKS = {_aten.sort, _aten.topk, _aten.kthvalue}  # what argsort and msort are made of, too


def known_together(target: GraphTarget, place: Place) -> bool:
    """`together`, asked once for all cuts of a model state."""
    programs = target.model.programs
    if "hops" not in place.checks:
        return together(target, place)
    if programs.together is None or not programs.known(target):
        programs.together = together(target, place)
    return programs.together


def together(target: GraphTarget, place: Place) -> bool:
    """Whether different coalitions evaluated together answer as each does alone.

    Not where forward ranks numbers (top-k pooling, sorted readouts): which of two that are alike up to rounding comes
    first hangs on what they are evaluated beside. Else it is tried: without edges, on other features, and for pooled
    graphs without nodes (a recurrent readout pads to the largest graph).
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
    if not target.focus and target.removal == "delete":
        kept = torch.rand(len(_KEPT), graph.num_nodes, generator=generator) < chance
        kept[:, 0] |= ~kept.any(1)
        tried["node_keep"] = kept.to(device)

    def outputs(copies: slice) -> Tensor:
        edits = {name: value[copies] for name, value in tried.items()}
        count = len(tried["edge_keep"][copies])
        return target.outputs(place, count, features={kind: x[copies] for kind, x in features.items()}, **edits)

    try:
        if ranks(lambda: outputs(slice(0, 1))):
            return False
        both = outputs(slice(None))
        alone = torch.cat([outputs(slice(i, i + 1)) for i in range(len(_KEPT))])
    except Exception:  # whatever a user's forward raises on several graphs, or smaller ones: one by one says on which
        return False
    return relative(both, alone) <= tolerance(alone)


def ranks(ask: Callable[[], Any]) -> bool:
    """Whether floating-point numbers are sorted meanwhile."""
    with _Watch() as watch:
        ask()
    return watch.seen


class _Watch(TorchDispatchMode):
    """Sees every operation, also those within compiled code of torch."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket in _RANKS and args[0].is_floating_point():
            self.seen = True
        return func(*args, **(kwargs or {}))
