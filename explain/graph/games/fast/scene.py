"""What a program is evaluated on: a place's graph, who owns its atoms, and what absence does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from explain.graph.games.fast.program import Refused, Rule


@dataclass(frozen=True, eq=False)
class Scene:
    """A homogeneous graph and its players.

    ``x``, ``absent [n, features]``: features, and what takes their place. ``source``, ``target [e]``: its edges;
    ``weights``: their fields. ``owner``: the player, ``P`` for none, of each atom of the ``kind``: of an edge, a node
    or a feature column. ``removal``: "delete", "message" or "features". ``focus``: the explained rows, if any.
    """

    x: Tensor
    absent: Tensor
    source: Tensor
    target: Tensor
    weights: dict[str, Tensor]
    owner: Tensor
    kind: str
    removal: str
    focus: Tensor
    players: int

    @property
    def nodes(self) -> int:
        """Rows of the graph."""
        return len(self.x)

    @property
    def edges_vary(self) -> bool:
        """Whether coalitions change which messages are sent."""
        return self.kind == "edges" or (self.kind == "nodes" and self.removal != "features")

    @property
    def degrees_vary(self) -> bool:
        """Whether the layers see the change when they normalise."""
        return self.edges_vary and self.removal == "delete"


class Entries(NamedTuple):
    """Non-zeros of an aggregation's matrix, sorted by row.

    ``source``, ``target [E]``: node numbers; ``weight [E]``; ``first``, ``second [E]``: the players that must be
    present for it, ``P`` for always; ``own [E]``: the constant part of a node itself, which no degree scales.
    """

    source: Tensor
    target: Tensor
    weight: Tensor
    first: Tensor
    second: Tensor
    own: Tensor

    def chosen(self, which: Tensor) -> Entries:
        """Some of them, in this order."""
        return Entries(*(part[which] for part in self))


def entries_into(scene: Scene, rule: Rule, rows: Tensor) -> Entries:
    """Non-zeros in these rows of the rule's matrix.

    Raises:
        Refused: several loops stored on one node, of which the layer keeps one.
    """
    wanted = torch.zeros(scene.nodes, dtype=torch.bool, device=rows.device)
    wanted[rows] = True
    chosen = wanted[scene.target].nonzero().view(-1)
    if rule.loop is not None:
        chosen = chosen[scene.source[chosen] != scene.target[chosen]]
    parts = [_stored(scene, rule, chosen)]
    if rule.loop is not None:
        parts.append(_alone(scene, rows, rule.loop, own=False))
        if rule.weights is not None or (scene.edges_vary and not scene.degrees_vary):
            parts.append(_stored_loops(scene, rule, wanted, parts))
    if rule.own != 0:
        parts.append(_alone(scene, rows, rule.own, own=True))
    made = Entries(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return made.chosen(made.target.argsort(stable=True))


def _stored(scene: Scene, rule: Rule, edges: Tensor) -> Entries:
    source, target = scene.source[edges], scene.target[edges]
    nobody = torch.full_like(edges, scene.players)
    first, second = nobody, nobody
    if scene.kind == "edges":
        first = scene.owner[edges]
    elif scene.edges_vary:
        first, second = scene.owner[source], scene.owner[target]
    weight = torch.ones(len(edges), dtype=scene.x.dtype, device=edges.device)
    if rule.weights is not None:
        weight = scene.weights[rule.weights][edges].to(scene.x.dtype)
    return Entries(source, target, weight, first, second, torch.zeros_like(edges, dtype=torch.bool))


def _alone(scene: Scene, rows: Tensor, weight: float, own: bool) -> Entries:
    nobody = torch.full_like(rows, scene.players)
    weights = torch.full((len(rows),), weight, dtype=scene.x.dtype, device=rows.device)
    return Entries(rows, rows, weights, nobody, nobody, torch.full_like(rows, own, dtype=torch.bool))


def _stored_loops(scene: Scene, rule: Rule, wanted: Tensor, parts: list[Entries]) -> Entries:
    """A stored loop takes the place of the layer's: its weight in full, or as a correction where it can be deleted.

    Raises:
        Refused: several loops stored on one node.
    """
    loops = (wanted[scene.target] & (scene.source == scene.target)).nonzero().view(-1)
    stored = _stored(scene, rule, loops)
    if len(stored.target.unique()) != len(loops):
        raise Refused("several loops stored on one node, of which the layer keeps one")
    if scene.degrees_vary or not scene.edges_vary:
        return stored._replace(weight=stored.weight - (rule.loop or 0.0))
    parts[-1] = parts[-1].chosen(~torch.isin(parts[-1].target, stored.target))  # only the message of it goes
    return stored
