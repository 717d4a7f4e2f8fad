"""Which operation of a forward pass wrote its outputs: a softmax or a sigmoid proves probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COPIES = {
    *("cat", "stack", "clone", "_to_copy", "copy_", "index", "index_select", "select_copy", "gather"),
    "constant_pad_nd",
}


class LastOperation(TorchDispatchMode):
    """Remembers which operation wrote each tensor: within, ``of(tensor)`` names the last one, views and copies aside.

    >>> with LastOperation() as last:
    ...     found = torch.zeros(2, 3).softmax(1)[:, 1]
    >>> last.of(found)
    '_softmax'
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[int, str | None] = {}

    def of(self, tensor: Tensor) -> str | None:
        """The operation that wrote what this tensor shows."""
        return self._written.get(_place(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor) and part.is_floating_point()]
        if name in _COPIES:
            before = {self.of(part) for part in (given[-1:] if name == "copy_" else given)}
            name = before.pop() if len(before) == 1 else None
        seen = {_place(part) for part in given}
        for part in tree_leaves(found):
            if isinstance(part, Tensor) and (
                _place(part) not in seen or func._schema.is_mutable
            ):  # a view writes nothing
                self._written[_place(part)] = name
        return found


def _place(tensor: Tensor) -> int:
    """Where its numbers are; sparse ones are nobody's outputs."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0
