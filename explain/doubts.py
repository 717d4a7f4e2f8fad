"""What makes an answer doubtful: a warning that points at the user's own line, and is kept in the answer."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

_KEPT: ContextVar[list[str] | None] = ContextVar("kept", default=None)


def doubt(message: str) -> None:
    """Warns with ``message``, as of the line that called into this package, and keeps it where `kept` is open.

    >>> with warnings.catch_warnings(action="ignore"), kept() as said:
    ...     doubt("few samples")
    >>> said
    ['few samples']
    """
    said = _KEPT.get()
    if said is not None and message not in said:
        said.append(message)
    warnings.warn(message, stacklevel=_depth() + 1)


@contextmanager
def kept() -> Iterator[list[str]]:
    """Within: the list that every doubt of this thread is added to, each once; also where warnings are not shown."""
    said: list[str] = []
    outer = _KEPT.get()
    token = _KEPT.set(said)
    try:
        yield said
    finally:
        _KEPT.reset(token)
        if outer is not None:
            outer.extend(each for each in said if each not in outer)


def _depth() -> int:
    """How many frames above `doubt`'s the line stands that called into this package."""
    package = __name__.partition(".")[0]
    frame: FrameType | None = sys._getframe(1)
    depth = last = 0
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            last = depth
        frame, depth = frame.f_back, depth + 1
    return last + 1
