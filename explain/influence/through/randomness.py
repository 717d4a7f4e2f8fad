"""States of the random generators before a call that draws from them, so that it can draw the same again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor


class _Source(NamedTuple):
    """A generator: how its state is read and set."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]


class Drawn(NamedTuple):
    """The generators that were drawn from, with the states that they had before."""

    states: tuple[tuple[_Source, Any], ...]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within: they are in those states. After: as before."""
        before = [(source, source.read()) for source, _ in self.states]
        try:
            for source, state in self.states:
                source.write(state)
            yield
        finally:
            for source, state in before:
                source.write(state)


class States(NamedTuple):
    """The states of all generators at one moment."""

    states: tuple[tuple[_Source, Any], ...]

    @classmethod
    def now(cls, generators: Sequence[torch.Generator] = ()) -> Self:
        """Of Python, NumPy and torch (all devices), and of these."""
        sources = [
            _Source(random.getstate, random.setstate),
            _Source(lambda: np.random.get_state(), lambda state: np.random.set_state(state)),  # noqa: NPY002 - the global
            _Source(torch.get_rng_state, torch.set_rng_state),
            *(_Source(each.get_state, each.set_state) for each in generators),
        ]
        if torch.cuda.is_initialized():
            sources.append(_Source(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
        return cls(tuple((source, source.read()) for source in sources))

    def since(self) -> Drawn:
        """Those that have changed since, that is which were drawn from.

        >>> before = States.now()
        >>> x = torch.rand(3)
        >>> with before.since().again():
        ...     bool((torch.rand(3) == x).all())
        True
        """
        return Drawn(tuple((source, state) for source, state in self.states if not _same(source.read(), state)))


def _same(now: Any, before: Any) -> bool:
    if isinstance(now, Tensor):
        return torch.equal(now, before)
    if isinstance(now, np.ndarray):
        return bool(np.array_equal(now, before))
    if isinstance(now, (list, tuple)):
        return len(now) == len(before) and all(map(_same, now, before))
    return bool(now == before)
