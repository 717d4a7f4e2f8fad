"""Layers with ``cached=True`` answer from the first graph they met; here the graph changes from call to call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def forget(part: nn.Module) -> dict[str, Any]:
    """Empty a layer's cache, what it kept as well as the switch; what was there, by attribute."""
    kept = {name: value for name, value in vars(part).items() if name == "cached" or name.startswith("_cached")}
    for name in kept:
        setattr(part, name, None)
    return kept


@contextmanager
def uncached(module: nn.Module) -> Iterator[None]:
    """Within: no layer answers from a graph it has cached. After: caches as before, also after an exception."""
    before = [(part, forget(part)) for part in module.modules() if getattr(part, "cached", False) is True]
    try:
        yield
    finally:
        for part, kept in before:
            for name, value in kept.items():
                setattr(part, name, value)
