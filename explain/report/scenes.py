"""What several answers are seen on: one drawing, whose elements are players, and take the colours of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from explain.explanation import Explanation
from explain.report.verdict import signed
from explain.summary import top_players

NOBODY = -1


class Look(NamedTuple):
    """How an element is drawn: up, down, share (without a sign) or none, and its size as a share of the largest."""

    side: str
    share: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawing of ``elements``, some of which are players of some answers.

    Args:
        kind: "graph", "image", "steps" or "words": which template draws it.
        answers: who is seen on it.
        owners: for each of them the player of each element, -1 for none.
        drawing: what the template needs besides.
        hidden: who is not drawn because there is no room, in words.
    """

    kind: str
    answers: tuple[Explanation, ...]
    owners: tuple[tuple[int, ...], ...]
    drawing: dict[str, Any] = field(default_factory=dict)
    hidden: str = ""

    def looks(self, answer: int = 0) -> list[Look]:
        """Each element as this answer has it; the workbench draws the others in the same way."""
        found = self.answers[answer]
        scores = found.scores.tolist()
        largest = max(map(abs, scores), default=0.0) or 1.0
        return [look(scores[player], largest, signed(found)) if player >= 0 else NONE for player in self.owners[answer]]

    def strongest(self, answer: int = 0) -> str:
        """Who is seen to be strongest, in words."""
        return top_players(self.answers[answer])

    def titles(self) -> list[str]:
        """For each element its name and what every answer gives it."""
        told: list[list[str]] = [[] for _ in self.owners[0]]
        for found, owners in zip(self.answers, self.owners, strict=True):
            for element, player in enumerate(owners):
                if player >= 0:
                    name = [] if told[element] else [found.players.names[player]]
                    told[element] += [*name, f"{found.method} {float(found.scores[player]):+.3g}"]
        return [": ".join([one[0], ", ".join(one[1:])]) if one else "" for one in told]


NONE = Look("none", 0.0)


def look(score: float, largest: float, sign: bool) -> Look:
    """How a player of this score is drawn.

    >>> look(-1.0, 2.0, True)
    Look(side='down', share=0.5)
    """
    side = "share" if not sign else "up" if score > 0 else "down" if score < 0 else "none"
    return Look(side, round(abs(score) / largest, 3))


def ranked(answers: Sequence[Explanation]) -> list[tuple[int, int]]:
    """(answer, player), the strongest share of its answer's largest first: all answers have their say."""
    found = []
    for i, one in enumerate(answers):
        largest = float(one.scores.abs().max()) if len(one.scores) else 0.0
        found += [(abs(score) / (largest or 1.0), i, player) for player, score in enumerate(one.scores.tolist())]
    return [(i, player) for _, i, player in sorted(found, key=lambda each: -each[0])]
