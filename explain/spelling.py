"""A name that is not known is answered with the one that was meant."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def check_names(asked: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of what was given.

    Raises:
        TypeError: one of them is not known.

    >>> check_names("Shapley", ["sample"], ["players", "samples", "seed"])
    Traceback (most recent call last):
    TypeError: Shapley has no setting 'sample': did you mean 'samples'? It has players, samples, seed
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{asked} has no setting {name!r}{there_is(name, known)}")


def meant(name: object, known: Iterable[object]) -> str:
    """``: did you mean '...'?`` where a known name is like this one, else nothing.

    >>> meant("shapely", ["Shapley", "Lime"]), meant("zzz", ["Shapley"]), meant(3, ["Shapley"])
    (": did you mean 'Shapley'?", '', '')
    """
    by_letters = {one.casefold(): one for one in known if isinstance(one, str)}
    near = difflib.get_close_matches(name.casefold(), by_letters, 1) if isinstance(name, str) else []
    return f": did you mean {by_letters[near[0]]!r}?" if near else ""


def there_is(name: str, known: Iterable[str]) -> str:
    """Which known name is like this one, and all of them, to end a sentence.

    >>> there_is("shapely", ["Shapley", "Lime"]), there_is("zzz", ["Shapley"])
    (": did you mean 'Shapley'? It has Shapley, Lime", '; it has Shapley')
    """
    known = list(known)
    near = meant(name, known)
    return f"{f'{near} It' if near else '; it'} has {', '.join(known)}"


def came(given: object, known: Iterable[object]) -> str:
    """What came in the place of a known name, and which one is like it.

    >>> came("shapely", ["Shapley", "Lime"])
    "got 'shapely': did you mean 'Shapley'?"
    """
    return f"got {given!r:.60}{meant(given, known)}"


def settings_of(function: Callable[..., Any]) -> list[str] | None:
    """The names that a function or a class may be given, or None where it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.name != "self"]


def spelled(method: Callable[P, R]) -> Callable[P, R]:
    """The same method, with its own signature, where a misspelt keyword is answered with the one that was meant.

    >>> spelled(lambda node, label=None: label)(3, lable=1)
    Traceback (most recent call last):
    TypeError: <lambda> has no setting 'lable': did you mean 'label'? It has node, label
    """
    known = settings_of(method)

    @functools.wraps(method)
    def asked(*args: P.args, **settings: P.kwargs) -> R:
        check_names(method.__name__, settings, settings if known is None else known)
        return method(*args, **settings)

    return asked
