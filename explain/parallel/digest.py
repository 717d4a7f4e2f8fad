"""What a model, data, settings or functions are, as one hash: equal in every process, different after any change."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from explain.explainer import plain
from explain.guard import random_states_kept
from explain.layouts import strided_parts
from explain.parallel.code import globals_of, is_library, version_of

_HEAP_TYPE = 1 << 9  # CPython's flag of classes that were made by a class statement
_CLASS_OWN = ("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "_abc_impl")

_FOLLOWS = ("_use_default_values",)  # diffusers: which settings were left at their defaults, in a set's order
_MODULE_OWN = ("training", "inspector")  # a mode, and what torch_geometric reads off the layer's own code


class Undigestable(TypeError):
    """Something that has no content to compare: a folder cannot tell whether its answers still belong to it."""


def fingerprint(*things: Any) -> str:
    """SHA-256 over all that things hold: two that give the same fingerprint give the same answers.

    ====================  ==============================================================================================
    tensors, arrays       type, shape, every number; of a parameter also whether it is trained
    modules               their class, parameters, buffers, hooks and whatever else they hold, but the training mode
    functions, classes    their code, defaults, closures and the globals that they read; of installed packages the name
                          and the version
    data sets             every example
    generators            their state
    other objects         their class and attributes; attributes that follow from others (cached properties, and those
                          that a class of `explain` lists as ``found``) are left out
    ====================  ==============================================================================================

    Raises:
        Undigestable: an open file, a lock, a connection or the like: nothing says when it has become another one.

    >>> fingerprint(torch.zeros(2)) == fingerprint(torch.zeros(2)), fingerprint(torch.zeros(2)) == fingerprint([0, 0])
    (True, False)
    """
    digest = Digest()
    for thing in things:
        digest.add(thing)
    return digest.hex()


class Digest:
    """A fingerprint that is taken piece by piece, for what does not fit in memory.

    Args:
        beside: types whose content is taken elsewhere: only their names are.
    """

    def __init__(self, beside: tuple[type, ...] = ()) -> None:
        self._hash = hashlib.sha256()
        self._beside = beside
        self._seen: dict[int, tuple[int, Any]] = {}  # number and object, held so that its id stays its own
        self._path: list[str] = []

    def add(self, thing: Any) -> None:
        """Take in one more thing."""
        if isinstance(thing, self._beside):
            self._say(f"beside {type(thing).__name__}")
        elif isinstance(thing, Tensor):
            self._tensor(thing)
        elif isinstance(thing, np.ndarray) and thing.dtype != object:
            self._say(f"array {thing.dtype} {list(thing.shape)}")
            self._hash.update(np.ascontiguousarray(thing).tobytes())
        elif thing is None or type(thing) in (bool, int, float, complex, str, bytes):
            self._say(f"{type(thing).__name__} {thing!r}")
        elif isinstance(thing, (torch.dtype, torch.device, torch.layout, type(Ellipsis), type(NotImplemented))):
            self._say(repr(thing))
        elif type(thing) in (tuple, frozenset) or id(thing) not in self._seen:
            if type(thing) not in (tuple, frozenset):  # equal constants may be one object here, and two elsewhere
                self._seen[id(thing)] = (len(self._seen), thing)
            self._compound(thing)
        else:
            self._say(f"again {self._seen[id(thing)][0]}")

    def hex(self) -> str:
        """The fingerprint so far."""
        return self._hash.hexdigest()

    def _say(self, text: str) -> None:
        self._hash.update(f"{text}\n".encode("utf-8", "surrogatepass"))

    def _tensor(self, tensor: Tensor) -> None:
        trained = isinstance(tensor, nn.Parameter) and tensor.requires_grad
        self._say(f"tensor {tensor.dtype} {list(tensor.shape)} {tensor.layout}{' trained' * trained}")
        for part in strided_parts(tensor.detach()):
            flat = part.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
            self._hash.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")

    def _compound(self, thing: Any) -> None:
        for kinds, take in _KINDS:
            if isinstance(thing, kinds):
                take(self, thing)
                return
        if hasattr(thing, "__wrapped__") and callable(thing):  # what functools.lru_cache makes
            self.add(thing.__wrapped__)
        else:
            self._object(thing)

    # --- kinds of things ---

    def _module(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            self._say(str(module.inlined_graph))
            self._items({**dict(module.named_parameters()), **dict(module.named_buffers())})
            return
        compiled = vars(module).get("_modules", {}).get("_orig_mod")
        if compiled is not None:  # torch.compile: the same function
            self.add(compiled)
            return
        self._say("module")
        self.add(type(module))
        held = attributes(module)
        caching = held.get("cached") is True  # such layers keep the last graph, which is not asked for here
        for name, value in held.items():
            if name in _MODULE_OWN or (caching and name.startswith("_cached")):
                continue
            if name.endswith("_hooks"):  # by handle numbers, which count through the process
                value = list(value.values()) if isinstance(value, Mapping) else value
            self._named(name, value)

    def _mapping(self, things: Mapping[Any, Any]) -> None:
        self._say(f"mapping {len(things)}")
        self._items(things)

    def _sequence(self, things: Sequence[Any]) -> None:
        self._say(f"sequence {type(things).__name__} {len(things)}")
        for number, part in enumerate(things):
            self._named(str(number), part)

    def _set(self, things: Any) -> None:
        self._say(f"set {len(things)}")
        for text in sorted(fingerprint(part) for part in things):
            self._say(text)

    def _partial(self, thing: functools.partial[Any]) -> None:
        self._say("partial")
        for part in (thing.func, thing.args, thing.keywords):
            self.add(part)

    def _generator(self, generator: torch.Generator) -> None:
        self._say(f"generator {generator.device}")
        self.add(generator.get_state())

    def _dataset(self, data: Any) -> None:
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise self._refused(data, "it is read once, as a stream")
        self._say(f"examples {len(data)}")
        with random_states_kept():
            for number in range(len(data)):
                example = data.__getitems__([number])[0] if hasattr(data, "__getitems__") else data[number]
                self._say(fingerprint(example))  # by itself: nothing of it is held

    def _function(self, function: types.FunctionType) -> None:
        self._say(f"function {_name(function)}")
        if is_library(function.__module__):
            self._say(version_of(function.__module__))
        else:
            self._code(function.__code__)
            for name, value in globals_of(function):
                self._named(name, value)
        self._items({"defaults": function.__defaults__, "keywords": function.__kwdefaults__, **vars(function)})
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._named(name, cell.cell_contents)
            except ValueError:  # not yet given
                self._say(f"{name} empty")

    def _code(self, code: types.CodeType) -> None:
        self._hash.update(code.co_code)
        self._say(
            f"code {code.co_names} {code.co_varnames} {code.co_argcount} {code.co_kwonlyargcount} {code.co_flags}"
        )
        for constant in code.co_consts:
            self.add(constant)

    def _method(self, method: types.MethodType) -> None:
        self._say("method")
        self.add(method.__func__)
        self.add(method.__self__)

    def _class(self, kind: type) -> None:
        self._say(f"class {_name(kind)}")
        if is_library(kind.__module__):
            self._say(version_of(kind.__module__))
            return
        for base in kind.__bases__:
            self.add(base)
        self._items({name: value for name, value in vars(kind).items() if name not in _CLASS_OWN})

    def _descriptor(self, thing: Any) -> None:
        self._say(type(thing).__name__)
        for name in ("fget", "fset", "fdel", "func", "__func__"):
            self.add(getattr(thing, name, None))

    def _python_module(self, module: types.ModuleType) -> None:
        self._say(f"import {module.__name__} {version_of(module.__name__)}")

    def _reference(self, reference: weakref.ref[Any]) -> None:
        self._say("reference")
        self.add(reference())

    def _builtin(self, thing: Any) -> None:
        self._say(f"builtin {_name(thing)}")
        owner = getattr(thing, "__self__", None)
        if owner is not None and not isinstance(owner, (types.ModuleType, type)):
            self.add(owner)

    def _object(self, thing: Any) -> None:
        """The attributes of what Python code made, and of anything else what pickle would write of it."""
        try:
            found = thing.__reduce_ex__(2)
        except Exception as error:  # whatever an extension raises
            raise self._refused(thing, str(error)) from error
        if not _has_own_reduction(type(thing)):
            self.add(type(thing))
            self._items(attributes(thing))
            return
        for part in found if isinstance(found, tuple) else (found,):
            self.add(list(part) if isinstance(part, Iterator) else part)

    # --- parts ---

    def _items(self, things: Mapping[Any, Any]) -> None:
        for key, value in things.items():
            if key not in _FOLLOWS:
                self._named(key if isinstance(key, str) else repr(key), value)

    def _named(self, name: str, value: Any) -> None:
        self._say(f"{name}:")
        self._path.append(name)
        self.add(value)
        self._path.pop()

    def _refused(self, thing: Any, why: str) -> Undigestable:
        where = f" at {'.'.join(self._path)}" if self._path else ""
        return Undigestable(
            f"a folder keeps answers only where it can tell that nothing behind them has changed, and a "
            f"{type(thing).__name__}{where} has no content to compare ({why}): leave the folder out, or give what "
            "holds tensors, plain values and functions"
        )


_KINDS: tuple[tuple[Any, Callable[[Digest, Any], None]], ...] = (
    (nn.Module, Digest._module),
    (Mapping, Digest._mapping),
    (Dataset, Digest._dataset),
    ((set, frozenset), Digest._set),
    (Sequence, Digest._sequence),
    (functools.partial, Digest._partial),
    (torch.Generator, Digest._generator),
    (types.FunctionType, Digest._function),
    (types.MethodType, Digest._method),
    (types.CodeType, Digest._code),
    (type, Digest._class),
    ((property, staticmethod, classmethod, functools.cached_property), Digest._descriptor),
    (types.ModuleType, Digest._python_module),
    (weakref.ref, Digest._reference),
    (
        (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType),
        Digest._builtin,
    ),
    ((types.MemberDescriptorType, types.GetSetDescriptorType), Digest._builtin),
)


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON values with the fingerprint of each that is more than one, so that a change is seen and named.

    >>> shown({"damping": 0.1, "solver": "cg"})
    {'damping': 0.1, 'solver': 'cg'}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        said = plain(value)
        simple = value is None or isinstance(value, (bool, int, float, str))
        found[name] = said if simple else {"is": said, "fingerprint": fingerprint(value)}
    return json.loads(json.dumps(found))


def attributes(thing: Any) -> dict[str, Any]:
    """What an object was given: its attributes, without those that follow from others."""
    kind = type(thing)
    held = dict(getattr(thing, "__dict__", {}))
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                held[name] = getattr(thing, name)
    left = {name for name in held if isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)}
    if kind.__module__.partition(".")[0] == "explain":
        left |= set(getattr(kind, "found", ()))
        if dataclasses.is_dataclass(kind):
            left |= {f.name for f in dataclasses.fields(kind) if not f.compare}
    return {name: value for name, value in held.items() if name not in left}


def _has_own_reduction(kind: type) -> bool:
    """Whether a class says itself what it is made of, or holds what Python code does not see."""
    if kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__:
        return True
    return next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE) is not object


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
