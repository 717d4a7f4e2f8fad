"""A deep copy of the user's module, called the way torch_geometric's explainers call: ``(x, edge_index, ...)``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from explain.graph.hooks.caches import forget
from explain.graph.number import GraphNumber
from explain.graph.tensors.apart import Apart
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import EDGE, NODE, Copies, copies
from explain.guard import copied
from explain.types import Call, Unsupported


class _Standard(nn.Module):
    """``(x, edge_index) -> [rows, outputs]``, logits or one value, whatever the user's forward takes and returns."""

    def __init__(self, net: nn.Module, number: GraphNumber, place: Place, made: Copies) -> None:
        super().__init__()
        self.net, self.made, self.pairs = net, made, number.pairs(place, made)
        self.inputs, self.part, self.apart = number.model.inputs, number.model.part, Apart()
        self.meaning, self.label = number.meaning, number.label
        self.expected = 1 if number.model.task == "graph" else None if self.pairs is None else self.pairs.size(1)

    def forward(self, x: Tensor, edge_index: Tensor, **_: Any) -> Tensor:
        graph = self.made.structure
        nodes, edges = {NODE: {**graph.nodes[NODE], "x": x}}, {EDGE: edge_index}
        edited = replace(graph, counts={NODE: len(x)}, nodes=nodes, edges=edges)
        with self.apart.given(Copies(edited, self.made.owner, 1)) as given:
            args, kwargs = self.inputs.arguments(given, self.pairs)
            rows = self.part.rows(self.net(*args, **kwargs), len(x) if self.expected is None else self.expected)
        return self.meaning.standard(rows, self.label)[0]


def module_copy(number: GraphNumber, place: Place) -> Call:
    """The number's module, copied, with the arguments of its call on the graph of a place.

    Raises:
        Unsupported: a heterogeneous graph, or one without features ``x [nodes, features]``.
    """
    model, graph = number.model, place.graph
    if NODE not in graph.counts or "x" not in graph.nodes[NODE]:
        raise Unsupported("learned masks need a homogeneous graph with features x: use Shapley or Lime")
    x, edge_index = graph.nodes[NODE]["x"], graph.edges[EDGE]
    if x.dim() != 2:
        raise Unsupported(f"learned masks need features x [nodes, features], got {list(x.shape)}: use Shapley or Lime")
    net = copied(model.net)
    for part in net.modules():
        part.training = False
        if getattr(part, "cached", False) is True:
            forget(part)
    made = copies(graph, 1)
    standard = _Standard(net, number, place, made)
    label = number.meaning.standard(number.answer[None], number.label)[1]
    row = place.focus[0][1] if len(place.focus) == 1 else 0
    return Call(standard.eval(), x, edge_index, {}, model.task, row, label, place.nodes, place.edges)
