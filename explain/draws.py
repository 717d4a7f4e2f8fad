"""Whether what a forward draws hangs on its input: then every input is answered by another network."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from explain.guard import other_random_states

# how far a generator moves in these hangs on the numbers that they are given: what is drawn after is not compared
_REJECTING = {"binomial", "poisson", "_standard_gamma", "_sample_dirichlet", "multinomial"}


class _Draws(TorchDispatchMode):
    """Notes within what torch draws, with the state of its generator just before, and where NumPy and Python get to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Any, ...]] = []
        self._ended = False
        self._others = _other_states()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._ended:
            return func(*args, **kwargs)
        if (others := _other_states()) != self._others:  # they drew since the last operation
            self._others = others
            self.found.append(("NumPy or Python", None, others))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        given = [*args, *kwargs.values()]
        own = next((part for part in given if isinstance(part, torch.Generator)), torch.default_generator)
        state = own.get_state().numpy().tobytes()
        made = func(*args, **kwargs)
        self.found.append((func, getattr(made, "shape", None), hash(state)))
        self._ended = func.overloadpacket.__name__ in _REJECTING
        return made


def seeded_by_input(ask: Callable[[], object], ask_otherwise: Callable[[], object]) -> bool:
    """Whether two calls on inputs of the same shapes draw other numbers though all generators start alike.

    A forward that seeds a generator by a constant, or by nothing, draws the same in both. Seen are torch's generators,
    the global one and any other, and the global ones of NumPy and Python. One that goes on from call to call, as a
    module may hold it, is seeded by no input: the same call draws other numbers from it, too.

    >>> noisy = lambda x: torch.rand(2, generator=torch.Generator().manual_seed(int(x.sum())))
    >>> one, other = torch.ones(2), torch.zeros(2)
    >>> seeded_by_input(lambda: noisy(one), lambda: noisy(other)), seeded_by_input(lambda: one, lambda: other)
    (True, False)
    """
    drawn = _drawn(ask)
    return bool(drawn) and _apart(drawn, _drawn(ask_otherwise)) and not _apart(drawn, _drawn(ask))


def seeded_remedy(asked: str) -> str:
    """What is wrong with such a network, of ``asked`` ("each coalition"), and what to do."""
    return (
        f"the model draws random numbers from a seed that its input makes: {asked} would be answered by another "
        "network. Draw them once and keep them (register_buffer), or seed them by a constant, before explaining"
    )


def own_words(module: object) -> dict[str, str]:
    """What a module says of itself, ``assumed = {"short name": "a sentence"}``, which is written into every answer."""
    said = getattr(module, "assumed", None)
    if not isinstance(said, Mapping):
        return {}
    return {name: text for name, text in said.items() if isinstance(name, str) and isinstance(text, str)}


def _drawn(ask: Callable[[], object]) -> list[tuple[Any, ...]]:
    """What one call draws, from generators that start as always; empty where nothing is."""
    with other_random_states(0), _Draws() as draws:
        ask()
    return draws.found


def _apart(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> bool:
    """Whether the same is drawn from another state, as far as both draw alike."""
    for (what, shape, state), (other, other_shape, other_state) in zip(first, second, strict=False):
        if (what, shape) != (other, other_shape):
            return False
        if state != other_state:
            return True
    return False


def _other_states() -> int:
    """Of NumPy's and Python's global generators."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the legacy global state is what a forward may draw from
    return hash((random.getstate(), kind, np.asarray(keys).tobytes(), *rest))
