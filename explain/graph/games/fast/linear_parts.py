"""Values that are linear in who is present: carried through linear layers once, for all coalitions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """One summand, before the presence of players is multiplied in.

    ``owner`` None: ``value [rows, channels]`` is always there. By "rows" or "columns": row ``i`` (column ``j``) of it
    counts where player ``owner[i]`` is present. By "players": ``value [rows, channels, P + 1]``, one slice a player.
    """

    value: Tensor
    by: str | None = None
    owner: Tensor | None = None

    def at(self, rows: Tensor) -> Part:
        """Some of the rows."""
        owner = self.owner[rows] if self.by == "rows" and self.owner is not None else self.owner
        return replace(self, value=self.value[rows], owner=owner)

    def linear(self, weight: Tensor, players: int) -> Part:
        """``x W^T``."""
        if self.by != "columns" or self.owner is None:
            if self.by == "players":
                return replace(self, value=torch.einsum("rcp,oc->rop", self.value, weight))
            return replace(self, value=self.value @ weight.t())
        made = self.value.new_zeros(len(self.value), len(weight), players + 1)
        columns = self.value[:, None, :] * weight[None]  # [rows, out, in]
        return Part(made.index_add_(2, self.owner, columns), "players")

    def scaled(self, scale: Tensor) -> Part:
        """Each channel times a number."""
        return replace(self, value=self.value * (scale[:, None] if self.by == "players" else scale))

    def mixed(self, matrix: Tensor) -> Part:
        """Rows mixed by a matrix ``[out, rows]`` that no coalition changes; not for parts owned by rows."""
        flat = matrix @ self.value.reshape(len(self.value), -1)
        return replace(self, value=flat.view(len(matrix), *self.value.shape[1:]))

    def values(self, present: Tensor) -> Tensor:
        """``[rows, channels, B]``, or ``[rows, channels, 1]`` where no player matters."""
        if self.by == "players":
            rows, channels, players = self.value.shape
            return (self.value.view(-1, players) @ present).view(rows, channels, -1)
        value = self.value[:, :, None]
        if self.owner is None:
            return value
        here = present.index_select(0, self.owner)
        return value * (here[:, None, :] if self.by == "rows" else here[None])


@dataclass(frozen=True, eq=False)
class Known:
    """A sum of `Part`."""

    parts: tuple[Part, ...]

    @property
    def constant(self) -> Tensor | None:
        """The value where no player matters to it."""
        if any(part.by is not None for part in self.parts):
            return None
        return sum((part.value for part in self.parts[1:]), self.parts[0].value)

    def at(self, rows: Tensor) -> Known:
        """Some of the rows."""
        return Known(tuple(part.at(rows) for part in self.parts))

    def linear(self, weight: Tensor, bias: Tensor | None, players: int) -> Known:
        """``x W^T + b``."""
        made = Known(tuple(part.linear(weight, players) for part in self.parts))
        return made if bias is None else made.shifted(bias)

    def scaled(self, scale: Tensor) -> Known:
        """Each channel times a number."""
        return Known(tuple(part.scaled(scale) for part in self.parts))

    def shifted(self, shift: Tensor) -> Known:
        """Each channel plus a number."""
        first = self.parts[0].value
        rows = first.new_zeros(first.shape[:2])
        return Known((*self.parts, Part(rows + shift))).joined()

    def plus(self, other: Known) -> Known:
        """The sum of two values."""
        return Known(self.parts + other.parts).joined()

    def joined(self) -> Known:
        """Constant parts as one."""
        fixed = [part.value for part in self.parts if part.by is None]
        if len(fixed) < 2:
            return self
        total = Part(torch.stack(fixed).sum(0))
        return Known((*(part for part in self.parts if part.by is not None), total))

    def values(self, present: Tensor) -> Tensor:
        """``[rows, channels, B]``, or with 1 for ``B`` where no player matters."""
        made = self.parts[0].values(present)
        for part in self.parts[1:]:
            made = made + part.values(present)
        return made
