"""The same question again, from the settings and the seed in a file: bit-identical, or what differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from explain.cli.making import CannotReplay, explainer_of
from explain.explanation import Explanation
from explain.parallel import Undigestable
from explain.parallel.digest import Digest
from explain.sameness import numbers_apart, told_apart
from explain.types import Target

_VERBS = ("node", "edge", "graph")
_SAID = ("before", "now")
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
    numbers = tuple(numbers_apart(why, again, _SAID))
    made = told_apart("", why.versions, again.versions, _SAID)
    asked = told_apart("question: ", why.target, again.target, _SAID)
    return Replay(again, not numbers, (*numbers, *made, *asked))


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
