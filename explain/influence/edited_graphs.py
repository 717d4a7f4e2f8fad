"""Taking away what training examples share: a node, an edge, a feature of the graph that all are read from.

``J'`` and ``f'`` are the trained loss and the number after the edit, ``n`` kept fixed. To first order the parameters
move by ``-A^-1 g`` with ``g = grad J' - grad J``, so that

    score = f(theta) - f'(theta)            structural: the number is read from another graph
          + grad f'(theta)^T A^-1 g         learned: the losses of the neighbours are others too

as Chen et al. (2023) derive it for linear graph networks. With ``s = A^-1 grad f`` the learned part is ``s^T g`` for
every player whose absence leaves ``f`` as it is: one product for all of them. Of the others, those without ``g`` need
none, and the rest a solution of their own, ``grad f'^T A^-1 g = s^T g + (A^-1 (grad f' - grad f))^T g``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.influence.linear_maps import Flat, pullback, pushforward
from explain.influence.scores import directional, measured_gradient
from explain.progress import in_sight
from explain.types import Edits, LossChange, Objective, Parameters

Inverse: TypeAlias = Callable[[Tensor], Tensor]  # A^-1 b of a block [p, k]
BLOCK = 32  # players whose own systems are solved together


class Parts(NamedTuple):
    """Float64 ``[P]`` each.

    ``learned_unedited``: ``s^T g``, the learned part of the number on the unedited graph. ``own``: that of the player's
    own loss term only, where it is a training example (0 elsewhere).
    """

    structural: Tensor
    learned: Tensor
    learned_unedited: Tensor
    own: Tensor


def removal_parts(objective: Objective, inverse: Inverse, s: Tensor, progress: bool = False) -> Parts:
    """The parts of the score of every player.

    Args:
        objective: the trained loss; through ``edited``, one by one, where it is no `Edits`.
        inverse: ``A^-1 b`` of a block of columns ``[p, k]``.
        s: ``A^-1 grad f``, float64 ``[p]``.
        progress: a bar where it takes more than five seconds.
    """
    edits: Edits = objective if isinstance(objective, Edits) else OneByOne(objective)
    value, gradient = measured_gradient(objective)
    unedited = _along(objective, edits, torch.arange(len(objective.players)), s, progress)
    structural, crossed = torch.zeros_like(unedited), torch.zeros_like(unedited)
    moving = edits.moving().cpu().clone()
    for players in in_sight(_both(moving, edits).split(BLOCK), desc="edited numbers", progress=progress):
        values, gradients = _edited_numbers(objective, edits, players)
        structural[players] = value - values
        moving[players] = False
        solutions = inverse((gradients - gradient).T).T
        for player, x in zip(players.split(1), solutions, strict=True):
            crossed[player] = _along(objective, edits, player, x)[player]
    with torch.no_grad():
        left = moving.nonzero()
        for player in in_sight(left, desc="edited numbers", progress=progress):
            structural[player] = value - edits.numbers(objective.params, player).double().cpu()
    return Parts(structural, unedited + crossed, unedited, _own(objective, edits, s))


def _both(moving: Tensor, edits: Edits) -> Tensor:
    """Players whose absence changes the number and a loss: only these need a solution of their own."""
    reached = torch.zeros_like(moving)
    for change in edits.loss_changes(moving.nonzero().view(-1)):
        reached[change.players.cpu()] = True
    return (moving & reached).nonzero().view(-1)


def _along(objective: Objective, edits: Edits, players: Tensor, direction: Tensor, progress: bool = False) -> Tensor:
    """``d^T g`` for these players, 0 for the others, float64 ``[P]``."""
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    d, total = direction.to(theta), torch.zeros(len(objective.players), dtype=torch.float64)
    for change in in_sight(edits.loss_changes(players), desc="edited losses", progress=progress):
        losses, pull = pullback(_at(flat, change.of), theta)
        total.index_add_(0, change.players.cpu(), pushforward(pull, losses)(d).detach().double().cpu())
    return total


def _at(flat: Flat, f: Callable[[Parameters], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda theta: f(flat.params(theta))


def _edited_numbers(objective: Objective, edits: Edits, players: Tensor) -> tuple[Tensor, Tensor]:
    """``f'`` and ``grad f'`` of each of these players, float64 ``[k]`` and ``[k, p]``."""
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    values, gradients = [], []
    for player in players.split(1):
        value, pull = pullback(_at(flat, partial(edits.numbers, players=player)), theta)
        values.append(value.detach().double().cpu())
        gradients.append(pull(torch.ones_like(value)).detach().double())
    return torch.cat(values), torch.stack(gradients)


def _own(objective: Objective, edits: Edits, s: Tensor) -> Tensor:
    """``-(1/n) s^T grad loss_i`` of the examples that leave with a player: all that tools for i.i.d. data see."""
    player, example = edits.dropped().cpu()
    each = -directional(objective, s).cpu() / objective.size
    return torch.zeros(len(objective.players), dtype=torch.float64).index_add(0, player, each[example])


@dataclass(frozen=True, eq=False)
class OneByOne:
    """The `Edits` of any objective: every player by ``edited``, with the whole training set."""

    objective: Objective

    def moving(self) -> Tensor:
        """Any player may."""
        return torch.ones(len(self.objective.players), dtype=torch.bool)

    def dropped(self) -> Tensor:
        """Not known, unless players are the examples."""
        return torch.arange(len(self.objective.players) if self.objective.local else 0).expand(2, -1)

    def numbers(self, params: Parameters, players: Tensor) -> Tensor:
        """The number of each edited objective, ``[k]``."""
        return torch.stack([self.objective.edited(player).measurement(params) for player in players.tolist()])

    def loss_changes(self, players: Tensor) -> list[LossChange]:
        """A piece for each player and batch."""
        batches = list(self.objective.batches())
        return [
            LossChange(player, partial(self._change, player=int(player), batch=batch))
            for player in players.split(1)
            for batch in batches
        ]

    def _change(self, params: Parameters, player: int, batch: Tensor) -> Tensor:
        edited = self.objective.edited(player)
        change = edited.train_loss(params, batch) - self.objective.train_loss(params, batch)
        return change.sum()[None] / self.objective.size
