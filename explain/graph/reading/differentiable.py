"""The number as a differentiable function of message amounts or of features, for gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.players.absent_features import absent_features, feature_matrix
from explain.graph.players.kinds import ATOMS, owners
from explain.graph.tensors.cuts import Place
from explain.types import Differentiable, Players, Unsupported


def differentiable(number: GraphNumber, place: Place, players: Players) -> Differentiable:
    """The number as a function of message amounts (edges) or of features (nodes, features), where coalitions live.

    Raises:
        Unsupported: edge features, nodes and features of typed graphs, features that are whole numbers.
    """
    owner = owners(players, place, number.graph)
    owner = torch.where(owner == len(players), -1, owner)
    atoms = ATOMS.get(players.kind, players.kind)
    if atoms == "edge_features":
        raise Unsupported("gradients are of messages, nodes and features x, not of edge_attr: use Shapley or Lime")
    if atoms == "edges":
        parameter = next(number.module.parameters(), torch.zeros(()))
        ones = torch.ones(1, place.graph.num_edges, dtype=parameter.dtype, device=owner.device)
        return Differentiable(ones, torch.zeros_like(ones), _apart(number, place, "amounts"), owner)
    if len(place.graph.counts) > 1:
        raise Unsupported("gradients of node and feature players need a homogeneous graph: use edges, or Shapley")
    kind = next(iter(place.graph.counts))
    x = feature_matrix(place.graph, kind)
    if not x.is_floating_point():
        raise Unsupported(f"gradients need floating-point features, x is {x.dtype}: use edges, or Shapley")
    base = absent_features(number.graph, place, number.baseline)[kind].mean(0)
    shape = {"nodes": (len(x), 1), "features": (1, x.size(1)), "node_features": x.shape}[atoms]
    grid = owner.reshape(shape).expand_as(x)
    base = torch.where(grid >= 0, base, x)  # what no player owns does not move
    return Differentiable(x[None], base[None], _apart(number, place, "features"), grid)


def _apart(number: GraphNumber, place: Place, edit: str) -> Any:
    kind = next(iter(place.graph.counts))

    def numbers(batch: Tensor) -> Tensor:
        groups = [batch] if place.together else list(batch.split(1))
        edits = [{edit: {kind: group} if edit == "features" else group} for group in groups]
        return torch.cat([number.numbers(place, len(g), **e) for g, e in zip(groups, edits, strict=True)])

    return numbers
