"""Projected gradients of training examples: made again for each pass, or kept on disk shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from explain.influence.checkpoints import At
from explain.influence.example_gradients import example_gradients
from explain.influence.projection import Projection
from explain.influence.scores import directional, example_losses
from explain.influence.shards import Part, Shards
from explain.parallel import Store, run
from explain.parallel.store import Tensors
from explain.parallel.tasks import stream

BLOCK = 2**25  # bytes of gradients at once, of those that are kept: they stay in the processor's own memory for longer


@dataclass(frozen=True, eq=False)
class Features:
    """``phi_i = P^T grad F_i``, of which no more than a batch is held, made again for each pass.

    Args:
        own: the objective with its own loss.
        featured: the same with ``F_i`` in the place of its loss.
        projection: ``P``.
    """

    own: At
    featured: At
    projection: Projection

    def gram(self) -> Tensor:
        """``(1/n) sum_i phi_i phi_i^T``, float64 ``[dimensions, dimensions]``."""
        blocks = (self.projection.down(rows) for _, rows in example_gradients(self.featured))
        return gram(blocks) / self.own.size

    def along(self, columns: Tensor) -> Tensor:
        """``phi_i^T c`` for each of ``columns [dimensions, k]``, float64 ``[n, k]``."""
        return directional(self.featured, self.projection.up(columns))

    def losses(self) -> Tensor:
        """The loss of each example, float64 ``[n]``."""
        return example_losses(self.own)


@dataclass(frozen=True, eq=False)
class KeptFeatures(Features):
    """The same, made once and kept in the model's precision, so that any number may be asked of them later.

    Shards are files that are read where they lie: pages of them are in memory while they are used. ``gram()`` is summed
    in the order of the shards, whoever made them and when, and kept beside them.
    """

    shards: Shards
    store: Store[Tensors]
    grams: Store[Tensors]
    progress: bool = True

    def gram(self) -> Tensor:
        """As above."""

        def whole(_: int) -> Tensors:
            return {"gram": gram(self._rows(part).double() for part in self.parts)}

        return run(whole, [0], store=self.grams, progress=False)[0]["gram"].to(self._device) / self.own.size

    def along(self, columns: Tensor) -> Tensor:
        """As above, in single precision where the features are."""
        return torch.cat([rows @ columns.to(rows) for rows in map(self._rows, self.parts)]).double()

    def losses(self) -> Tensor:
        """As above."""
        return torch.cat([part["losses"] for part in self.parts]).to(self._device)

    @cached_property
    def parts(self) -> list[Tensors]:
        """Every shard, in order: made where it is not there, proved against its checksum, then mapped."""
        size = self.shards.size
        starts = range(0, self.own.size, size)
        made = stream(
            Projected(self.own, self.featured, self.projection, size),
            starts,
            store=self.store,
            client=self.shards.client,
            progress=self.progress,
            description="shards of features",
        )
        for _ in made:
            pass
        return [self.store.mapped(number) for number in range(len(starts))]

    @property
    def _device(self) -> torch.device:
        return next(iter(self.own.params.values())).device

    def _rows(self, part: Tensors) -> Tensor:
        return part["features"].to(self._device, computed(part["features"].dtype))


@dataclass(frozen=True, eq=False)
class Projected:
    """The task of one shard: ``{"features": [m, dimensions], "losses": [m]}`` of the examples from ``start`` on."""

    own: At
    featured: At
    projection: Projection
    size: int

    def __call__(self, start: int) -> Tensors:
        """One shard's."""
        stop = min(start + self.size, self.own.size)
        dtype = next(iter(self.own.params.values())).dtype
        step = max(1, BLOCK // (8 * self.projection.size))
        parts = (Part(self.featured, at, min(at + step, stop)) for at in range(start, stop, step))
        blocks = (rows for part in parts for _, rows in example_gradients(part))
        rows = [self.projection.down(block.to(computed(dtype))).to(dtype) for block in blocks]
        return {"features": torch.cat(rows).cpu(), "losses": example_losses(Part(self.own, start, stop)).cpu()}


def computed(dtype: torch.dtype) -> torch.dtype:
    """What numbers kept in ``dtype`` are multiplied in: the same, but of half precision in single."""
    return torch.promote_types(dtype, torch.float32)


def gram(blocks: Iterator[Tensor]) -> Tensor:
    """``sum X^T X`` over blocks ``X [m, k]``."""
    total: Tensor | None = None
    for rows in blocks:
        total = rows.T @ rows if total is None else total.addmm_(rows.T, rows)
    assert total is not None  # no training set is empty
    return total
