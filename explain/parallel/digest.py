"""What a model, data or settings are, as one hash: equal in every process, different after any change."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from explain.explainer import plain


def fingerprint(*things: Any) -> str:
    """SHA-256 over the content of tensors, arrays, modules, mappings, sequences, dataclasses and plain values.

    A module is its architecture (types and settings of its layers), parameters and buffers; a function its qualified
    name, and the arguments that a ``functools.partial`` fixes; another object with a ``__dict__`` its type and
    attributes. Names of the caller's own (``__main__``) count as any other.

    >>> fingerprint(torch.zeros(2)) == fingerprint(torch.zeros(2)), fingerprint(torch.zeros(2)) == fingerprint([0, 0])
    (True, False)
    """
    digest = Digest()
    for thing in things:
        digest.add(thing)
    return digest.hex()


class Digest:
    """A fingerprint that is taken piece by piece, for what does not fit in memory."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._within: set[int] = set()  # objects that are being looked into: they may hold one another

    def add(self, thing: Any) -> None:
        """Take in one more thing."""
        if isinstance(thing, Tensor):
            self._tensor(thing)
        elif isinstance(thing, np.ndarray) and thing.dtype != object:
            self._say(f"array {thing.dtype} {list(thing.shape)}")
            self._hash.update(np.ascontiguousarray(thing).tobytes())
        elif thing is None or isinstance(thing, (bool, int, float, complex, str, bytes)):
            self._say(f"{type(thing).__name__} {thing!r}")
        elif id(thing) in self._within:
            self._say("again")
        else:
            self._within.add(id(thing))
            self._compound(thing)
            self._within.discard(id(thing))

    def hex(self) -> str:
        """The fingerprint so far."""
        return self._hash.hexdigest()

    def _say(self, text: str) -> None:
        self._hash.update(f"{text}\n".encode())

    def _tensor(self, tensor: Tensor) -> None:
        self._say(f"tensor {tensor.dtype} {list(tensor.shape)} {tensor.layout}")
        if tensor.layout != torch.strided:
            tensor = tensor.detach().to_dense()
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        self._hash.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")

    def _compound(self, thing: Any) -> None:
        if isinstance(thing, nn.Module):
            self._say(f"module {_name(type(thing))} {thing!r}")
            self._items({**dict(thing.named_parameters()), **dict(thing.named_buffers())})
        elif isinstance(thing, Mapping):
            self._say(f"mapping {len(thing)}")
            self._items(thing)
        elif isinstance(thing, (Sequence, set, frozenset)):
            things = thing if isinstance(thing, Sequence) else sorted(thing, key=repr)
            self._say(f"sequence {len(things)}")
            for part in things:
                self.add(part)
        elif isinstance(thing, functools.partial):
            self._say("partial")
            for part in (thing.func, thing.args, thing.keywords):
                self.add(part)
        elif isinstance(thing, torch.Generator):
            self._say(f"generator {thing.initial_seed()}")
        elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            self._say(_name(type(thing)))
            self._items({f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.repr})
        elif hasattr(thing, "__qualname__"):  # functions, classes
            self._say(_name(thing))
        else:
            self._say(_name(type(thing)))
            self._items(getattr(thing, "__dict__", {}))

    def _items(self, things: Mapping[Any, Any]) -> None:
        for key, value in things.items():
            self._say(f"{key!r}:")
            self.add(value)


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


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"
