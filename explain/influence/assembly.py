"""The whole curvature where every output has a linear head of its own, without a product for each parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.influence.leverage import OUTPUTS, loss_derivatives
from explain.influence.linear_maps import Bytes, Columns, Flat, pullback
from explain.types import Objective

MEMORY = 2**27  # bytes of Jacobians at once


def assembled(objective: Objective) -> Tensor | None:
    """``sum_i J_i^T B_i J_i``, float64 ``[p, p]``: ``J_i [outputs, p]`` of example i, ``B_i`` its loss in the outputs.

    Block by block, as logistic regression has it: ``X_a^T diag(B_ab) X_b`` for the parameters of outputs ``a`` and
    ``b``. None where outputs share many of their parameters, examples their computation, or outputs are too many.
    """
    if not separate(objective):
        return None
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    count = _outputs(objective)
    if not 0 < count <= OUTPUTS or _heads(objective, flat, theta, next(iter(objective.batches()))[:8], count) is None:
        return None
    total = torch.zeros(flat.size, flat.size, dtype=torch.float64, device=theta.device)
    size = max(1, MEMORY // (2 * theta.element_size() * flat.size))
    for part in objective.batches():
        for batch in part.split(size):
            found = _heads(objective, flat, theta, batch, count)
            if found is None:
                return None
            _add(total, *found, _curvatures(objective, batch).to(theta))
    return total


def separate(objective: Objective) -> bool:
    """Whether the loss of one example costs a fraction of those of eight, in the memory that they take."""
    batch = next(iter(objective.batches()))[:8]
    one, all_of_them = Bytes(), Bytes()
    with torch.no_grad():
        with one:
            objective.train_loss(objective.params, batch[:1])
        with all_of_them:
            objective.train_loss(objective.params, batch)
    return len(batch) == 1 or all_of_them.total > one.total * len(batch) / 2


def _outputs(objective: Objective) -> int:
    with torch.no_grad():
        outputs = objective.outputs(objective.params, next(iter(objective.batches()))[:1])
    return outputs.size(1) if outputs.dim() == 2 else 0


def _heads(objective: Objective, flat: Flat, theta: Tensor, batch: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """Gradients ``[examples, p]`` of the sum of the outputs, and the one output ``[p]`` that each parameter moves.

    None where a parameter moves several: a sum of the outputs with other weights is then not that weight times these.
    """

    def gradient(position: Tensor, weights: Tensor) -> Tensor:
        return pullback(lambda at: objective.outputs(flat.params(at), position[None])[0], theta)[1](weights)

    weights = (1 + 3 * torch.arange(count).to(theta) / count).sqrt()  # of no whole-numbered ratios
    each = Columns(measured=False, chunk=None)
    ones = torch.ones_like(weights)
    rows, mixed = (each(gradient, batch, w.expand(len(batch), -1)).detach() for w in (ones, weights))
    largest, at = rows.abs().max(0)
    ratio = mixed.gather(0, at[None])[0] / rows.gather(0, at[None])[0].where(largest > 0, 1.0)
    owner = (ratio[:, None] - weights).abs().argmin(1)
    off = (mixed - rows * weights[owner]).abs().amax(0)
    rounding = 1e3 * torch.finfo(theta.dtype).eps
    return None if (off > rounding * torch.maximum(largest, mixed.abs().amax(0))).any() else (rows, owner)


def _curvatures(objective: Objective, batch: Tensor) -> Tensor:
    with torch.no_grad():
        outputs = objective.outputs(objective.params, batch)
    return loss_derivatives(objective, batch, outputs.double())[1]


def _add(total: Tensor, rows: Tensor, owner: Tensor, B: Tensor) -> None:
    own = [(owner == a).nonzero().view(-1) for a in range(B.size(1))]
    columns = [rows[:, each] for each in own]
    for a, left in enumerate(columns):
        for b in range(a + 1):
            block = ((left * B[:, a, b, None]).T @ columns[b]).double()
            block = (block + block.T) / 2 if a == b else block
            total[own[a][:, None], own[b]] += block
            if a != b:
                total[own[b][:, None], own[a]] += block.T
