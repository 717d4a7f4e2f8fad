"""A forward tried on the data at hand: what it says when its arguments are read in one way or another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Batch, Data, HeteroData

from explain.graph.arguments.signature import is_constant
from explain.graph.hooks.caches import uncached
from explain.graph.tensors.data_object import pair_store
from explain.graph.tensors.inputs import Inputs, structure_of
from explain.graph.tensors.structure import EdgeType, copies
from explain.guard import evaluating, other_random_states
from explain.parts import Part

TOLERANCE = 1e-4  # of two calls of one function, relative: what rounding may explain
_PAIRS = 16  # pairs of nodes that a link model is tried on, where the data names none
_LARGE = 2**21  # nodes and edges of a graph that is not run as a whole


@dataclass(frozen=True, eq=False)
class Trial:
    """One graph of the data, and the module that is tried on it; nothing of either changes."""

    module: nn.Module
    data: Data | HeteroData
    task: str
    part: Part

    @cached_property
    def large(self) -> bool:
        """Whether the graph is too large to be run as a whole."""
        edges = [store.get("edge_index") for store in self.data.edge_stores]
        return int(self.data.num_nodes or 0) + sum(e.size(-1) for e in edges if isinstance(e, Tensor)) > _LARGE

    @cached_property
    def constants(self) -> dict[str, Any]:
        """Plain numbers and texts that the data holds for itself, such as a neighbour loader's ``batch_size``.

        None of a graph among others: each may have its own, which a batch of them holds as a tensor.
        """
        if self.task == "graph":
            return {}
        held = self.data.stores[0].items()
        return {name: value for name, value in held if is_constant(value) and name != "num_nodes"}

    @cached_property
    def pair_type(self) -> EdgeType | None:
        """The edge type whose pairs are asked about: that which holds ``edge_label_index``, else the first."""
        stores = (pair_store(self.data), *self.data.edge_stores)
        return next((store._key for store in stores if getattr(store, "_key", None) is not None), None)

    @cached_property
    def pairs(self) -> Tensor | None:
        """The pairs of the data that a link model is tried on, int64 ``[2, k]``."""
        if self.task != "edge":
            return None
        store: Any = self.data if self.pair_type is None else self.data[self.pair_type]
        found = store.get("edge_label_index")
        if not isinstance(found, Tensor):
            found = store.get("edge_index")
        if not isinstance(found, Tensor) or not found.numel():
            return torch.zeros(2, 1, dtype=torch.long)
        return found[:, :_PAIRS].clone()

    def sample(self) -> Data | HeteroData:
        """A copy of the graph as the user's call gets it: a batch of one for graph tasks, with pairs for links."""
        made = self.data.clone()
        if self.task == "graph" and not isinstance(made, Batch):
            made = Batch.from_data_list([made])
        if self.pairs is not None:
            if self.pair_type is None:
                made.edge_label_index = self.pairs
            else:
                made["edge_label_index"] = made[self.pair_type].edge_label_index = self.pairs
        return made

    def says(self, net: nn.Module, inputs: Inputs, edge_keep: Tensor | None = None) -> list[Tensor] | Exception:
        """What the network answers for the graph when its arguments are read so, or why it does not.

        ``edge_keep``: bool ``[1, E]``, of the graph without some of its edges.
        """
        try:
            graph = structure_of(self.data.clone(), inputs)
            args, kwargs = inputs.arguments(copies(graph, 1, edge_keep=edge_keep), self.pairs)
            return self.asked(lambda: net(*args, **kwargs))
        except Exception as error:  # whatever a user's forward raises on arguments that are not its own
            return error

    def reached(self, net: nn.Module, inputs: Inputs) -> set[str] | None:
        """The parameters that the answer hangs on when the arguments are read so; None where that cannot be told."""
        parameters = dict(net.named_parameters())
        try:
            graph = structure_of(self.data.clone(), inputs)
            args, kwargs = inputs.arguments(copies(graph, 1), self.pairs)
            with torch.enable_grad():
                plain = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
                rows = self._answer(lambda: functional_call(net, plain, args, kwargs))
                total = sum((part.sum() for part in rows), torch.zeros(()))
                found = torch.autograd.grad(total, list(plain.values()), allow_unused=True)
        except Exception:  # a forward outside of autograd has no such proof
            return None
        return {name for name, gradient in zip(parameters, found, strict=True) if gradient is not None}

    def asked(self, ask: Callable[[], Any]) -> list[Tensor]:
        """The rows of an answer, by node type where they have types, with nothing of the module left changed."""
        with torch.no_grad():
            return self._answer(ask)

    def _answer(self, ask: Callable[[], Any]) -> list[Tensor]:
        with evaluating(self.module), other_random_states(0), uncached(self.module):
            found = ask()
        kinds = self.data.node_types if isinstance(self.data, HeteroData) else []
        if self.part.given is None and isinstance(found, Mapping) and set(found) & set(kinds):
            return [self._rows(found, self.data[kind].num_nodes, kind) for kind in kinds if kind in found]
        if self.task == "node":
            return [self._rows(found, None if kinds else self.data.num_nodes)]
        return [self._rows(found, self._asked_count)]

    def _rows(self, found: Any, expected: int | None, kind: str | None = None) -> Tensor:
        return self.part.again().rows(found, expected, kind)

    @property
    def _asked_count(self) -> int:
        """Rows in the answer for pairs or graphs."""
        return 1 if self.pairs is None else self.pairs.size(1)

    def runs(self, rows: list[Tensor] | Exception) -> TypeGuard[list[Tensor]]:
        """Whether an answer came, with numbers in rows that a number can be read from."""
        return not isinstance(rows, Exception) and self.fits(rows) and all(bool(part.isfinite().all()) for part in rows)

    def fits(self, rows: list[Tensor]) -> bool:
        """Whether these are rows that a number can be read from."""
        if not all(part.dim() for part in rows):
            return False
        found = {len(part) for part in rows}
        if self.task == "node":
            stores = self.data.node_stores if isinstance(self.data, HeteroData) else [self.data]
            return found <= {int(store.num_nodes or 0) for store in stores}
        return found == {self._asked_count}


def gap(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference between two answers; infinite where they have other shapes."""
    if [part.shape for part in found] != [part.shape for part in expected]:
        return float("inf")
    return max(
        (float((a.double() - b.double()).abs().max()) for a, b in zip(found, expected, strict=True) if a.numel()),
        default=0.0,
    )


def apart(given: list[Tensor], left: list[Tensor]) -> str:
    """Where two answers differ most: that with an argument and that without it."""
    if [part.shape for part in given] != [part.shape for part in left]:
        shapes = [" and ".join(str(list(part.shape)) for part in rows) for rows in (given, left)]
        return f"The answer is {shapes[0]} with it, {shapes[1]} without"
    first, second = max(zip(given, left, strict=True), key=lambda pair: gap([pair[0]], [pair[1]]))
    place = int((first.double() - second.double()).abs().argmax())
    row = place // max(first[0].numel(), 1)
    return f"Row {row} is {float(first.flatten()[place]):.4g} with it, {float(second.flatten()[place]):.4g} without"


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether two answers differ by rounding at most."""
    size = max((float(part.abs().max()) for part in expected if part.numel()), default=0.0)
    return gap(found, expected) <= TOLERANCE * max(size, 1e-12)
