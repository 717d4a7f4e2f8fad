"""Warnings that point at the user's own line, however deep inside they arise."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from types import FrameType


def doubt(message: str) -> None:
    """Warns with ``message``, as of the line that called into this package."""
    inside = sum(1 for _ in _own(sys._getframe(1)))
    warnings.warn(message, stacklevel=inside + 2)


def _own(frame: FrameType | None) -> Iterator[FrameType]:
    package = __name__.partition(".")[0]
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        yield frame
        frame = frame.f_back
