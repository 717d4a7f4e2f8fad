"""Whether a module and its graph are still those that were looked at: parameters, settings, hooks; fields and edges."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from explain.layouts import strided_parts

_BESIDE = ("y", "train_mask", "val_mask", "test_mask")  # fields that no forward is given
_SUMMED = 2**26  # bytes of a field up to which writes that torch does not count are noticed too
_COLUMNS = 1021  # prime: rows that change places fall into other columns
_PLAIN = (bool, int, float, str, type(None))


def tensors(module: nn.Module) -> Hashable:
    """Where each parameter and buffer lies, and how often it was written: what is cheap enough to ask at every call."""
    each = chain(module.parameters(), module.buffers())
    return tuple((t.data_ptr(), t._version) if t.layout == torch.strided else _where(t) for t in each)


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
    each = chain(module.parameters(), module.buffers())
    sums = tuple(_checksum(part) for tensor in each for part in strided_parts(tensor))
    return tensors(module), settings(module), sums


def _checksum(tensor: Tensor) -> Hashable:
    flat = tensor.detach().contiguous().view(-1)
    if flat.device.type != "cpu":
        return float(flat.double().sum()), float(flat.double().norm())
    return zlib.crc32(flat.view(torch.uint8).numpy().tobytes())


def glance(data: Data | HeteroData) -> Hashable:
    """Where each field of the data lies, and how often it was written; plain numbers and texts as they are."""
    plain = ((name, value) for name, value in data.stores[0].items() if type(value) in _PLAIN)
    return *plain, *((*name, *_where(value)) for name, value in _fields(data))


def contents(data: Data | HeteroData) -> Hashable:
    """`glance`, and sums of each field, as writes through ``.data`` and NumPy leave no other trace."""
    return glance(data), tuple(_sums(part) for _, value in _fields(data) for part in strided_parts(value))


def _fields(data: Data | HeteroData) -> Iterator[tuple[tuple[str, str], Tensor]]:
    for store in data.stores:
        for name, value in store.items():
            if isinstance(value, Tensor) and name not in _BESIDE:
                yield (str(store._key), name), value


def _where(value: Tensor) -> tuple[Hashable, ...]:
    parts = strided_parts(value)
    return tuple((part.data_ptr(), None if part.is_inference() else part._version) for part in parts)


def _sums(value: Tensor) -> Hashable:
    """Bits as whole numbers, summed by columns of a table that they are laid out in: one pass at memory's speed."""
    if value.nbytes > _SUMMED or value.is_meta:
        return value.nbytes
    bits = value.detach().contiguous().view(-1).view(torch.uint8)
    bits = bits if bits.storage_offset() % 8 == 0 else bits.clone()
    whole = len(bits) // 8 * 8
    words = bits[:whole].view(torch.int64)
    table = words[: len(words) // _COLUMNS * _COLUMNS].view(-1, _COLUMNS).sum(0)
    rest = words[len(words) // _COLUMNS * _COLUMNS :].tolist()
    return zlib.crc32(table.cpu().numpy().tobytes()), *rest, *bits[whole:].tolist()
