"""The gradient of every single training loss, in pieces that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from explain.influence.linear_maps import Columns, Flat, slope, twice_differentiable
from explain.types import Objective

MEMORY = 2**27  # bytes of gradients at once
_ROUTES: WeakKeyDictionary[Objective, str] = WeakKeyDictionary()


def per_example(objective: Objective) -> dict[str, str]:
    """How `example_gradients` of this objective were taken, for ``checks``: "vmap", or "loop" and why; {} if never."""
    return {"per_example": _ROUTES[objective]} if objective in _ROUTES else {}


def example_gradients(objective: Objective, positions: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions ``[b]`` and ``grad loss_i``, float64 ``[b, p]``, in order; without the penalty.

    Together by ``vmap`` where the model's operations allow it, else one by one.

    >>> from explain.training import TrainingObjective
    >>> from explain.types import Players
    >>> x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    >>> objective = TrainingObjective({"w": torch.zeros(1, 1)}, Players("train", torch.arange(2)),
    ...                               lambda p, at: x[at] @ p["w"], y, lambda p: p["w"].sum())
    >>> torch.cat([rows for _, rows in example_gradients(objective)])  # -2 x y
    tensor([[ 0.],
            [-6.]], dtype=torch.float64)
    """
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)

    def gradient(position: Tensor) -> Tensor:
        return slope(lambda at: objective.train_loss(flat.params(at), position[None])[0])(theta)

    together = next(iter(objective.batches()))  # no more than the objective takes at once, as memory asks for
    everyone = torch.cat(list(objective.batches())) if positions is None else positions
    columns = Columns(measured=False, chunk=None)  # vmap beats a loop for single examples wherever it was tried
    for batch in everyone.to(theta.device).split(max(1, min(len(together), MEMORY // (8 * flat.size)))):
        with twice_differentiable():
            rows = columns(gradient, batch)
        _ROUTES[objective] = f"loop: {columns.obstacle}" if columns.obstacle else "vmap"
        yield batch, rows.detach().double()
