"""The same question again, from the settings and the seed in a file: bit-identical, or what differs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from explain.cli.asking import asked_again
from explain.cli.making import explainer_of
from explain.explanation import Explanation
from explain.parallel import Undigestable
from explain.parallel.digest import Digest
from explain.sameness import numbers_apart, told_apart
from explain.types import Target

_SAID = ("before", "now")
_BITS = 32  # hexadecimal digits of a digest


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
    """Ask again what this answer answers, of a target, or of a wrapped model where the file holds the question whole.

    Raises:
        CannotReplay: the question or a setting held what no file keeps.
        TypeError: neither a target nor a wrapped model.
    """
    target = model if isinstance(model, Target) else asked_again(why, model)
    again = explained(explainer_of(why), target)
    numbers = tuple(numbers_apart(why, again, _SAID))
    made = told_apart("", why.versions, again.versions, _SAID)
    asked = told_apart("question: ", why.target, again.target, _SAID)
    untold = _untold(why) if numbers and target is not model else ()
    return Replay(again, not numbers, (*numbers, *made, *asked, *untold))


def _untold(why: Explanation) -> tuple[str, ...]:
    """What an answer does not say about its question, where numbers differ that its file alone asked for."""
    if (why.target.get("question"), why.target.get("removal")) != ("step", "mean"):
        return ()
    return ("absent patches now show the picture's own mean: reference images, if there were any, are in no file",)
