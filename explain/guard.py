"""Leave no trace: the user's model and the global random states are as before, also after an exception."""

from __future__ import annotations

import random
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

_CONTAINERS = (dict, OrderedDict, list)  # what modules change in place: parameters, hooks; no frozen subclasses


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within: the module in eval mode. After: modes, flags, gradients, buffers, hooks, attributes and RNGs as before.

    Every module's training flag is put back by itself, so a deliberately frozen BatchNorm stays frozen. Attributes that
    layers keep between calls (``cached=True`` graphs, stored attention) come back too.

    Warns:
        UserWarning: a dropout or normalisation layer was in training mode; the answer is that of eval mode.
    """
    if any(part.training and _changes_in_training(part) for part in module.modules()):
        warnings.warn("the model was in training mode: explained in eval mode, then put back", stacklevel=3)
    parameters = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]  # running statistics, counters
    try:
        with evaluating(module):
            yield
    finally:
        for parameter, flag, gradient in parameters:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
        for buffer, value in buffers:
            buffer.data.copy_(value)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within: the module in eval mode. After: modes, attributes and random states as before: the guard of one call.

    Unlike `untouched` it says nothing of training mode, and leaves parameters and buffers to the call.
    """
    modules = list(module.modules())
    modes = [part.training for part in modules]
    attributes = [(dict(vars(part)), _attributes(part)) for part in modules]
    with random_states_kept():
        try:
            for part in modules:
                part.training = False
            yield
        finally:
            for part, mode, (originals, copies) in zip(modules, modes, attributes, strict=True):
                _restore(part, originals, copies)
                part.training = mode


@contextmanager
def random_states_kept() -> Iterator[None]:
    """The global generators of Python, NumPy and torch (all devices) as before, whatever happens within."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the legacy global state is what must be kept
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    torch_state = torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002 - as above
        torch.set_rng_state(torch_state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def other_random_states(seed: int) -> Iterator[None]:
    """Within: every global generator started from ``seed``, so that hidden randomness shows. After: as before."""
    with random_states_kept():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - as above
        torch.manual_seed(seed)
        yield


def _changes_in_training(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return True
    rates = (getattr(part, "p", None) if "Dropout" in type(part).__name__ else None, vars(part).get("dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)  # attention layers hold a plain rate


def _attributes(part: nn.Module) -> dict[str, Any]:
    """A shallow copy of what the module holds; dictionaries (parameters, buffers, hooks) and lists one level deeper."""
    return {name: value.copy() if type(value) in _CONTAINERS else value for name, value in vars(part).items()}


def _restore(part: nn.Module, originals: dict[str, Any], copies: dict[str, Any]) -> None:
    now = vars(part)
    for name in [name for name in now if name not in copies]:
        del now[name]
    for name, value in copies.items():
        found = originals[name]
        if type(value) in (dict, OrderedDict):  # the object itself, so that hook handles still find it
            found.clear()
            found.update(value)
        elif type(value) is list:
            found[:] = value
        now[name] = found
