"""A player by what people call it: its name, or its number, however its arrow is written."""

from __future__ import annotations

import re
from collections.abc import Iterator

from explain.types import Players

_ARROWS = re.compile(r"\s*(?:->|[→–—-])\s*")
_BOTH_WAYS = "–"  # between the names of a pair whose two directions are one player


def places(players: Players, asked: str) -> list[int]:
    """Positions of the players that are called so: by their names, else whatever the arrow, else by the numbers.

    >>> import torch
    >>> ends = torch.tensor([[3, 5], [5, 3]])
    >>> found = Players("edges", torch.tensor([7, 8]), ("ann→bob", "bob→ann"), geometry={"ends": ends})
    >>> places(found, "ann→bob"), places(found, "edge bob-ann"), places(found, "edge 3-5"), places(found, "bob")
    ([0], [1], [0], [])
    """
    ways = (enumerate(players.names), _by_name(players), _by_number(players))
    wanted = plain(players, asked)
    for way, text in zip(ways, (asked, wanted, wanted), strict=True):
        if found := list(dict.fromkeys(place for place, called in way if called == text)):
            return found
    return []


def plain(players: Players, name: str) -> str:
    """A name without what kind it is of, in small letters, its arrow a hyphen.

    >>> import torch
    >>> plain(Players("edges", torch.arange(1)), "Edge Ann → Bob")
    'ann-bob'
    """
    return _ARROWS.sub("-", name.strip().casefold()).removeprefix(f"{players.stem} ")


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
