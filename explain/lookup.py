"""A player by what people call it: its name, or its number, however its arrow is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from explain.types import Players

_ARROWS = re.compile(r"\s*(?:->|[→–—-])\s*")
_POINTS = re.compile("->|→")
_BOTH_WAYS = "–"  # between the names of a pair whose two directions are one player


def places(players: Players, asked: str) -> list[int]:
    """Positions of the players that are called so: by their names, else whatever the arrow, else by the numbers.

    >>> import torch
    >>> ends = torch.tensor([[3, 5], [5, 3]])
    >>> found = Players("edges", torch.tensor([7, 8]), ("ann→bob", "bob→ann"), geometry={"ends": ends})
    >>> places(found, "ann→bob"), places(found, "edge bob->ann"), places(found, "edge 3->5"), places(found, "bob")
    ([0], [1], [0], [])

    A hyphen does not say which way: where both directions play, each by itself, it is either.

    >>> places(found, "ann-bob"), places(found, "edge 5-3")
    ([0, 1], [1, 0])
    """
    if found := _called(asked, enumerate(players.names)):
        return found
    wanted, either = plain(players, asked), not _POINTS.search(asked)
    if found := _called(wanted, _by_name(players)):
        return found + _backwards(players, [i for i in found if either and _POINTS.search(players.names[i])])
    found = _called(wanted, _by_number(players))
    return found + _backwards(players, found if either else [])


def _called(text: str, way: Iterable[tuple[int, str]]) -> list[int]:
    return list(dict.fromkeys(place for place, called in way if called == text))


def plain(players: Players, name: str) -> str:
    """A name without what kind it is of, in small letters, its arrow a hyphen.

    >>> import torch
    >>> plain(Players("edges", torch.arange(1)), "Edge Ann → Bob")
    'ann-bob'
    """
    return _ARROWS.sub("-", name.strip().casefold()).removeprefix(f"{players.stem} ")


def _backwards(players: Players, found: list[int]) -> list[int]:
    """The edges from the end to the start of one of these, where each direction is a player of its own."""
    if players.kind != "edges" or "ends" not in players.geometry or players.groups is not None:
        return []
    ends = [tuple(pair) for pair in players.geometry["ends"].t().tolist()]
    turned = {ends[place][::-1] for place in found}
    return [place for place, pair in enumerate(ends) if pair in turned and place not in found]


def _by_name(players: Players) -> Iterator[tuple[int, str]]:
    for place, name in enumerate(players.names):
        yield place, plain(players, name)
        if players.kind == "edges" and name.count(_BOTH_WAYS) == 1:
            yield place, plain(players, _BOTH_WAYS.join(reversed(name.split(_BOTH_WAYS))))


def _by_number(players: Players) -> Iterator[tuple[int, str]]:
    """Of graphs without types, whose nodes and edges may have names."""
    if players.index.dim() != 1:
        return
    if players.kind == "nodes":
        yield from enumerate(map(str, players.index.tolist()))
    elif players.kind == "edges" and "ends" in players.geometry:
        for place, (source, target) in enumerate(players.geometry["ends"].t().tolist()):
            yield place, f"{source}-{target}"
            if players.groups is not None:
                yield place, f"{target}-{source}"
