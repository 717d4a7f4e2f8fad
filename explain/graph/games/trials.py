"""Coalitions by which one way to evaluate is held against another: of every size, the same each time."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.graph.tensors.cuts import Place, hop_distance
from explain.types import Masks

_KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)  # chance of each player
_ALL = 6  # players of whom all coalitions are tried


def trials(place: Place, owner: Tensor, players: int, edges: bool, few: bool = False) -> Masks:
    """Bool ``[coalitions, players]``: all there are where these are no more than 64.

    Of edges the last one holds only those that lead away from the explained nodes: a model that reads its edges
    backwards, or both ways, answers it as no other does.
    """
    if players <= _ALL:
        masks = (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).bool().flip(0)
        return masks.to(owner.device)
    generator = torch.Generator().manual_seed(0)
    chance = torch.tensor(_KEPT)[:, None]
    masks = torch.rand(len(chance), players, generator=generator) < chance
    masks = (masks[:6:5] if few else masks).to(owner.device)
    return torch.cat([masks, _leading_away(place, owner, players)[None]]) if edges and place.focus else masks


def _leading_away(place: Place, owner: Tensor, players: int) -> Tensor:
    """Players of whose edges none comes nearer to the explained nodes, bool ``[P]``."""
    source, target = hop_distance(place.graph, place.flat_focus().to(owner.device), "in")[place.graph.flat_edges]
    away = torch.ones(players + 1, dtype=torch.bool, device=owner.device)
    away[owner[source > target]] = False
    return away[:-1]
