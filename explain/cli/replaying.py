"""The same question again, from the settings and the seed in a file: bit-identical, or what differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from explain.cli.making import CannotReplay, explainer_of
from explain.explanation import Explanation
from explain.parallel import Undigestable
from explain.parallel.digest import Digest
from explain.types import Target

_VERBS = ("node", "edge", "graph")
_BITS = 32  # hexadecimal digits of a digest
_REMEDY = "name the target itself in the file, --model my_setup.py:target"


@dataclass(frozen=True)
class Replay:
    """An answer given again. ``identical``: every number of it, to the bit; ``differs``: what is another, in words."""

    again: Explanation
    identical: bool
    differs: tuple[str, ...]


def digests(target: Target) -> dict[str, str]:
    """What the model and all else that the target holds are, in short: equal only where nothing of it has changed.

    Left out where something in it has no content to compare, such as an open file.
    """
    found = {}
    for name, thing, beside in (("model digest", target.trained, ()), ("data digest", target, (nn.Module,))):
        digest = Digest(beside)
        try:
            digest.add(thing)
        except Undigestable:
            continue
        found[name] = digest.hex()[:_BITS]
    return found


def explained(explainer: Any, target: Target) -> Explanation:
    """The answer, with the digests of what it was asked of among its versions."""
    held = digests(target)
    why = explainer.explain(target)
    return dataclasses.replace(why, versions={**why.versions, **held})


def replay(why: Explanation, model: Any) -> Replay:
    """Ask again what this answer answers, of a target, or of a wrapped model of graphs.

    Raises:
        CannotReplay: the question or a setting held what no file keeps.
        TypeError: neither a target nor a wrapped model.
    """
    target = model if isinstance(model, Target) else _target_of(why, model)
    again = explained(explainer_of(why), target)
    numbers = tuple(_numbers(why, again))
    made = _changed("", why.versions, again.versions)
    asked = _changed("question: ", why.target, again.target)
    return Replay(again, not numbers, (*numbers, *made, *asked))


def _numbers(why: Explanation, again: Explanation) -> Iterator[str]:
    """What of an answer is not the same to the bit."""
    if (why.players.kind, why.players.names) != (again.players.kind, again.players.names):
        yield f"players: {len(why)} {why.players.kind} before, {len(again)} {again.players.kind} now"
        return
    for name in ("value", "base"):
        before, now = getattr(why, name), getattr(again, name)
        if before != now:
            yield f"{name}: {before!r} before, {now!r} now"
    tensors = {"scores": (why.scores, again.scores), "error": (why.error, again.error)}
    tensors |= {f"parts {name}": (why.parts.get(name), again.parts.get(name)) for name in {**why.parts, **again.parts}}
    for name, (before, now) in tensors.items():
        if before is None or now is None or before.shape != now.shape or before.dtype != now.dtype:
            if before is not now:
                yield f"{name}: of another form, or there only once"
        elif not torch.equal(before, now):
            gap = (before.double() - now.double()).abs().max()
            yield f"{name}: up to {float(gap):.3g} apart"


def _changed(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            said = [f"{held[name]!r:.60}" if name in held else "nothing" for held in (before, now)]
            yield f"{what}{name}: {said[0]} before, {said[1]} now"


def _target_of(why: Explanation, model: Any) -> Target:
    """The question of an answer about a graph; others hold a sample, a picture or a function, which no file keeps.

    Raises:
        CannotReplay: another question, or a payoff that is a function.
        TypeError: no wrapped model.
    """
    asked = why.target
    verb = str(asked.get("task", ""))
    if verb not in _VERBS or asked.get("family") != "graph" or not callable(getattr(model, verb, None)):
        if isinstance(model, nn.Module):
            raise TypeError(
                f"this is a {type(model).__name__}, not wrapped: give explain.wrap(model, data), or a target"
            )
        raise CannotReplay(f"this question is not in the file whole, only its answer is: {_REMEDY}")
    given = {name: asked[name] for name in ("label", "payoff", "removal", "baseline")}
    try:
        if verb == "graph":
            return model.graph(asked["graph"], **given)
        ends = asked[verb] if verb == "edge" else [asked[verb]]
        return getattr(model, verb)(*(_node(asked, name) for name in ends), **given)
    except (KeyError, TypeError, ValueError) as error:
        raise CannotReplay(f"the question cannot be asked again from the file ({error}): {_REMEDY}") from error


def _node(asked: Mapping[str, Any], name: str) -> int | tuple[str, int]:
    """A node by its name, or its number, after its type where there are types.

    Raises:
        KeyError: of no type.
    """
    counts = asked.get("node_types") or {"": None}
    names, first = asked.get("node_names"), 0
    for kind, count in counts.items():
        own = names if count is None or names is None else names[first : first + count]
        first += count or 0
        text = name.removeprefix(f"{kind} ") if kind else name
        if kind and text == name:
            continue
        number = own.index(text) if own else int(text)
        return (kind, number) if kind else number
    raise KeyError(name)
