"""Projected gradients of training examples: made again for each pass, or kept on disk shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.influence.checkpoints import At
from explain.influence.example_gradients import example_gradients
from explain.influence.projection import Projection
from explain.influence.scores import directional, example_losses
from explain.influence.shards import Part, Shards
from explain.parallel import Store
from explain.parallel.store import Tensors
from explain.parallel.tasks import stream


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
    """The same, made once and kept in the model's precision, so that any number may be asked of them later."""

    shards: Shards
    store: Store[Tensors]
    progress: bool = True

    def gram(self) -> Tensor:
        """As above."""
        return gram(self._rows(part) for _, part in self._parts()) / self.own.size

    def along(self, columns: Tensor) -> Tensor:
        """As above."""
        found = {number: self._rows(part) @ columns for number, part in self._parts()}
        return torch.cat([found[number] for number in sorted(found)])

    def losses(self) -> Tensor:
        """As above."""
        found = {number: part["losses"] for number, part in self._parts()}
        return torch.cat([found[number] for number in sorted(found)]).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.own.params.values())).device

    def _rows(self, part: Tensors) -> Tensor:
        return part["features"].to(self._device).double()

    def _parts(self) -> Iterator[tuple[int, Tensors]]:
        """Shard by shard, each read from disk, or made where it is not there."""
        size = self.shards.size
        return stream(
            Projected(self.own, self.featured, self.projection, size),
            range(0, self.own.size, size),
            store=self.store,
            client=self.shards.client,
            progress=self.progress,
            description="shards of features",
        )


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
        like = next(iter(self.own.params.values()))
        blocks = (rows for _, rows in example_gradients(Part(self.featured, start, stop)))
        rows = [self.projection.down(block).to(like.dtype) for block in blocks]
        return {"features": torch.cat(rows).cpu(), "losses": example_losses(Part(self.own, start, stop)).cpu()}


def gram(blocks: Iterator[Tensor]) -> Tensor:
    """``sum X^T X`` over blocks ``X [m, k]``."""
    total: Tensor | None = None
    for rows in blocks:
        total = rows.T @ rows if total is None else total.addmm_(rows.T, rows)
    assert total is not None  # no training set is empty
    return total
