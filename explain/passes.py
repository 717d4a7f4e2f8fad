"""What a call of a network is part of: the step of a run, and the guidance branch of each row of its batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """One call of a denoiser within a run.

    Args:
        t: the scheduler's timestep.
        branches: "cond" or "uncond" of each row of the batch; "perturbed" of one that is asked as "cond" is while
            guidance changes the network itself (perturbed attention, skipped layers); None where a run has no branches.
    """

    t: float
    branches: tuple[str | None, ...]


_CURRENT: ContextVar[Pass | None] = ContextVar("pass", default=None)


@contextmanager
def told(now: Pass) -> Iterator[None]:
    """Within: whoever watches the network can ask what its call is part of.

    >>> with told(Pass(40.0, ("uncond", "cond"))):
    ...     current().branches
    ('uncond', 'cond')
    >>> current() is None
    True
    """
    before = _CURRENT.set(now)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def current() -> Pass | None:
    """The pass that is under way in this thread, where the run tells of it."""
    return _CURRENT.get()
