"""The number as a differentiable function of message amounts, of weights of edges or of features, for gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.players.absent_features import absent_features, feature_matrix
from explain.graph.players.kinds import ATOMS, owners
from explain.graph.reading.entries import WeighedNumber
from explain.graph.reading.weighing import presence
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import Fields
from explain.types import Differentiable, Players, Unsupported


def differentiable(number: GraphNumber, place: Place, players: Players) -> Differentiable:
    """The number as a function of message amounts (edges) or of features (nodes, features), where coalitions live.

    Where messages cannot be told apart, of the weights of edges.

    Raises:
        Unsupported: edges with neither, edge features, or players that own a feature that is a whole number, or none
            at all.
    """
    owner = owners(players, place, number.graph)
    owner = torch.where(owner == len(players), -1, owner)
    atoms = ATOMS.get(players.kind, players.kind)
    if atoms == "edge_features":
        raise Unsupported("gradients are of messages, nodes and features x, not of edge_attr: use Shapley or Lime")
    if atoms == "edges":
        return _of_edges(number, place, owner, len(players))
    x = {kind: feature_matrix(place.graph, kind) for kind in place.graph.counts}
    grids = _grids(x, players, atoms, owner)
    base = absent_features(number.graph, place, number.baseline)
    read = {kind: each for kind, each in x.items() if each.is_floating_point()}
    # what no player owns does not move
    absent = {kind: torch.where(grids[kind] >= 0, base[kind].mean(0), each) for kind, each in read.items()}
    if len(x) == 1:
        (kind,) = x
        f = _apart(number, place, lambda part: {"features": {kind: part}})
        return Differentiable(x[kind][None], absent[kind][None], f, grids[kind])
    shapes = {kind: each.shape for kind, each in read.items()}
    f = _apart(number, place, lambda part: {"features": _by_type(part, shapes)})
    inputs, baseline, owned = (torch.cat([one[kind].reshape(-1) for kind in read]) for one in (x, absent, grids))
    return Differentiable(inputs[None], baseline[None], f, owned)


def _of_edges(number: GraphNumber, place: Place, owner: Tensor, players: int) -> Differentiable:
    """By the amount of messages, ones, where they can be told apart; else by the weights of edges."""
    found = presence(number, place, owner, players)
    if found is None:
        parameter = next(number.module.parameters(), torch.zeros(()))
        ones = torch.ones(1, place.graph.num_edges, dtype=parameter.dtype, device=owner.device)
        f = _apart(number, place, lambda part: {"amounts": part})
        return Differentiable(ones, torch.zeros_like(ones), f, owner, "message")
    weighed = WeighedNumber(number, found.entries)
    weights = found.entries.weights(place.graph, number.answer)[None]
    base = torch.where(owner >= 0, 0, weights)  # what no player owns does not move
    most = place.copies_at_once(place.graph.num_nodes) if place.together else 1

    def numbers(batch: Tensor) -> Tensor:
        groups = batch.split(most or len(batch))
        told = torch.cat([weighed.numbers(place, group) for group in groups])
        return told if found.moves else told + 0 * batch.sum(1)

    return Differentiable(weights, base, numbers, owner, number.removal, found.checks, found.doubt)


def _grids(x: Fields, players: Players, atoms: str, owner: Tensor) -> Fields:
    """The player of each entry of each type's features, -1 for none; ``owner`` is of nodes, columns or entries.

    Raises:
        Unsupported: a type whose features are whole numbers, or that has none, and that players own.
    """
    found, first = {}, 0
    for kind, each in x.items():
        shape = {"nodes": (len(each), 1), "features": (1, each.size(1)), "node_features": each.shape}[atoms]
        own = owner[first : first + shape[0] * shape[1]]
        if (len(x) == 1 or bool((own >= 0).any())) and not (each.is_floating_point() and each.size(1)):
            name = f"x of {kind}" if kind else "x"
            what = f"{name} is {each.dtype}" if each.size(1) else f"there is no {name}"
            raise Unsupported(
                f"gradients of {players.kind} need floating-point features, {what}: use edges, or Shapley"
            )
        found[kind], first = own.reshape(shape).expand_as(each), first + len(own)
    return found


def _by_type(part: Tensor, shapes: dict[str, torch.Size]) -> Fields:
    """Entries of all types, ``[batch, entries]``, as features by type, ``[batch, nodes, features]``."""
    parts = part.split([shape.numel() for shape in shapes.values()], 1)
    return {kind: each.reshape(-1, *shape) for (kind, shape), each in zip(shapes.items(), parts, strict=True)}


def _apart(number: GraphNumber, place: Place, edits: Callable[[Tensor], dict[str, Any]]) -> Callable[[Tensor], Tensor]:
    """The number for a batch of edits, one by one where copies do not answer together."""

    def numbers(batch: Tensor) -> Tensor:
        groups = [batch] if place.together else list(batch.split(1))
        return torch.cat([number.numbers(place, len(group), **edits(group)) for group in groups])

    return numbers
