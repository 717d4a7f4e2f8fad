"""The whole curvature where every output has a linear head of its own, without a product for each parameter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vjp, vmap

from explain.influence.leverage import OUTPUTS, loss_derivatives
from explain.influence.linear import Bytes, Flat
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
    total = torch.zeros(flat.size, flat.size, dtype=torch.float64, device=theta.device)
    count = _outputs(objective)
    if not 0 < count <= OUTPUTS:
        return None
    size = max(1, MEMORY // (theta.element_size() * count * flat.size))
    for part in objective.batches():
        for batch in part.split(size):
            J = _jacobians(objective, flat, theta, batch)
            used = [J[:, a].any(0).nonzero().view(-1) for a in range(count)]
            if sum(map(len, used)) > 2 * flat.size:
                return None
            _add(total, J, used, _curvatures(objective, batch).to(J))
    return (total + total.T) / 2


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


def _jacobians(objective: Objective, flat: Flat, theta: Tensor, batch: Tensor) -> Tensor:
    """``[examples, outputs, p]``."""

    def jacobian(position: Tensor) -> Tensor:
        value, pull = vjp(lambda at: objective.outputs(flat.params(at), position[None])[0], theta)[:2]
        return vmap(pull)(torch.eye(len(value), dtype=value.dtype, device=value.device))[0]

    return vmap(jacobian)(batch).detach()


def _curvatures(objective: Objective, batch: Tensor) -> Tensor:
    with torch.no_grad():
        outputs = objective.outputs(objective.params, batch)
    return loss_derivatives(objective, batch, outputs.double())[1]


def _add(total: Tensor, J: Tensor, used: list[Tensor], B: Tensor) -> None:
    columns = [J[:, a][:, own] for a, own in enumerate(used)]
    for a, left in enumerate(columns):
        for b, right in enumerate(columns):
            block = ((left * B[:, a, b, None]).T @ right).double()
            total[used[a][:, None], used[b]] += block
