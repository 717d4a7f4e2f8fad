"""Whether a module is still the one that was looked at: its parameters, its settings, its hooks."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Hashable
from itertools import chain

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None))


def glance(module: nn.Module) -> Hashable:
    """What tells a change without reading a number: where each parameter lies, how often it was written, settings."""
    seen: list[Hashable] = []
    for part in module.modules():
        for name, value in vars(part).items():
            kind = type(value)
            if kind in _PLAIN:
                if name != "training":  # explained in eval mode, whatever the mode was
                    seen.append(value)
            elif kind is dict or kind is OrderedDict:
                seen.append(len(value))
        for tensor in chain(part._parameters.values(), part._buffers.values()):
            if tensor is not None:
                seen.append((tensor.data_ptr(), tensor._version, tensor.shape))
    return tuple(seen)


def fingerprint(module: nn.Module) -> Hashable:
    """`glance`, and a checksum of every parameter and buffer: writes through ``.data`` leave no other trace."""
    return glance(module), tuple(_checksum(tensor) for tensor in chain(module.parameters(), module.buffers()))


def _checksum(tensor: Tensor) -> Hashable:
    flat = tensor.detach().contiguous().view(-1)
    if flat.device.type != "cpu":
        return float(flat.double().sum()), float(flat.double().norm())
    return zlib.crc32(flat.view(torch.uint8).numpy().tobytes())
