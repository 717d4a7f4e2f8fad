"""Weights of edges in networks that take none: on the ones they give to their edges, or on what they sum over these."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch_geometric.nn import MessagePassing

from explain.graph.tensors.structure import EDGE, NODE, Structure

Operation = Callable[..., Any]


class Weighing(TorchFunctionMode):
    """Within: some operations of a forward are other ones, in which each edge of a graph has a weight.

    Which rows are of edges is read off their number and, where an operation has node numbers, off these: the edges of
    the graph in order, with or without the loop of every node before or after them, the edges and then all of them
    turned around, or those of one relation. Whether that was right is not known here.

    Args:
        graph: without types.
        weights: ``[E]``.
    """

    operations: ClassVar[dict[str, Callable[..., Any]]]

    def __init__(self, graph: Structure, weights: Tensor) -> None:
        super().__init__()
        self.graph, self.weights = graph, weights
        self.met = 0  # operations that were changed

    def __torch_function__(
        self, func: Operation, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What the operation gives with weights."""
        kwargs = kwargs or {}
        changed = self.operations.get(getattr(func, "__name__", ""))
        return func(*args, **kwargs) if changed is None else changed(self, func, *args, **kwargs)

    def of_rows(self, count: int, *ends: Tensor) -> Tensor | None:
        """The weight of each of so many rows, whose node numbers are ``ends``; None where they are not of the edges."""
        for edges, weights in self._orders:
            if edges.size(1) == count and any(torch.equal(end, own) for end in ends for own in edges):
                self.met += 1
                return weights
        if count == len(self.weights) and not any(self._numbers_nodes(end) for end in ends):
            self.met += 1
            return self.weights
        return None

    def _numbers_nodes(self, end: Tensor) -> bool:
        """Whether these are nodes, and not places in a matrix of all pairs."""
        return not end.numel() or int(end.max()) < self.graph.counts[NODE]

    @cached_property
    def _orders(self) -> list[tuple[Tensor, Tensor]]:
        """The edges as a forward may hold them, ``[2, rows]``, and the weight of each row."""
        edges, weights = self.graph.edges[EDGE], self.weights
        nodes = torch.arange(self.graph.counts[NODE], device=edges.device)
        loops, ones = nodes.expand(2, -1), weights.new_ones(len(nodes))
        found = [(edges, weights)]
        stored = edges[0] == edges[1]
        if stored.any():  # every node is given one, whether it had one or not
            found.append((torch.cat([edges[:, ~stored], loops], 1), torch.cat([weights[~stored], ones])))
        found.append((torch.cat([edges, loops], 1), torch.cat([weights, ones])))
        found.append((torch.cat([loops, edges], 1), torch.cat([ones, weights])))
        found.append((torch.cat([edges, edges.flip(0)], 1), weights.repeat(2)))
        relation = self.graph.edge_fields[EDGE].get("edge_type")
        for value in [] if relation is None else relation.unique():
            chosen = (relation == value).nonzero().view(-1)
            found.append((edges[:, chosen], weights[chosen]))
        return found


class WeighedOnes(Weighing):
    """Within: ones that are made for the edges are their weights, ``torch.ones(edge_index.size(1))``."""

    def _made(self, func: Operation, *args: Any, **kwargs: Any) -> Any:
        found = func(*args, **kwargs)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.numel() != found.size(0) != 1:
            return found
        if not bool((found == 1).all()):
            return found
        rows = {len(weights): weights for _, weights in reversed(self._orders)}.get(len(found))
        if rows is None:
            return found
        self.met += 1
        return rows.to(found.dtype).view_as(found)

    operations: ClassVar = dict.fromkeys(("ones", "new_ones", "ones_like", "full", "new_full", "full_like"), _made)


class WeighedSums(Weighing):
    """Within: what is added up over edges, counted or laid into a matrix is multiplied by their weights."""

    def _scatter(
        self,
        func: Operation,
        into: Tensor,
        dim: int,
        index: Tensor,
        rows: Any = None,
        *args: Any,
        src: Any = None,
        source: Any = None,
        **kwargs: Any,
    ) -> Any:
        """``scatter_add``, ``scatter_reduce`` of sums and ``index_add``, and their forms in place."""
        rows = next((given for given in (rows, src, source) if given is not None), None)
        if kwargs.get("reduce", args[0] if args else "sum") == "sum":
            rows = self._weighed(rows, dim, index)
        return func(into, dim, index, rows, *args, **kwargs)

    def _weighed(self, rows: Tensor, dim: int, index: Tensor) -> Tensor:
        place = dim % rows.dim()
        line = index if index.dim() == 1 else index.movedim(place, 0).flatten(1)[:, 0] if index.numel() else index[:0]
        weights = self.of_rows(len(line), line) if rows.is_floating_point() else None
        if weights is None:
            return rows
        shape = [1] * rows.dim()
        shape[place] = -1
        return rows * weights.to(rows.dtype).view(shape)

    def _put(self, func: Operation, into: Tensor, where: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        """``index_put``, its form in place, and ``matrix[rows, columns] = values``."""
        lists = [part for part in where if isinstance(part, Tensor)] if isinstance(where, tuple | list) else []
        whole = lists and len(lists) > 1 and all(p.dim() == 1 and p.dtype == torch.long for p in lists)
        if whole and into.is_floating_point() and all(isinstance(p, Tensor | int) for p in where):
            weights = self.of_rows(len(lists[0]), *lists)
            if weights is not None:
                values = values * weights.to(into.dtype)
        return func(into, where, values, *args, **kwargs)

    def _sparse(self, func: Operation, indices: Any, values: Any = None, *args: Any, **kwargs: Any) -> Any:
        """``sparse_coo_tensor``."""
        if isinstance(indices, Tensor) and isinstance(values, Tensor) and values.is_floating_point():
            weights = self.of_rows(indices.size(1), *indices)
            values = values if weights is None else values * weights.to(values.dtype)
        return func(indices, values, *args, **kwargs)

    def _counted(self, func: Operation, numbers: Tensor, weights: Any = None, minlength: int = 0) -> Any:
        """``bincount``, which has no derivative: the same numbers as a sum."""
        own = self.of_rows(len(numbers), numbers)
        if own is None:
            return func(numbers, weights, minlength)
        summed = own if weights is None else own * weights
        size = max(minlength, int(numbers.max()) + 1 if numbers.numel() else 0)
        return summed.new_zeros(size).index_add(0, numbers, summed)

    operations: ClassVar = {
        **dict.fromkeys(
            ("scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "index_add", "index_add_"), _scatter
        ),
        **dict.fromkeys(("index_put", "index_put_", "__setitem__"), _put),
        "sparse_coo_tensor": _sparse,
        "bincount": _counted,
    }


class _Beside(WeighedSums):
    """Within: what reads edges outside of torch_geometric's layers is written down; counts of edges, degrees, are not.

    Weights of ones change nothing.
    """

    def __init__(self, graph: Structure) -> None:
        super().__init__(graph, torch.ones(graph.num_edges, device=graph.edges[EDGE].device))
        self.depth = 0  # layers that are being called
        self.found: list[str] = []

    def __torch_function__(
        self, func: Operation, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What the operation gives."""
        met, name = self.met, getattr(func, "__name__", "")
        if self.depth or name == "bincount":
            return func(*args, **(kwargs or {}))
        found = super().__torch_function__(func, types, args, kwargs)
        if self.met > met and not (name.startswith(("scatter", "index_add")) and self._counts(*args, **(kwargs or {}))):
            self.found.append(name.strip("_"))
        return found

    def _counts(self, into: Tensor, dim: int, index: Tensor, rows: Any = None, *_: Any, **named: Any) -> bool:
        """Whether ones are added up node by node."""
        rows = next((part for part in (rows, named.get("src"), named.get("source")) if part is not None), None)
        ones = isinstance(rows, Tensor) and bool((rows == 1).all())
        return ones and into.dim() == 1 and self._numbers_nodes(index)


def read_beside_layers(module: nn.Module, graph: Structure, ask: Callable[[], Any]) -> str:
    """The operation by which a forward reads its edges outside of torch_geometric's layers; empty where there is none.

    Args:
        module: whose layers.
        graph: that it is asked of; with types nothing is looked for.
        ask: calls it.
    """
    if list(graph.edges) != [EDGE]:
        return ""
    beside = _Beside(graph)

    def enter(*_: Any) -> None:
        beside.depth += 1

    def leave(*_: Any) -> None:
        beside.depth -= 1

    layers = [part for part in module.modules() if isinstance(part, MessagePassing)]
    handles = [layer.register_forward_pre_hook(enter) for layer in layers]
    handles += [layer.register_forward_hook(leave, always_call=True) for layer in layers]
    try:
        with beside:
            ask()
    finally:
        for handle in handles:
            handle.remove()
    return next(iter(beside.found), "")
