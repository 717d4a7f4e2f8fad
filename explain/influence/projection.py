"""Random projections whose matrix is not stored, but where it is small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

MEMORY = 2**25  # bytes of signs at once


@dataclass(frozen=True)
class Projection:
    """``P [p, k]`` of random signs over ``sqrt(k)``: dot products survive on average (Johnson and Lindenstrauss 1984).

    Made block by block from its seed each time, the same on every device; the last ones of up to 32 MiB are kept in
    memory. With ``k`` at least ``p`` it is the identity.

    >>> P = Projection(size=5000, dimensions=2000, seed=0)
    >>> x = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> P.down(x).shape, P.up(P.down(x)[0]).shape
    (torch.Size([3, 2000]), torch.Size([5000]))
    >>> bool((P.down(x).norm(dim=1) / x.norm(dim=1) - 1).abs().max() < 0.05)
    True
    """

    size: int
    dimensions: int
    seed: int

    @property
    def identity(self) -> bool:
        """Whether nothing is projected."""
        return self.dimensions >= self.size

    def down(self, rows: Tensor) -> Tensor:
        """``rows P``: ``[m, p] -> [m, k]``."""
        if self.identity:
            return rows
        found = rows.new_zeros(len(rows), self.dimensions)
        start = 0
        for block in self._blocks(rows):
            found += rows[:, start : start + len(block)] @ block
            start += len(block)
        return found

    def up(self, columns: Tensor) -> Tensor:
        """``P columns``: ``[k] -> [p]`` or ``[k, c] -> [p, c]``."""
        return columns if self.identity else torch.cat([block @ columns for block in self._blocks(columns)])

    def _blocks(self, like: Tensor) -> Iterator[Tensor]:
        """Rows of ``P``, in order."""
        if like.element_size() * self.size * self.dimensions <= MEMORY:
            yield _whole(self, like.dtype, like.device)
        else:
            yield from self._made(like.dtype, like.device)

    def _made(self, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor]:
        height = max(1, MEMORY // (8 * self.dimensions))
        for i, start in enumerate(range(0, self.size, height)):
            generator = torch.Generator().manual_seed(self.seed + i)
            shape = min(height, self.size - start), self.dimensions
            signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
            yield (2 * signs - 1).to(device, dtype) / self.dimensions**0.5


@lru_cache(maxsize=2)
def _whole(projection: Projection, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.cat(list(projection._made(dtype, device)))
