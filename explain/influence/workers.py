"""Curvature products on the workers of a cluster: each sums those of some shards, and the sums are added in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from explain.influence.curvature import Curvature, summed_elsewhere
from explain.influence.shards import Part, Shards
from explain.parallel.tasks import Given
from explain.types import Objective

SUMS = 64  # sums that a product is made of, at most: each comes back as one vector for each that it is of
Asked: TypeAlias = tuple[type[Curvature], int, int, Tensor]  # kind, first example, end, rows [k, p]


@dataclass(frozen=True, eq=False)
class Totals:
    """The task of one sum: ``sum_i C_i v`` over the examples from one to another, float64 ``[k, p]``.

    Linearisations are those of one batch at a time and are not kept: a worker's memory is that of a batch.
    """

    objective: Objective
    made: dict[type[Curvature], Curvature] = field(default_factory=dict)  # on each worker its own

    def __call__(self, asked: Asked) -> Tensor:
        """One sum."""
        kind, start, stop, rows = asked
        if kind not in self.made:
            self.made[kind] = kind(self.objective)
        A = self.made[kind]
        return A.total(rows.to(A.theta.device), Part(self.objective, start, stop).batches()).cpu()

    def __getstate__(self) -> dict[str, Any]:
        return {"objective": self.objective, "made": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


@contextmanager
def on_workers(objective: Objective, shards: Shards | None) -> Iterator[None]:
    """Within: products with the curvature of this objective are made on the cluster of the shards, if there is one.

    What is summed by itself hangs on the size of a shard alone, and the sums are added in the order of the examples, so
    that a product does not depend on who made it.

    Raises:
        ClusterLost: the cluster is gone.
        TypeError: the objective cannot be sent there.
    """
    if shards is None or shards.client is None:
        yield
        return
    whole = -(-objective.size // shards.size)
    step = shards.size * -(-whole // SUMS)
    spans = [(start, min(start + step, objective.size)) for start in range(0, objective.size, step)]
    with Given(shards.client, Totals(objective)) as workers:

        def totals(kind: type[Curvature], rows: Tensor) -> Tensor:
            sums = workers.results([(kind, *span, rows.cpu()) for span in spans])
            return torch.stack(sums).sum(0).to(rows)

        with summed_elsewhere(objective, totals):
            yield
