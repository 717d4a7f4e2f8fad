"""A deep copy of the user's module, called the way torch_geometric's explainers call: ``(x, edge_index, ...)``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from explain.derivatives import Derivative
from explain.graph.hooks.caches import forget
from explain.graph.hooks.propagated import edges_of
from explain.graph.number import GraphNumber
from explain.graph.players.absent_features import feature_matrix
from explain.graph.players.kinds import owners
from explain.graph.reading.entries import Entries
from explain.graph.reading.weighing import Proof, derivative_by_weights, presence
from explain.graph.tensors.apart import Apart
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import EDGE, NODE, Copies, Fields, Structure, copies
from explain.guard import copied
from explain.types import Call, Players, Unsupported


class _Weights(MessagePassing):
    """The weight of each edge as its only message, which is not added up: torch_geometric's masks of edges lie here."""

    def forward(self, edge_index: Tensor, weights: Tensor) -> Tensor:
        """``[E]``, masked where there is a mask."""
        nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
        return self.propagate(edge_index, weights=weights[:, None], size=(nodes, nodes)).view(-1)

    def message(self, weights: Tensor) -> Tensor:
        """One column."""
        return weights

    def aggregate(self, inputs: Tensor) -> Tensor:
        """As they are, in the order of the edges."""
        return inputs


class _Standard(nn.Module):
    """``(x, edge_index) -> [rows, outputs]``, logits or one value, whatever the user's forward takes and returns.

    Where ``entries`` says where the weights of edges stand, masks of edges multiply these.
    """

    def __init__(
        self, net: nn.Module, number: GraphNumber, place: Place, made: Copies, entries: Entries | None = None
    ) -> None:
        super().__init__()
        self.net, self.made, self.pairs = net, made, number.pairs(place, made)
        self.entries = entries
        if entries is not None:
            for part in net.modules():
                if isinstance(part, MessagePassing):
                    part.explain = False  # torch_geometric lays no mask there
            self.layer, self.weights = _Weights(), entries.weights(made.structure, number.answer)
        self.inputs = number.model.inputs if entries is None else entries.inputs
        self.part, self.apart = number.model.part, Apart()
        self.meaning, self.label = number.meaning, number.label
        self.kind = number.focus[0][0] if len(number.focus) == 1 else None
        self.expected = 1 if number.model.task == "graph" else None if self.pairs is None else self.pairs.size(1)

    def forward(self, x: Tensor, edge_index: Tensor, **_: Any) -> Tensor:
        edited = self._edited(x, edge_index)
        within: AbstractContextManager[Any] = nullcontext()
        if self.entries is not None:
            weights = self.layer(edge_index, self.weights)
            edited = self.entries.given(edited, weights)
            within = self.entries.within(edited, weights)
        expected = edited.counts[self.kind or NODE] if self.expected is None else self.expected
        with self.apart.given(Copies(edited, self.made.owner, 1)) as given:
            args, kwargs = self.inputs.arguments(given, self.pairs)
            with within:
                answer = self.net(*args, **kwargs)
            rows = self.part.rows(answer, expected, self.kind)
        return self.meaning.standard(rows, self.label)[0]

    def _edited(self, x: Tensor, edge_index: Tensor) -> Structure:
        """The graph with these features and edges."""
        graph = self.made.structure
        features = {"x": x} if "x" in graph.nodes[NODE] else {}
        nodes, edges = {NODE: {**graph.nodes[NODE], **features}}, {EDGE: edge_index}
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

    A graph without features has ``x [nodes, 0]`` there, which the module is not given.

    Raises:
        Unsupported: types without features, or features that are not ``x [nodes, features]``.
    """
    model, graph = number.model, place.graph
    typed = NODE not in graph.counts
    bare = number.answer.new_zeros(place.graph.num_nodes, 0)
    features = _side_by_side(graph) if typed else graph.nodes[NODE].get("x", bare)
    if features is None:
        raise Unsupported("learned masks of typed graphs need features x of a type: use Shapley or Lime")
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
    found = _presence(number, place)
    proof = found if isinstance(found, Proof) else None
    standard = (_Typed if typed else _Standard)(net, number, place, made, proof and proof.entries)
    label = number.meaning.standard(number.answer[None], number.label)[1]
    row = place.focus[0][1] if len(place.focus) == 1 else 0
    call = Call(standard.eval(), features, graph.flat_edges, {}, model.task, row, label, place.nodes, place.edges)
    if any("edge_type" in fields for fields in graph.edge_fields.values()) or typed:
        call = call._replace(columns=lambda layer, propagated: edges_of(propagated, graph, layer))
    if typed:
        call = call._replace(atoms=lambda players: _atoms(players, place, number.graph))
    if isinstance(found, str):
        return call._replace(refused=found)
    if proof is None:
        return call
    refused = "" if proof.moves else "no edge changes the model's answer"
    measured = derivative_by_weights(number, place, proof.entries) if proof.moves else Derivative(0.0)
    checks = {**proof.checks, "derivative_gap": measured.gap}
    doubt = proof.doubt or measured.doubt
    return call._replace(removal=number.removal, checks=checks, doubt=doubt, refused=refused)


def _presence(number: GraphNumber, place: Place) -> Proof | str | None:
    """How masks of edges make them absent: by their messages, None, or weights; else why they do not."""
    size = place.graph.num_edges
    try:
        return presence(number, place, torch.arange(size, device=place.edges.device), size)
    except Unsupported as refusal:
        return str(refusal)


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
