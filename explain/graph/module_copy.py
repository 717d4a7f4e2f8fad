"""A deep copy of the user's module, called the way torch_geometric's explainers call: ``(x, edge_index, ...)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from explain.graph.apart import Apart
from explain.graph.caches import forget
from explain.graph.structure import EDGE, NODE, Copies, Structure, copies
from explain.guard import copied
from explain.types import Call, Unsupported

if TYPE_CHECKING:
    from explain.graph.targets import GraphTarget


class _Standard(nn.Module):
    """``(x, edge_index) -> [rows, outputs]``, logits or one value, whatever the user's forward takes and returns."""

    def __init__(self, net: nn.Module, target: GraphTarget, made: Copies) -> None:
        super().__init__()
        self.net, self.made, self.pairs = net, made, target._pairs(target.node_place, made)
        self.inputs, self.part, self.apart = target.model.inputs, target.model.part, Apart()
        self.meaning, self.label = target.meaning, target.label
        self.expected = 1 if target.model.task == "graph" else None if self.pairs is None else self.pairs.size(1)

    def forward(self, x: Tensor, edge_index: Tensor, **_: Any) -> Tensor:
        graph = self.made.structure
        nodes, edges = {NODE: {**graph.nodes[NODE], "x": x}}, {EDGE: edge_index}
        edited = Structure({NODE: len(x)}, nodes, edges, graph.edge_fields, graph.shared)
        with self.apart.given(Copies(edited, self.made.batch, 1)) as given:
            args, kwargs = self.inputs.arguments(given, self.pairs)
            rows = self.part.rows(self.net(*args, **kwargs), len(x) if self.expected is None else self.expected)
        return self.meaning.standard(rows, self.label)[0]


def module_copy(target: GraphTarget) -> Call:
    """The target's module, copied, with the arguments of its call on the computation graph.

    Raises:
        Unsupported: a heterogeneous graph, or one without features ``x [nodes, features]``.
    """
    place, model = target.node_place, target.model
    graph = place.graph
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
    standard = _Standard(net, target, made)
    label = target.meaning.standard(target.answer[None], target.label)[1]
    row = place.focus[0][1] if len(place.focus) == 1 else 0
    return Call(standard.eval(), x, edge_index, {}, model.task, row, label, place.nodes, place.edges)
