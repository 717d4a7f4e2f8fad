"""Deletion and insertion on the page: the number while players leave or come, by all methods over the same players."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from explain.explanation import Explanation
from explain.metrics import Curve, deletion_and_insertion
from explain.report.asking import about
from explain.types import Target, Unsupported

WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 332.0, 26.0, 176.0  # of the frame
MOST = 200  # points of a line
CLOSE = 1e-3  # of the number, between an answer and its target
SIDES = ("taken away: low is good", "added: high is good")


class Group(NamedTuple):
    """Answers over the same players to what ``target`` asks, and their places among the answers to a question."""

    target: Target
    places: tuple[int, ...]
    answers: tuple[Explanation, ...]


class Line(NamedTuple):
    """A line of a picture: whose it is, by its place, or what it is beside; and its points, as SVG takes them."""

    place: int
    beside: str
    points: str


@dataclass(frozen=True, eq=False)
class Curves:
    """Two pictures, players taken away and players added, of the answers at ``places`` among those to a question."""

    places: tuple[int, ...]
    sides: tuple[tuple[str, tuple[Line, ...]], ...]
    said: tuple[tuple[int, str], ...]
    beside: tuple[str, ...]
    marks: tuple[tuple[float, str], ...]
    players: str


def groups(answers: Sequence[Explanation], targets: Sequence[Target]) -> list[Group]:
    """Which of the answers stand on one picture, and the target that is asked about them.

    Of several targets that an answer may be about, the one that takes players away as the answer did.
    """
    found: dict[tuple, tuple[Target, list[int]]] = {}
    for place, one in enumerate(answers):
        target = _target(one, targets)
        if target is None or one.players.kind == "train" or len(one.players) < 2 or not _plays(target, one):
            continue
        _, places = found.setdefault((id(target), one.players.kind, one.players.names), (target, []))
        places.append(place)
    return [Group(target, tuple(places), tuple(answers[i] for i in places)) for target, places in found.values()]


def check_used(answers: Sequence[Explanation], targets: Sequence[Target], found: Sequence[Group]) -> None:
    """That each target has its answers.

    Raises:
        ValueError: one has none; where it only says another number, it may be of another model, or other weights.
    """
    for target in targets:
        if any(target is group.target for group in found):
            continue
        said = next((one.value for one in answers if about(target, one) and one.players.kind != "train"), None)
        if said is not None and not _agree(said, number := target.value()):
            raise ValueError(
                f"curves: the number was {said:.5g} when it was asked about, and this target says {number:.5g}: give "
                "one of the same model, weights and data"
            )
        raise ValueError(f"curves: no answer over players that can be left out is about {target!r}")


def _target(one: Explanation, targets: Sequence[Target]) -> Target | None:
    own = [target for target in targets if about(target, one)]
    own.sort(key=lambda target: not about(target, one, ()))
    return next((target for target in own if "number" in one.checks or _agree(one.value, target.value())), None)


def _agree(one: float, other: float) -> bool:
    return abs(one - other) <= CLOSE * max(abs(one), abs(other), CLOSE)


def _plays(target: Target, one: Explanation) -> bool:
    try:
        target.game(one.players)
    except Unsupported:
        return False
    return True


def curves(group: Group, names: Sequence[str], progress: bool) -> Curves:
    """What the target says while the players of each answer leave, and come, the highest credit first.

    Args:
        group: the answers, and the target.
        names: of all methods that answer the question.
        progress: a bar, where it takes more than five seconds.
    """
    found = deletion_and_insertion(group.answers, group.target, progress=progress)
    low, high = _span(found)
    kind = group.answers[0].players.kind
    return Curves(
        group.places,
        tuple((f"{kind} {said}", tuple(_lines(group, found, side, low, high))) for side, said in enumerate(SIDES)),
        tuple((i, _said(names[i], *pair)) for i, pair in zip(group.places, found, strict=True)),
        tuple(dict.fromkeys(line.beside for line in _lines(group, found, 0, low, high) if line.beside)),
        tuple((_height(value, low, high), f"{value:.3g}") for value in (low, high)),
        f"{len(group.answers[0].players)} {kind}",
    )


def _span(found: Sequence[tuple[Curve, ...]]) -> tuple[float, float]:
    values = [of for pair in found for curve in pair for of in (curve.values, curve.at_random, curve.by_distance)]
    known = np.concatenate([of for of in values if of is not None])
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _lines(group: Group, found: Sequence[tuple[Curve, ...]], side: int, low: float, high: float) -> Iterator[Line]:
    first = found[0][side]
    for beside, values in (("random orders, their mean", first.at_random), ("the nearest first", first.by_distance)):
        if values is not None:
            yield Line(-1, beside, _points(values, low, high))
    for place, pair in reversed(list(zip(group.places, found, strict=True))):  # the first one lies on top
        yield Line(place, "", _points(pair[side].values, low, high))


def _points(values: np.ndarray, low: float, high: float) -> str:
    """Over the share of players, in the frame; of a long line every so many points.

    >>> _points(np.array([0.0, 1.0]), 0.0, 1.0)
    '46,176 332,26'
    """
    shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST)).round().astype(int))
    across = LEFT + (RIGHT - LEFT) * shown / max(len(values) - 1, 1)
    return " ".join(f"{x:.4g},{_height(values[i], low, high):.4g}" for x, i in zip(across, shown, strict=True))


def _height(value: float, low: float, high: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * (float(value) - low) / (high - low)


def _said(name: str, gone: Curve, come: Curve) -> str:
    """Mean heights, beside those of random orders."""
    return (
        f"{name}: mean height {gone.area:.3g} as they leave (random orders {gone.random:.3g}), {come.area:.3g} as they "
        f"come ({come.random:.3g})"
    )
