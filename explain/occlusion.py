"""Occlusion: what the number loses with one player, or gains with one alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from explain.explainer import Answer, Explainer
from explain.spelling import came
from explain.types import Players, Target

VARIANTS = ("leave_one_out", "only_one")


@dataclass(frozen=True)
class Occlusion(Explainer):
    """Leave one out: ``v(all) - v(all without i)`` (Zeiler, Fergus 2014); or only one: ``v({i}) - v(empty)``.

    ``P + 2`` evaluations, nothing left to chance. In the number's own units. Neither adds up to
    ``v(all) - v(empty)`` unless the game is additive: two players who can stand in for each other both get nothing when
    one is left out, and two who are needed together both get nothing alone.

    Not for: players that stand in for one another, or that are needed together.

    Args:
        players: a kind such as "edges", or `Players`.
        variant: "leave_one_out" or "only_one".
        progress: a bar where it takes more than five seconds.

    The answer's ``checks`` hold ``additivity_gap``: ``|sum scores - (v(all) - v(empty))|`` relative to the larger of
    ``|v(all)|`` and ``|v(empty)|``, zero for an additive game; ``coalitions``; and all that the game measured.

    Raises:
        ValueError: an unknown variant.

    >>> from explain.types import Game
    >>> class Pair(Target):
    ...     module = torch.nn.Identity()
    ...     def game(self, players):
    ...         return Game(Players(players, torch.arange(3)), lambda masks: 6.0 * masks[:, :2].all(1) + masks[:, 2])
    ...     def describe(self):
    ...         return {"asked": "are 0 and 1 both there? and 2?"}
    >>> Occlusion("nodes").explain(Pair()).scores, Occlusion("nodes", "only_one").explain(Pair()).scores
    (tensor([6., 6., 1.], dtype=torch.float64), tensor([0., 0., 1.], dtype=torch.float64))
    """

    players: str | Players
    variant: str = "leave_one_out"
    progress: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.players, (str, Players)):
            raise TypeError(f'players must be a kind such as "edges", or Players, got {type(self.players).__name__}')
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, {came(self.variant, VARIANTS)}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        game = target.game(self.players)
        before = game.calls
        base, value = game.ends()
        one = torch.eye(len(game.players), dtype=torch.bool)
        if self.variant == "only_one":
            scores = game(one, self.progress) - base
        else:
            scores = value - game(~one, self.progress)
        scale = max(abs(value), abs(base))
        gap = abs(float(scores.sum()) - (value - base))
        own = {"additivity_gap": gap / scale if scale else gap, "coalitions": game.calls - before}
        return Answer(
            scores=scores,
            players=game.players,
            value=value,
            base=base,
            checks={**game.checks, **own},
            calls=game.calls,
        )
