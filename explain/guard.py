"""Leave no trace: the user's model and the global random states are as before, also after an exception."""

from __future__ import annotations

import copy
import random
import warnings
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from explain.snapshot import Snapshot
from explain.threads import alone

M = TypeVar("M", bound=nn.Module)
_warned: dict[int, weakref.ref[nn.Module]] = {}  # by id: a module need not be hashable


def copied(module: M, memo: dict[int, Any] | None = None) -> M:
    """A deep copy; what a layer computed in its last call and kept, as old weight normalisation does, as a number."""
    memo = {} if memo is None else memo
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(module, memo)


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
    """Check that autograd may keep what the module holds, and that its mode can be set.

    Raises:
        TypeError: a frozen torch.jit module, which has no mode and no parameters.
        ValueError: parameters or buffers that were made under ``torch.inference_mode``; with the remedy.
    """
    if not all(hasattr(part, "training") for part in module.modules()):
        raise TypeError(
            "a torch.jit module that was frozen has no mode and no parameters left: give the module itself, or the "
            "scripted one before torch.jit.freeze"
        )
    made = [name for name, part in (*module.named_parameters(), *module.named_buffers()) if part.is_inference()]
    if made:
        raise ValueError(
            f"{made[0]!r} of the model ({len(made)} of its tensors) was made under torch.inference_mode(), and nothing "
            "can be differentiated by it: give copy.deepcopy(model), called outside of inference mode"
        )


@contextmanager
def untouched(module: nn.Module, beside: nn.Module | None = None) -> Iterator[None]:
    """Within: the module in eval mode. After: modes, flags, gradients, buffers, hooks, attributes and RNGs as before.

    Within are `usual_modes`, and other threads wait. Every module's training flag is put back by itself, so a
    deliberately frozen BatchNorm stays frozen. Attributes that layers keep between calls (``cached=True`` graphs,
    stored attention) come back too, see `Snapshot`. Of a module ``beside`` it, such as a decoder that was trained with
    it, the parameters' flags and gradients come back.

    Warns:
        UserWarning: a dropout or normalisation layer was in training mode: answered in eval mode. Once a model.
    """
    with alone():
        if any(part.training and _changes_in_training(part) for part in module.modules()) and _first(module):
            warnings.warn("the model was in training mode: explained in eval mode, then put back", stacklevel=4)
        owners = [module] if beside is None else [module, beside]
        parameters = [(p, p.requires_grad, p.grad) for owner in owners for p in owner.parameters()]
        try:
            with usual_modes(), evaluating(module):
                yield
        finally:
            for parameter, flag, gradient in parameters:
                parameter.requires_grad_(flag)
                parameter.grad = gradient


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within: the module in eval mode. After: modes, attributes, buffers and random states as before: of one call.

    Unlike `untouched` it says nothing of training mode, and leaves the parameters' flags and gradients to the call.
    A module of PyTorch Lightning writes nothing into its trainer's log meanwhile.
    """
    with random_states_kept():
        modules = list(module.modules())
        before = Snapshot(modules)
        try:
            for part in modules:
                if part.training:
                    part.training = False
                if _logs(part):
                    part.__dict__ |= dict.fromkeys(("log", "log_dict"), _unlogged)
            yield
        finally:
            before.restore()


@contextmanager
def random_states_kept() -> Iterator[None]:
    """The global generators of Python, NumPy and torch (all devices) as before, whatever happens within."""
    with alone():
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the legacy global state must be kept
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


def _logs(part: nn.Module) -> bool:
    """Whether it is a module of PyTorch Lightning: its ``self.log`` raises out of its trainer's loops."""
    return hasattr(type(part), "log_dict") and any(kind.__name__ == "LightningModule" for kind in type(part).__mro__)


def _unlogged(*values: Any, **options: Any) -> None:
    """A call for an explanation is no step of training or validation."""


def _changes_in_training(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return True
    rates = (getattr(part, "p", None) if "Dropout" in type(part).__name__ else None, vars(part).get("dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)  # attention layers hold a plain rate


def _first(module: nn.Module) -> bool:
    """Whether this model has not been warned of yet."""
    known = _warned.get(id(module))
    if known is not None and known() is module:
        return False
    _warned[id(module)] = weakref.ref(module, partial(_forget, id(module)))
    return True


def _forget(key: int, _: weakref.ref[nn.Module]) -> None:
    _warned.pop(key, None)
