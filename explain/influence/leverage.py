"""How far a single training gradient reaches at most, by the outputs alone."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.influence.linear_maps import Columns, pullback, slope, twice_differentiable
from explain.types import Objective

OUTPUTS = 64  # up to which the Hessian of a loss in its outputs is made


def leverages(objective: Objective) -> Tensor | None:
    """``u_i^T B_i^+ u_i``, float64 ``[n]``: ``u_i``, ``B_i`` the gradient and the Hessian of loss i in its outputs.

    For a curvature ``A = (1/n) sum_i J_i^T B_i J_i + ...`` with every ``B_i`` positive semidefinite, ``grad loss_i =
    J_i^T u_i`` has ``grad loss_i^T A^-1 grad loss_i <= n u_i^T B_i^+ u_i``, without a gradient of any single example:
    ``1 / p - 1`` for the cross entropy of a class of probability ``p``.

    None where there are more than 64 outputs, or a gradient that has a part along which the loss does not curve.
    """
    found = []
    for batch in objective.batches():
        with torch.no_grad():
            outputs = objective.outputs(objective.params, batch)
        if outputs.dim() != 2 or outputs.size(1) > OUTPUTS:
            return None
        one = _of_batch(objective, batch, outputs.double())
        if one is None:
            return None
        found.append(one)
    return torch.cat(found)


def loss_derivatives(objective: Objective, batch: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient ``u [examples, outputs]`` and Hessian ``B [examples, outputs, outputs]`` of each loss in its outputs."""
    with twice_differentiable():
        u, pull = pullback(slope(lambda o: objective.loss(o, batch).sum()), outputs)
        unit = torch.eye(outputs.size(1), dtype=outputs.dtype, device=outputs.device)
        B = Columns(measured=False)(pull, unit[:, None].expand(-1, len(outputs), -1)).permute(1, 0, 2).detach()
    return u.detach(), (B + B.mT) / 2


def _of_batch(objective: Objective, batch: Tensor, outputs: Tensor) -> Tensor | None:
    u, B = loss_derivatives(objective, batch, outputs)
    values, vectors = torch.linalg.eigh(B)
    along = (vectors.mT @ u[..., None])[..., 0].square()
    curved = values > 1e-10 * values[:, -1:].clamp_min(1e-300)
    if (along.where(~curved, 0.0).sum(1) > 1e-6 * along.sum(1)).any() or (values < -1e-10 * values[:, -1:].abs()).any():
        return None
    return (along / values).where(curved, 0.0).sum(1)
