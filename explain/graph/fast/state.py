"""Whether a module is still the one that was looked at: its parameters, its settings, its hooks."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Hashable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None))


def tensors(module: nn.Module) -> Hashable:
    """Where each parameter and buffer lies, and how often it was written: what is cheap enough to ask at every call."""
    return tuple((t.data_ptr(), t._version) for t in chain(module.parameters(), module.buffers()))


def settings(module: nn.Module) -> Hashable:
    """The plain attributes of every part, and how many hooks, parameters and parts each holds."""
    seen: list[Any] = []
    for part in module.modules():
        seen.append(type(part))
        for name, value in vars(part).items():
            kind = type(value)
            if kind in _PLAIN:
                if name != "training":  # explained in eval mode, whatever the mode was
                    seen.append(value)
            elif kind is dict or kind is OrderedDict:
                seen.append(len(value))
    return tuple(seen)


def fingerprint(module: nn.Module) -> tuple[Hashable, ...]:
    """`tensors`, `settings`, and a checksum of every tensor: writes through ``.data`` leave no other trace."""
    sums = tuple(_checksum(tensor) for tensor in chain(module.parameters(), module.buffers()))
    return tensors(module), settings(module), sums


def _checksum(tensor: Tensor) -> Hashable:
    flat = tensor.detach().contiguous().view(-1)
    if flat.device.type != "cpu":
        return float(flat.double().sum()), float(flat.double().norm())
    return zlib.crc32(flat.view(torch.uint8).numpy().tobytes())
