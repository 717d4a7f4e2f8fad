"""Leave no trace: the user's model and the global random states are as before, also after an exception."""

from __future__ import annotations

import random
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_CONTAINERS = (dict, OrderedDict, list)  # what modules change in place: parameters, hooks; no frozen subclasses


@contextmanager
def usual_modes() -> Iterator[None]:
    """Within: every operation in its own dtype and known to autograd, whatever mode the user's call is made in.

    Under ``torch.inference_mode`` or ``torch.no_grad`` every gradient would be zero, and what is made could not be
    differentiated later; under ``torch.autocast`` a sum over many calls would be one of numbers rounded to 8 bits.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def recordable(x: Tensor) -> Tensor:
    """The tensor, or a clone where it was made under ``torch.inference_mode``, so that autograd may keep it."""
    return x.clone() if x.is_inference() else x


def check_recordable(module: nn.Module) -> None:
    """Check that autograd may keep what the module holds.

    Raises:
        ValueError: parameters or buffers that were made under ``torch.inference_mode``; with the remedy.
    """
    made = [name for name, part in (*module.named_parameters(), *module.named_buffers()) if part.is_inference()]
    if made:
        raise ValueError(
            f"{made[0]!r} of the model ({len(made)} of its tensors) was made under torch.inference_mode(), and nothing "
            "can be differentiated by it: give copy.deepcopy(model), called outside of inference mode"
        )


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within: the module in eval mode. After: modes, flags, gradients, buffers, hooks, attributes and RNGs as before.

    Within are `usual_modes`. Every module's training flag is put back by itself, so a deliberately frozen BatchNorm
    stays frozen. Attributes that layers keep between calls (``cached=True`` graphs, stored attention) come back too.

    Warns:
        UserWarning: a dropout or normalisation layer was in training mode; the answer is that of eval mode.
    """
    if any(part.training and _changes_in_training(part) for part in module.modules()):
        warnings.warn("the model was in training mode: explained in eval mode, then put back", stacklevel=3)
    parameters = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]  # running statistics, counters
    try:
        with usual_modes(), evaluating(module):
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
