"""Where the weight of an edge stands in a network, and its number as a function of these weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from explain.graph.arguments.callables import Linked, unwrapped
from explain.graph.arguments.signature import signature_of
from explain.graph.hooks.entries import WeighedOnes, WeighedSums, Weighing
from explain.graph.number import GraphNumber
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.inputs import Inputs
from explain.graph.tensors.structure import EDGE, Structure, copies

_WEIGHT = "edge_weight"  # what is a weight an edge: a field of the data, a parameter of forward
_PARAMETERS = (_WEIGHT, "edge_weights", "weights", "edge_w")


@dataclass(frozen=True, eq=False)
class Entries:
    """How a network is given a weight an edge.

    Args:
        name: in words.
        inputs: what forward is given, the weights among it where it takes them.
        field: the field of the edges that holds them; None where nothing does.
        how: what is done within the forward, where it takes none.
    """

    name: str
    inputs: Inputs
    field: str | None = None
    how: type[Weighing] | None = None

    def weights(self, graph: Structure, like: Tensor) -> Tensor:
        """Those of the graph as it is, ``[E]``: ones where it has none."""
        stored = graph.edge_fields[EDGE].get(self.field) if self.field else None
        if stored is None:
            return torch.ones(graph.num_edges, dtype=like.dtype, device=graph.edges[EDGE].device)
        return (stored if stored.is_floating_point() else stored.to(like.dtype)).detach().reshape(-1)

    def given(self, graph: Structure, weights: Tensor) -> Structure:
        """The graph with these weights ``[E]``."""
        if self.field is None:
            return graph
        fields = graph.edge_fields[EDGE]
        stored = fields.get(self.field)
        named = {**fields, self.field: weights if stored is None else weights.reshape(stored.shape)}
        return replace(graph, edge_fields={EDGE: named})

    def within(self, graph: Structure, weights: Tensor) -> AbstractContextManager[Any]:
        """Around the forward that is given this graph."""
        return nullcontext() if self.how is None else self.how(graph, weights)


def candidates(number: GraphNumber) -> Iterator[Entries]:
    """Where the weights of edges may stand, the plainest first: in what forward is given, else in what it does."""
    inputs, fields = number.model.inputs, number.graph.edge_fields[EDGE]
    read = {source for source in inputs.sources.values() if source is not None}
    matrices = [name for name in inputs.matrices if inputs.whole or name in read]
    if matrices:
        valued = {name: replace(matrix, valued=True) for name, matrix in inputs.matrices.items()}
        yield Entries(f"the entries of {' and '.join(matrices)}", replace(inputs, matrices=valued), _WEIGHT)
    for name, values in fields.items():
        if values.numel() == values.size(0) and values.is_floating_point() and (inputs.whole or name in read):
            yield Entries(name, inputs, name)
    if inputs.whole and _WEIGHT not in fields:
        yield Entries(f"data.{_WEIGHT}", inputs, _WEIGHT)
    for name in _free(number) if _WEIGHT not in fields else ():
        yield Entries(name, replace(inputs, sources={**inputs.sources, name: _WEIGHT}), _WEIGHT)
    yield Entries("the ones that it gives to its edges", inputs, how=WeighedOnes)
    yield Entries("what it sums over its edges", inputs, how=WeighedSums)


def _free(number: GraphNumber) -> list[str]:
    """Parameters of forward that are a weight an edge, and are given nothing."""
    net, inputs = number.model.net, number.model.inputs
    if inputs.whole:
        return []
    module = unwrapped(number.module)
    names = signature_of(module, net.encoder if isinstance(net, Linked) else module.forward).names
    return [name for name in names if name in _PARAMETERS and inputs.sources.get(name) is None]


class _Weighed(nn.Module):
    """The user's network, called within what gives edges their weights."""

    def __init__(self, net: nn.Module, entries: Entries) -> None:
        super().__init__()
        self.net, self.entries = net, entries
        self.now: tuple[Structure, Tensor] | None = None
        self.met = 0  # operations that gave edges their weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network answers with the weights of now."""
        assert self.now is not None
        with self.entries.within(*self.now) as mode:
            found = self.net(*args, **kwargs)
        self.met += 0 if mode is None else mode.met
        return found


class WeighedNumber:
    """The number as a function of the weights of edges.

    Args:
        number: whose answers are asked for.
        entries: where the weights stand.
    """

    def __init__(self, number: GraphNumber, entries: Entries) -> None:
        self.entries = entries
        self.number, model = copy.copy(number), copy.copy(number.model)
        self.net = _Weighed(model.net, entries)
        model.net, model.inputs = self.net, entries.inputs
        self.number.model = model

    @property
    def met(self) -> int:
        """How many operations of the forward gave edges their weights, where it takes none."""
        return self.net.met

    def outputs(self, place: Place, weights: Tensor) -> Tensor:
        """The explained row of copies whose edges have these weights ``[copies, E]``, ``[copies, outputs]``."""
        made = copies(place.graph, len(weights))
        structure = self.entries.given(made.structure, weights.reshape(-1))
        self.net.now = structure, weights.reshape(-1)
        return self.number.answers(place, replace(made, structure=structure))

    def numbers(self, place: Place, weights: Tensor) -> Tensor:
        """The number with these weights ``[copies, E]``, float64 ``[copies]``."""
        return self.number.read(self.outputs(place, weights).double())
