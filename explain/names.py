"""Names that users give to nodes, edges, features and classes: one each, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def checked_names(what: str, given: Any, count: int, of: str) -> tuple[str, ...]:
    """These names, ``count`` of them.

    Args:
        what: what the setting is called.
        given: a list of texts; none where it is None or empty.
        count: how many there must be.
        of: what each of them names, in a word.

    Raises:
        TypeError: no list of texts.
        ValueError: another number of them.

    >>> checked_names("class_names", ["cat", "dog"], 2, "class")
    ('cat', 'dog')
    """
    if given is None or (not isinstance(given, str) and not len(given)):
        return ()
    if isinstance(given, (str, Mapping)) or not is_text(given):
        raise TypeError(f"{what} must be a list of texts, one for each {of}, got {given!r:.60}")
    if len(given) != count:
        raise ValueError(f"{what} must be {count} texts, one for each {of}, got {len(given)}")
    return tuple(str(name) for name in given)


def is_text(given: Any) -> bool:
    """Whether this is a list, tuple or array of texts.

    >>> is_text(["a", "b"]), is_text("ab"), is_text([1, 2])
    (True, False, False)
    """
    return not isinstance(given, (str, bytes, Mapping)) and _is_listed(given) and all(isinstance(x, str) for x in given)


def _is_listed(given: Any) -> bool:
    return hasattr(given, "__len__") and hasattr(given, "__iter__")
