"""Small targets and games that several tests share."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.types import Game, Players, Target


class GameTarget(Target):
    """A target whose number is a plain function of masks, ``bool [coalitions, P] -> [coalitions]``."""

    def __init__(self, function, count, batch_size=1024, checks=None):
        self.module = torch.nn.Identity()
        self.function, self.count, self.batch_size, self.checks = function, count, batch_size, checks

    def value(self) -> float:
        return self.game("nodes").ends()[1]

    def players(self, kind: str, **options) -> Players:
        return Players(kind, torch.arange(self.count))

    def game(self, players: str | Players) -> Game:
        players = self.players(players) if isinstance(players, str) else players
        return Game(players, self.function, batch_size=self.batch_size, checks=self.checks)

    def describe(self) -> dict:
        return {"family": "test", "players": self.count}


def table_function(table: Tensor):
    """The game whose coalition with bits ``m`` is worth ``table[m]``, float64 ``[2^P]``."""
    powers = 2 ** torch.arange(len(table).bit_length() - 1)
    return lambda masks: table[(masks * powers).sum(1)]


def random_table(players: int, seed: int) -> Tensor:
    """A game without any structure."""
    return torch.randn(2**players, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth_function(players: int, seed: int):
    """A small random network of the masks: interactions of every order, large ones weak, as a model's game has."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in [(players, 8), (8,)])
    return lambda masks: torch.tanh(masks.double() @ first / 2 - 0.3) @ second
