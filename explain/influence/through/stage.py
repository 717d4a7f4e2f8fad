"""A module whose parameters others stand in for, many times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from explain.types import Parameters


class Stage:
    """A module and the places of its parameters, where others can stand: many times, ``functional_call`` is slow."""

    def __init__(self, module: nn.Module) -> None:
        names = {id(p): name for name, p in module.named_parameters()}
        self.parts = list(module.modules())
        self.places = [
            (part._parameters, key, names[id(p)])
            for part in self.parts
            for key, p in part._parameters.items()
            if p is not None
        ]

    def training(self) -> set[int]:
        """Which parts are in training mode, by their number."""
        return {i for i, part in enumerate(self.parts) if part.training}

    @contextmanager
    def played(self, params: Parameters, training: set[int]) -> Iterator[None]:
        """Within: with these parameters and these parts in training mode. After: as before."""
        others = [part for i, part in enumerate(self.parts) if part.training != (i in training)]
        before = [(table, key, table[key]) for table, key, name in self.places if name in params]
        try:
            for part in others:
                part.training = not part.training
            for table, key, name in self.places:
                if name in params:
                    table[key] = params[name]  # type: ignore[assignment]  # as `functional_call` does it
            yield
        finally:
            for table, key, own in before:
                table[key] = own
            for part in others:
                part.training = not part.training
