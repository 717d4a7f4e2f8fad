"""Relations of an R-GCN: shared bases, the size of each relation's weights, and what each adds to every node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import RGCNConv

from explain.analysis.recording import LayerCall, recorded
from explain.guard import untouched


@dataclass(frozen=True, eq=False)
class Relations:
    """One R-GCN layer, ``z_i' = W_0 z_i + b + sum_r mean_(j in N_r(i)) W_r z_j``, relation by relation.

    Args:
        layer: its name in the network.
        coefficients: ``a_rb [relations, bases]`` of ``W_r = sum_b a_rb V_b``, or None where it has no bases.
        norms: ``|W_r|`` (Frobenius), ``[relations]``.
        edges: how many edges there are of each relation, ``[relations]``.
        adds: what each relation adds to each node, ``[relations, nodes, columns]``: the layer with its edges alone less
            the layer without edges.
        gap: how far these and what is left without edges are from the layer's output, as a share of the largest number.
    """

    layer: str
    coefficients: Tensor | None
    norms: Tensor
    edges: Tensor
    adds: Tensor
    gap: float

    @property
    def sizes(self) -> Tensor:
        """The length of what each relation adds, the mean over all nodes, ``[relations]``."""
        return self.adds.norm(dim=2).mean(1)


def relations(
    net: nn.Module,
    x: Tensor,
    edge_index: Tensor,
    edge_type: Tensor,
    *,
    call: Callable[[nn.Module], Any] | None = None,
) -> tuple[Relations, ...]:
    """`Relations` of every `RGCNConv` in one forward, in call order. Their credit: ``Shapley("relations")``.

    Args:
        net: the network.
        x: ``[nodes, features]``.
        edge_index: ``[2, edges]``.
        edge_type: the relation of each edge, ``[edges]``.
        call: how it is called, ``net(x, edge_index, edge_type)`` where not given.

    Raises:
        ValueError: the call runs no `RGCNConv` on these nodes.

    Source: Schlichtkrull et al. 2018.

    >>> net = RGCNConv(2, 2, num_relations=3, num_bases=1)
    >>> edges = torch.tensor([[0, 1, 1], [1, 0, 2]])
    >>> (layer,) = relations(net, torch.ones(3, 2), edges, torch.tensor([0, 0, 2]))
    >>> layer.coefficients.shape, layer.edges.tolist(), float(layer.sizes[1])
    (torch.Size([3, 1]), [2, 0, 1], 0.0)
    """
    ask = call or (lambda net: net(x, edge_index, edge_type))
    with untouched(net), torch.no_grad():
        with recorded(net, len(x)) as calls:
            ask(net)
        found = tuple(_read(one) for one in calls if isinstance(one.layer, RGCNConv) and one.after is not None)
    if not found:
        raise ValueError(f"{type(net).__name__} ran no RGCNConv over {len(x)} nodes; others have no weights a relation")
    return found


def _read(call: LayerCall) -> Relations:
    layer = call.layer
    assert isinstance(layer, RGCNConv)
    x, edge_index, edge_type = _arguments(*call.args, **call.kwargs)
    alone = [layer(x, edge_index[:, edge_type == r], edge_type[edge_type == r]) for r in range(layer.num_relations)]
    without = layer(x, edge_index[:, :0], edge_type[:0])
    adds = torch.stack(alone) - without
    assert call.after is not None
    gap = float((adds.sum(0) + without - call.after).abs().max() / call.after.abs().max().clamp_min(1e-12))
    coefficients = None if layer.comp is None else layer.comp.detach().clone()
    weights = layer.weight if coefficients is None else torch.einsum("rb,bio->rio", coefficients, layer.weight)
    norms, edges = weights.detach().flatten(1).norm(dim=1), edge_type.bincount(minlength=layer.num_relations)
    return Relations(call.name, coefficients, norms, edges, adds, gap)


def _arguments(x: Any, edge_index: Tensor, edge_type: Tensor) -> tuple[Any, Tensor, Tensor]:
    """What a layer is given, however it was named."""
    return x, edge_index, edge_type
