"""What is computed in each batch of coalitions: values ``[rows, channels, B]``, coalitions innermost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from explain.graph.games.fast.coefficients import Coefficients
from explain.graph.games.fast.linear_parts import Known

_RELU: tuple[Callable[..., Tensor], ...] = (torch.relu, torch.relu_, F.relu, F.relu_)


@dataclass(eq=False)
class Batch:
    """One batch: ``present [P + 1, B]``, the last row ones; the values computed so far; coefficients by rule."""

    present: Tensor
    values: dict[int, Tensor] = field(default_factory=dict)
    shared: dict[Coefficients, Tensor] = field(default_factory=dict)

    def coefficients(self, of: Coefficients) -> Tensor:
        """``c [E, B]``, once for all layers of the same rule."""
        if of not in self.shared:
            self.shared[of] = of(self.present)
        return self.shared[of]


class Step(Protocol):
    """Computes one value of a batch."""

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""


@dataclass(frozen=True, eq=False)
class Materialise:
    """A known value in each coalition."""

    known: Known

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        made = self.known.values(batch.present)
        return made if made.size(2) == batch.present.size(1) else made.expand(-1, -1, batch.present.size(1))


@dataclass(frozen=True, eq=False)
class Weigh:
    """``x W^T + b``."""

    source: int
    weight: Tensor
    bias: Tensor | None

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        return weighed(batch.values[self.source], self.weight, self.bias)


def weighed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W^T + b`` for ``x [rows, in, B]``."""
    if weight.size(1) == 1:
        return x * weight if bias is None else torch.addcmul(bias[:, None], x, weight)
    made = weight @ x
    return made if bias is None else made.add_(bias[:, None])


@dataclass(frozen=True, eq=False)
class Entry:
    """Where the entries of a layer are: ``which`` of the rule's coefficients (None: all), ``sizes`` a row."""

    of: Coefficients
    which: Tensor | None
    sizes: list[int]

    def __call__(self, batch: Batch) -> Tensor:
        """``c [E, B]`` of this layer."""
        made = batch.coefficients(self.of)
        return made if self.which is None else made.index_select(0, self.which)


@dataclass(frozen=True, eq=False)
class GatherKnown:
    """``sum over u of c_uv x_u`` for known ``x``: a product of two matrices a row.

    ``near``: for each part and each row the values of its sources, ``[channels, entries of the row]``; ``owners``: for
    each part the player of each entry's source, or None.
    """

    entry: Entry
    near: list[list[Tensor]]
    owners: list[Tensor | None]
    channels: int
    weight: Tensor | None
    bias: Tensor | None

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        coefficients, count = self.entry(batch), batch.present.size(1)
        made = batch.present.new_zeros(len(self.entry.sizes), self.channels, count)
        for near, owner in zip(self.near, self.owners, strict=True):
            mine = coefficients
            if owner is not None:
                mine = mine * batch.present.index_select(0, owner)
            mine = mine.expand(-1, count)
            for row, values, part in zip(made.unbind(0), near, mine.split(self.entry.sizes), strict=True):
                if values.size(1):
                    row.addmm_(values, part)
        if self.weight is not None:
            return weighed(made, self.weight, self.bias)
        return made if self.bias is None else made.add_(self.bias[:, None])


@dataclass(frozen=True, eq=False)
class Gather:
    """``(sum over u of c_uv x_u) W^T + b`` for computed ``x``; ``near``: for each row the sources of its entries."""

    source: int
    entry: Entry
    near: list[list[int]]
    weight: Tensor | None
    bias: Tensor | None
    first: bool

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        x = batch.values[self.source]
        if self.first and self.weight is not None:  # weighing first leaves fewer channels to add up
            x = weighed(x, self.weight, None)
        made = x.new_zeros(len(self.near), x.size(1), batch.present.size(1))
        coefficients = iter(self.entry(batch).unbind(0))
        rows = x.unbind(0)
        for row, sources in zip(made.unbind(0), self.near, strict=True):
            for u in sources:
                row.addcmul_(rows[u], next(coefficients))
        if not self.first and self.weight is not None:
            return weighed(made, self.weight, self.bias)
        return made if self.bias is None else made.add_(self.bias[:, None])


@dataclass(frozen=True, eq=False)
class Scale:
    """``x * scale + shift``."""

    source: int
    scale: Tensor | None
    shift: Tensor | None

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        x = batch.values[self.source]
        x = x if self.scale is None else x * self.scale[:, None]
        return x if self.shift is None else x + self.shift[:, None]


@dataclass(frozen=True, eq=False)
class Map:
    """A function of each row."""

    source: int
    function: Callable[[Tensor], Tensor]
    last: bool = False  # nothing else reads the source: it may be written over

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        over = self.last and self.function in _RELU
        return (torch.relu_ if over else self.function)(batch.values[self.source])


@dataclass(frozen=True, eq=False)
class Join:
    """A function of several values."""

    sources: tuple[int, ...]
    function: Callable[[list[Tensor]], Tensor]

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        return self.function([batch.values[i] for i in self.sources])


@dataclass(frozen=True, eq=False)
class Select:
    """Some of the rows."""

    source: int
    rows: Tensor

    def __call__(self, batch: Batch) -> Tensor:
        """``[rows, channels, B]``."""
        return batch.values[self.source].index_select(0, self.rows)


@dataclass(frozen=True, eq=False)
class Total:
    """The sum or the mean over the nodes; ``owner``: absent nodes are not there to be counted."""

    source: int
    mean: bool
    owner: Tensor | None

    def __call__(self, batch: Batch) -> Tensor:
        """``[1, channels, B]``."""
        x = batch.values[self.source]
        if self.owner is None:
            return x.mean(0, keepdim=True) if self.mean else x.sum(0, keepdim=True)
        here = batch.present.index_select(0, self.owner)[:, None, :]
        total = (x * here).sum(0, keepdim=True)
        return total / here.sum(0, keepdim=True).clamp_min(1) if self.mean else total  # the mean over none is 0
