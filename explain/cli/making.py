"""Explainers by name: from what was written on a command line, or from what an answer says it was made by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import explain
from explain.credit import Credit
from explain.explainer import Explainer, plain
from explain.influence.solvers.choice import SOLVERS
from explain.spelling import there_is
from explain.types import Target

Made = TypeVar("Made")
_FITTED = (explain.Explainer, explain.FittedMask, explain.FittedSurrogate)  # made by others, or of none
_FREE = ("progress", "batch_size")  # settings that never change an answer


class CannotReplay(ValueError):
    """An answer whose question or settings hold what no file keeps; the message says what, and the remedy."""


def method(name: str) -> type[Explainer]:
    """The explainer of this name, whatever its letters.

    Raises:
        ValueError: there is none.

    >>> method("shapley").__name__, method("graph-lime").__name__
    ('Shapley', 'GraphLime')
    """
    found = (getattr(explain, each) for each in explain.__all__)
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Explainer) and kind not in _FITTED]
    by_name = {kind.__name__.casefold(): kind for kind in kinds}
    asked = name.casefold().replace("-", "").replace("_", "")
    if asked not in by_name:
        known = [kind.__name__ for kind in kinds]
        raise ValueError(f"no method {name!r}{there_is(name, known)}")
    return by_name[asked]


def made(kind: type[Explainer], target: Target, players: str | None, settings: Mapping[str, Any]) -> Explainer:
    """An explainer with these settings, over these players, or the target's usual ones where it needs some.

    Raises:
        ValueError: players for a method that has none.
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    given = dict(settings)
    if players is not None and "players" not in fields:
        raise ValueError(f"{kind.__name__} does not ask for players: leave --players out")
    if players is not None:
        given["players"] = players
    elif "players" in fields and fields["players"].default is dataclasses.MISSING and target.kinds:
        given.setdefault("players", target.kinds[0])
    return kind(**given)


def written_settings(texts: Sequence[str]) -> dict[str, Any]:
    """``name=value``: the value as JSON where it is some, else as text.

    Raises:
        ValueError: no equals sign.

    >>> written_settings(["samples=64", "estimator=kernel"])
    {'samples': 64, 'estimator': 'kernel'}
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"settings are written name=value, such as samples=64, got {text!r}")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def explainer_of(why: Credit) -> Explainer:
    """The explainer that made this answer, from its method, settings and seed.

    Raises:
        CannotReplay: a method that is not of this package, or a setting that was an object of the user's own.
    """
    try:
        kind = method(why.method)
    except ValueError as error:
        raise CannotReplay(f"{error}: only its own explainers are run again") from error
    own = plain(why.players)  # "7 edges": not a kind, but those that the answer has
    players = {name: why.players for name in ("players", "remove") if why.settings.get(name) == own}
    if why.settings.get("add") is not None and "added" in why.players.geometry:  # whatever form they were given in
        players["add"] = why.players
    settings = {name: kept for name, kept in why.settings.items() if name not in _FREE}
    try:
        found = _again(kind, settings | ({"seed": why.seed} if "seed" in settings else {}), players)
    except (TypeError, ValueError) as error:
        raise CannotReplay(
            f"{why.method} cannot be made again from its settings ({error}): ask it in Python"
        ) from error
    said = found.settings() | {"seed": settings.get("seed")}
    for name in (settings.keys() & said.keys()) - players.keys():
        if said[name] != settings[name]:
            raise CannotReplay(
                f"{why.method}({name}=...) was {settings[name]!r:.60}, which a file does not hold: ask it in Python"
            )
    return found


def _again(kind: type[Made], settings: Mapping[str, Any], given: Mapping[str, Any]) -> Made:
    """A dataclass of settings from their JSON; ``given`` are objects in the place of what JSON says of them."""
    made = dict(given)
    for field in dataclasses.fields(cast(Any, kind)):
        if field.init and field.name in settings and field.name not in made:
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            same = default is not dataclasses.MISSING and plain(default) == settings[field.name]
            made[field.name] = default if same else _value(settings[field.name])
    return kind(**made)


def _value(kept: Any) -> Any:
    """A setting from its JSON: solvers and explainers within explainers by their names."""
    if isinstance(kept, dict) and len(kept) == 1:
        ((name, settings),) = kept.items()
        solver = next((each for each in SOLVERS.values() if each.__name__ == name), None)
        return _again(solver or method(name), settings, {})
    return tuple(map(_value, kept)) if isinstance(kept, list) else kept
