"""Whether two answers are the same to the bit, and what differs in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from explain.credit import Credit
from explain.types import Players

RECORDS = ("settings", "target", "checks", "versions")
BETWEEN = ("here", "there")


def differences(one: Credit, other: Credit) -> Iterator[str]:
    """What differs between two answers, a line each: all but the wall time of each."""
    yield from numbers_apart(one, other)
    for name in ("method", "seed", "calls", "doubts"):
        yield from told_apart("", {name: getattr(one, name)}, {name: getattr(other, name)})
    for name in RECORDS:
        yield from told_apart(f"{name}: ", getattr(one, name), getattr(other, name))


def numbers_apart(one: Credit, other: Credit, said: tuple[str, str] = BETWEEN) -> Iterator[str]:
    """What of two answers' players and numbers is not the same to the bit."""
    if found := _players_apart(one.players, other.players, said):
        yield found
        return
    for name in ("value", "base"):
        yield from told_apart("", {name: getattr(one, name)}, {name: getattr(other, name)}, said)
    tensors = {"scores": (one.scores, other.scores), "error": (one.error, other.error)}
    held = {"parts": (one.parts, other.parts), "geometry": (one.players.geometry, other.players.geometry)}
    for what, (here, there) in held.items():
        tensors |= {f"{what} {name}": (here.get(name), there.get(name)) for name in {**here, **there}}
    for name, (a, b) in tensors.items():
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype or a.layout != b.layout:
            if a is not b:
                yield f"{name}: of another form, or there only once"
        elif not _equal(a, b):
            gap = (a.to_dense().double() - b.to_dense().double()).abs().nan_to_num(0.0).max()
            yield f"{name}: up to {float(gap):.3g} apart"


def told_apart(
    what: str, one: Mapping[str, Any], other: Mapping[str, Any], said: tuple[str, str] = BETWEEN
) -> Iterator[str]:
    """Entries that two records do not share.

    >>> list(told_apart("question: ", {"node": 3, "label": 1}, {"node": 3}))
    ['question: label: 1 here, nothing there']
    """
    for name in {**one, **other}:
        if name not in one or name not in other or _json(one[name]) != _json(other[name]):
            told = [f"{held[name]!r:.60}" if name in held else "nothing" for held in (one, other)]
            yield f"{what}{name}: {told[0]} {said[0]}, {told[1]} {said[1]}"


def _players_apart(one: Players, other: Players, said: tuple[str, str]) -> str:
    counts = [f"{len(players)} {players.kind} {where}" for players, where in zip((one, other), said, strict=True)]
    if (one.kind, len(one)) != (other.kind, len(other)):
        return f"players: {', '.join(counts)}"
    named = [(a, b) for a, b in zip(one.names, other.names, strict=True) if a != b]
    if named:
        first = f"the first {named[0][0]!r} and {named[0][1]!r}"
        return f"players: {', '.join(counts)}, {len(named)} of other names, {first}"
    groups = [() if players.groups is None else players.groups for players in (one, other)]
    alike = len(groups[0]) == len(groups[1]) and all(_equal(a, b) for a, b in zip(*groups, strict=True))
    alike = alike and (one.groups is None) == (other.groups is None) and _equal(one.index, other.index)
    return "" if alike else f"players: {', '.join(counts)}, of other places"


def _json(value: Any) -> str:
    """JSON values by what a file has of them: NaN is itself there."""
    return json.dumps(value, sort_keys=True)


def _equal(one: Tensor, other: Tensor) -> bool:
    """To the bit, of whatever device and layout; a NaN is one."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    a, b = (tensor.detach().cpu().to_dense() for tensor in (one, other))
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
