"""Lay an edge mask on the edges that a layer really propagates, wherever the layer has moved them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import is_sparse

from explain.types import Unsupported

Columns = Callable[[str, Any], Tensor]


@contextmanager
def aligned_masks(module: nn.Module, edge_index: Tensor, columns: Columns | None = None) -> Iterator[dict[str, int]]:
    """Within: torch_geometric's edge masks on a *copy* of a model meet the right messages.

    torch_geometric lays a mask of ``E`` entries on ``E`` messages by position alone, although layers move stored
    self-loops to the end. Here every propagated edge finds its column of ``edge_index`` by its ends and its order among
    parallel edges, or as ``columns`` says; self-loops that a layer adds for itself keep the amount 1.

    Yields how many other propagated edges of each layer have no column, by the layer's name.

    Raises:
        Unsupported: a layer that propagates a sparse matrix.
    """
    unmasked: dict[str, int] = {}
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, MessagePassing) and layer.explain is not False:
            handles.append(_align(layer, name, edge_index, unmasked, columns))
    try:
        yield unmasked
    finally:
        for layer, handle in handles:
            handle.remove()
            del layer.explain_message


def _align(
    layer: MessagePassing, name: str, edge_index: Tensor, unmasked: dict[str, int], columns: Columns | None
) -> tuple[MessagePassing, Any]:
    places: list[Tensor] = []

    def remember(layer: MessagePassing, inputs: tuple[Any, ...]) -> None:
        propagated = inputs[0]
        if columns is not None:
            places[:], unmasked[name] = [columns(name, propagated)], 0
            return
        if is_sparse(propagated):
            raise Unsupported(
                "edge masks need edge_index as a [2, edges] tensor, got a sparse matrix: use Shapley or Lime"
            )
        if places and places[0].numel() == propagated.size(1) and propagated is seen[0]:
            return
        places[:], seen[:] = [columns_of(propagated, edge_index)], [propagated]
        strangers = (places[0] < 0) & (propagated[0] != propagated[1])
        unmasked[name] = int(strangers.sum())

    def explain_message(self: MessagePassing, inputs: Tensor, dim_size: int | None) -> Tensor:
        mask = self._edge_mask.sigmoid() if self._apply_sigmoid else self._edge_mask
        amounts = torch.cat([mask, mask.new_ones(1)])[places[0]]  # -1, an edge without a column, is the 1 at the end
        shape = [1] * inputs.dim()
        shape[self.node_dim] = -1
        return inputs * amounts.view(shape)

    seen: list[Tensor] = []
    # torch_geometric reads these; as text it would look the names up in the module where the layer is written
    explain_message.__annotations__ = {"inputs": Tensor, "dim_size": Optional[int], "return": Tensor}  # noqa: UP045
    layer.explain_message = explain_message.__get__(layer)
    return layer, layer.register_propagate_forward_pre_hook(remember)


def columns_of(propagated: Tensor, stored: Tensor) -> Tensor:
    """The column of ``stored [2, E]`` that each propagated edge ``[2, E']`` is, -1 for none; int64 ``[E']``.

    The n-th of several parallel edges is the n-th of the stored ones.

    >>> columns_of(torch.tensor([[1, 0, 1], [0, 0, 1]]), torch.tensor([[0, 1], [0, 0]]))
    tensor([ 1,  0, -1])
    """
    if torch.equal(propagated, stored):
        return torch.arange(stored.size(1), device=stored.device)
    edges = torch.cat([stored, propagated], 1)
    nodes = int(edges.max()) + 1 if edges.numel() else 0
    keys = edges[0] * nodes + edges[1]
    own, wanted = (_numbered(part) for part in keys.split([stored.size(1), propagated.size(1)]))
    most = 1 + max(int(part[1].max()) if len(part[1]) else 0 for part in (own, wanted))
    have, want = own[0] * most + own[1], wanted[0] * most + wanted[1]
    order = have.argsort()
    place = torch.searchsorted(have[order], want).clamp(max=max(len(have) - 1, 0))
    if not len(have):
        return torch.full_like(want, -1)
    return torch.where(have[order][place] == want, order[place], -1)


def _numbered(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Keys, and of each how many equal ones come before it."""
    order = keys.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(keys), device=keys.device) - torch.searchsorted(keys[order], keys[order])
    return keys, rank
