"""What a forward may change in a module, kept and put back: attributes, what these hold, and the values of tensors."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from itertools import chain
from operator import is_
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from explain.layouts import held_bytes

_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_SEQUENCES = frozenset({list, deque, bytearray})
_CONTAINERS = _MAPPINGS | _SEQUENCES | {set}  # no subclasses, which may be frozen
_NESTED = _MAPPINGS | {list, deque}
_CONSTANT = frozenset({bool, int, float, str, type(None), nn.Parameter})
_KEPT_PARAMETERS = 2**22  # bytes of parameters that are kept too: a forward that writes them is rare
_LARGEST = 2**24  # bytes of a tensor that is no buffer, and so is data rather than a state
_DEPTH = 3  # of containers and objects within one another
_MANY = 10_000  # items of a container that is not looked into

_held: dict[int, tuple[Any, Any]] = {}  # by id, what a snapshot further out has copied (tensors) or looked into (parts)


class Snapshot:
    """A module as it is. Attributes, containers and generators are noted each time; tensors are copied once.

    Within a snapshot of the same module only tensors that were written since are put back, out of the first copy: a
    guard around every forward costs no copy of a large buffer. What lies within torch.func is not copied. What is seen
    to be as it was, name by name and thing by thing, is left alone: of a network that a call leaves as it was, most.
    """

    def __init__(self, parts: list[nn.Module]) -> None:
        self.parts = [(vars(part), vars(part).copy()) for part in parts]
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._empty: list[Any] = []
        self._undo: dict[int, Callable[[], None]] = {}
        self._tensors: dict[int, Tensor] = {}
        self._own: dict[int, None] = {}
        for part in parts:
            new = id(part) not in _held
            self._look(vars(part).values(), _DEPTH, new)
            if new:
                self._hold(part, part)
                self._tensors.update((id(buffer), buffer) for buffer in _held_by(part, "_buffers"))
        self._copy(_written_parameters(parts))

    def restore(self) -> None:
        """Everything as it was."""
        try:
            for now, attributes in self.parts:
                if not _same_items(now, attributes):
                    _set_back(now, attributes)
            for found in self._empty:
                if found:
                    found.clear()
            for found, copy in self._containers.values():
                if not _same(found, copy):
                    _refill(found, copy)
            for undo in self._undo.values():
                undo()
            for key, version in self._versions.items():
                tensor, copy = _held.get(key, (None, None))
                if tensor is not None and (key in self._own or _version(tensor) != version):
                    _write(tensor, copy)
        finally:
            for key in self._own:
                del _held[key]

    def _hold(self, thing: Any, copy: Any) -> None:
        if id(thing) not in _held:
            _held[id(thing)] = (thing, copy)
            self._own[id(thing)] = None

    def _copy(self, parameters: Iterable[Tensor]) -> None:
        if torch._C._functorch.maybe_current_level() is None:
            for tensor in chain(self._tensors.values(), parameters):
                if id(tensor) not in _held and not is_lazy(tensor):
                    self._hold(tensor, tensor.detach().clone())
        self._versions = {key: _version(t) for key, (t, _) in _held.items() if isinstance(t, Tensor)}

    def _look(self, values: Iterable[Any], depth: int, deep: bool) -> None:
        """Note how to put these back; ``deep``: also records and arrays, which have no versions."""
        for value in values:
            kind = type(value)
            if kind in _CONSTANT:
                continue
            if kind in _CONTAINERS:
                if not value:
                    self._empty.append(value)
                elif id(value) not in self._containers:
                    self._containers[id(value)] = (value, value.copy())
                    if depth and kind in _NESTED and len(value) <= _MANY:
                        self._look(list(value.values() if kind in _MAPPINGS else value), depth - 1, deep)
            elif isinstance(value, Tensor):
                if not isinstance(value, nn.Parameter) and held_bytes(value) <= _LARGEST:
                    self._tensors[id(value)] = value
            elif kind is tuple:
                if depth:
                    self._look(value, depth - 1, deep)
            elif id(value) not in self._undo:
                if kind in _GENERATORS:
                    self._undo[id(value)] = _GENERATORS[kind](value)
                elif deep and depth and _is_record(kind):
                    self._look_into(value, kind, depth)

    def _look_into(self, value: Any, kind: type, depth: int) -> None:
        if kind is np.ndarray:
            if value.flags.writeable and not value.dtype.hasobject:
                copy = value.copy()
                self._undo[id(value)] = lambda: np.copyto(value, copy)
            return
        attributes = getattr(value, "__dict__", {})
        before = dict(attributes)
        self._undo[id(value)] = lambda: _set_back(attributes, before)
        self._look(list(before.values()), depth - 1, True)


def _is_record(kind: type) -> bool:
    """Whether what it holds is looked into: arrays and records; other objects have a life of their own."""
    return kind in (np.ndarray, SimpleNamespace) or is_dataclass(kind)


def _same(now: Any, before: Any) -> bool:
    """Whether a container holds the very things it held, in their order."""
    kind = type(now)
    if kind in _MAPPINGS:
        return _same_items(now, before)
    return kind is not bytearray and kind is not set and len(now) == len(before) and all(map(is_, now, before))


def _same_items(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return len(now) == len(before) and all(map(is_, now, before)) and all(map(is_, now.values(), before.values()))


def _written_parameters(parts: list[nn.Module]) -> Iterator[Tensor]:
    """Parameters that are copied as buffers are: all of a small model, and those that their layer is known to write."""
    for part in parts:
        if _renormalises(part):
            yield from _held_by(part, "_parameters")
    everyone = {id(p): p for part in parts for p in _held_by(part, "_parameters") if not is_lazy(p)}
    if sum(held_bytes(p) for p in everyone.values()) <= _KEPT_PARAMETERS:
        yield from everyone.values()


def _renormalises(part: nn.Module) -> bool:
    """Whether a layer scales its parameters as it reads them, as embeddings may."""
    scripted = isinstance(part, torch.jit.ScriptModule)  # whose attributes are held elsewhere
    return (scripted or "max_norm" in vars(part)) and getattr(part, "max_norm", None) is not None


def _held_by(part: nn.Module, where: Literal["_parameters", "_buffers"]) -> list[Tensor]:
    """Its own parameters or buffers; read where a module keeps them, as a walk over every module's is most of a guard's
    time.
    """
    return [tensor for tensor in getattr(part, where).values() if tensor is not None]


def _set_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if name not in now or now[name] is not value:
            now[name] = value


def _refill(found: Any, copy: Any) -> None:
    """The object itself, so that hook handles still find it."""
    found.clear()
    (found.extend if type(found) in _SEQUENCES else found.update)(copy)


def _torch_generator(found: torch.Generator) -> Callable[[], None]:
    state = found.get_state()

    def undo() -> None:
        found.set_state(state)

    return undo


def _numpy_generator(found: Any) -> Callable[[], None]:
    bits, state = found.bit_generator, found.bit_generator.state

    def undo() -> None:
        bits.state = state

    return undo


def _numpy_state(found: np.random.RandomState) -> Callable[[], None]:
    state = found.get_state()
    return lambda: found.set_state(state)


def _python_generator(found: random.Random) -> Callable[[], None]:
    state = found.getstate()
    return lambda: found.setstate(state)


_GENERATORS: dict[type, Callable[[Any], Callable[[], None]]] = {
    torch.Generator: _torch_generator,
    np.random.Generator: _numpy_generator,
    np.random.RandomState: _numpy_state,
    random.Random: _python_generator,
}


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _write(tensor: Tensor, values: Tensor) -> None:
    if tensor.is_inference():
        with torch.inference_mode():
            _fill(tensor, values)
    else:
        _fill(tensor.data, values)


def _fill(place: Tensor, values: Tensor) -> None:
    if place.layout == torch.strided and not place.is_contiguous():
        for dim in range(place.dim()):
            if place.stride(dim) == 0:  # expanded: one place for all
                some = min(1, place.size(dim))
                place, values = place.narrow(dim, 0, some), values.narrow(dim, 0, some)
    place.copy_(values)
