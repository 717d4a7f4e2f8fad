"""One question at a time: threads of a process wait for one another."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

_LOCK = threading.RLock()
_DEPTH = threading.local()  # how often this thread holds it, and which thread it stands for
_owner: int | None = None  # the thread that holds it
_T = TypeVar("_T")


def _renewed() -> None:
    """A forked process has one thread, and no one who would give the lock back."""
    global _LOCK
    if not getattr(_DEPTH, "held", 0):
        _LOCK = threading.RLock()


os.register_at_fork(after_in_child=_renewed)


@contextmanager
def alone() -> Iterator[None]:
    """Within: no other thread of this process asks a model.

    One lock for all of them, which a thread may hold several times: models share layers, and the global random states
    and torch's switches, which every question changes for a while, belong to the process.
    """
    global _owner
    if _owner is not None and getattr(_DEPTH, "stands_for", None) == _owner:
        yield
        return
    with _LOCK:
        _DEPTH.held = getattr(_DEPTH, "held", 0) + 1
        _owner = threading.get_ident()
        try:
            yield
        finally:
            _DEPTH.held -= 1
            if not _DEPTH.held:
                _owner = None


@contextmanager
def standing_for(thread: int) -> Iterator[None]:
    """Within: this thread asks where that one may, which waits for it: so autograd's workers compute a pass again."""
    before = getattr(_DEPTH, "stands_for", None)
    _DEPTH.stands_for = thread
    try:
        yield
    finally:
        _DEPTH.stands_for = before


@contextmanager
def released() -> Iterator[None]:
    """Within: other threads may ask, as the workers of a cluster in this process must while their client waits."""
    global _owner
    held = getattr(_DEPTH, "held", 0)
    if held:
        _owner = None
    for _ in range(held):
        _LOCK.release()
    try:
        yield
    finally:
        for _ in range(held):
            _LOCK.acquire()
        if held:
            _owner = threading.get_ident()


class found_alone(cached_property[_T]):
    """A cached property that asks the model: the lock is taken before the property's own, in every thread."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """The value, found at the first look."""
        if instance is None:
            return self
        with alone():
            return super().__get__(instance, owner)
