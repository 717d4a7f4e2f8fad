"""A deep copy of the user's module, called the way torch_geometric's explainers call: ``(x, edge_index, ...)``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from explain.graph.hooks.caches import forget
from explain.graph.hooks.propagated import edges_of
from explain.graph.number import GraphNumber
from explain.graph.players.absent_features import feature_matrix
from explain.graph.players.kinds import owners
from explain.graph.tensors.apart import Apart
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import EDGE, NODE, Copies, Fields, Structure, copies
from explain.guard import copied
from explain.types import Call, Players, Unsupported


class _Standard(nn.Module):
    """``(x, edge_index) -> [rows, outputs]``, logits or one value, whatever the user's forward takes and returns."""

    def __init__(self, net: nn.Module, number: GraphNumber, place: Place, made: Copies) -> None:
        super().__init__()
        self.net, self.made, self.pairs = net, made, number.pairs(place, made)
        self.inputs, self.part, self.apart = number.model.inputs, number.model.part, Apart()
        self.meaning, self.label = number.meaning, number.label
        self.kind = number.focus[0][0] if len(number.focus) == 1 else None
        self.expected = 1 if number.model.task == "graph" else None if self.pairs is None else self.pairs.size(1)

    def forward(self, x: Tensor, edge_index: Tensor, **_: Any) -> Tensor:
        edited = self._edited(x, edge_index)
        expected = edited.counts[self.kind or NODE] if self.expected is None else self.expected
        with self.apart.given(Copies(edited, self.made.owner, 1)) as given:
            args, kwargs = self.inputs.arguments(given, self.pairs)
            rows = self.part.rows(self.net(*args, **kwargs), expected, self.kind)
        return self.meaning.standard(rows, self.label)[0]

    def _edited(self, x: Tensor, edge_index: Tensor) -> Structure:
        """The graph with these features and edges."""
        graph = self.made.structure
        nodes, edges = {NODE: {**graph.nodes[NODE], "x": x}}, {EDGE: edge_index}
        return replace(graph, counts={NODE: len(x)}, nodes=nodes, edges=edges)


class _Typed(_Standard):
    """The same of a typed graph: ``x`` side by side as in `_side_by_side`; the edges are its own."""

    def _edited(self, x: Tensor, edge_index: Tensor) -> Structure:
        graph = self.made.structure
        features, first = {}, 0
        for kind, start in graph.node_starts.items():
            own, width = graph.nodes[kind].get("x"), feature_matrix(graph, kind).size(1)
            if own is not None and own.is_floating_point():
                block = x[start : start + graph.counts[kind], first : first + width]
                features[kind] = block.reshape(own.shape)
            first += width
        return graph.with_features(features)


def module_copy(number: GraphNumber, place: Place) -> Call:
    """The number's module, copied, with the arguments of its call on the graph of a place.

    Raises:
        Unsupported: a graph without features ``x [nodes, features]``.
    """
    model, graph = number.model, place.graph
    typed = NODE not in graph.counts
    features = _side_by_side(graph) if typed else graph.nodes[NODE].get("x")
    if features is None:
        raise Unsupported("learned masks need a graph with features x: use Shapley or Lime")
    if features.dim() != 2:
        raise Unsupported(
            f"learned masks need features x [nodes, features], got {list(features.shape)}: use Shapley or Lime"
        )
    net = copied(model.net)
    for part in net.modules():
        part.training = False
        if getattr(part, "cached", False) is True:
            forget(part)
    made = copies(graph, 1)
    standard = (_Typed if typed else _Standard)(net, number, place, made)
    label = number.meaning.standard(number.answer[None], number.label)[1]
    row = place.focus[0][1] if len(place.focus) == 1 else 0
    call = Call(standard.eval(), features, graph.flat_edges, {}, model.task, row, label, place.nodes, place.edges)
    if any("edge_type" in fields for fields in graph.edge_fields.values()) or typed:
        call = call._replace(columns=lambda layer, propagated: edges_of(propagated, graph, layer))
    return call._replace(atoms=lambda players: _atoms(players, place, number.graph)) if typed else call


def _side_by_side(graph: Structure) -> Tensor | None:
    """Features of all types, each in its own rows and columns: ``[nodes of all types, columns of all types]``.

    Those that are whole numbers are zeros here; None where no others are.
    """
    found: Fields = {kind: feature_matrix(graph, kind) for kind in graph.counts}
    floating = [x for x in found.values() if x.is_floating_point() and x.size(1)]
    if not floating:
        return None
    return torch.block_diag(
        *(x if x.is_floating_point() else torch.zeros_like(x, dtype=floating[0].dtype) for x in found.values())
    )


def _atoms(players: Players, place: Place, graph: Structure) -> list[Tensor]:
    """Where the atoms of each player stand among all edges, nodes or columns of a place.

    Raises:
        ValueError: a player that is not in this part of the graph.
        Unsupported: a player without a feature that a mask could multiply.
    """
    owner = owners(players, place, graph).cpu()
    if players.kind != "edges":
        _check_masked(players, place.graph, owner)
    return [(owner == player).nonzero().view(-1) for player in range(len(players))]


def _check_masked(players: Players, graph: Structure, owner: Tensor) -> None:
    first = 0
    for kind, count in graph.counts.items():
        x = feature_matrix(graph, kind)
        size = count if players.kind == "nodes" else x.size(1)
        owned, first = owner[first : first + size] < len(players), first + size
        if bool(owned.any()) and not (x.is_floating_point() and x.size(1)):
            what = f"x of {kind} is {x.dtype}" if x.size(1) else f"{kind} has no x"
            raise Unsupported(
                f"masks of {players.kind} multiply floating-point features, {what}: use edges, or Shapley"
            )
