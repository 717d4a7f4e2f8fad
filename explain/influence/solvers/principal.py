"""A preconditioner out of the rows of a Gauss-Newton matrix that carry most of it, at the price of a few products."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.influence.assembly import separate
from explain.influence.curvature import Curvature
from explain.influence.leverage import OUTPUTS, loss_derivatives
from explain.influence.linear_maps import Columns, pullback
from explain.influence.scores import MEMORY
from explain.influence.solvers.low_rank import LowRank

ROWS = 600
FEWEST = 64  # rows below which they are not worth it
SMALLEST = 2000  # parameters below which as many products of the whole matrix say more
SHARE = 8  # parameters for each row, so that a row is cheap beside a product


def principal(A: Curvature, rows: int = ROWS) -> LowRank | None:
    """``M = (1/n) sum_r g_r g_r^T + ridge I``, which is never above ``A = (1/n) sum_i J_i^T B_i J_i + ridge I``.

    ``g_r = sqrt(beta_r) J_i^T z_r`` for the largest eigenvalues ``beta_r`` of the ``B_i [outputs, outputs]``, the
    Hessians of the losses in the outputs: of a trained classifier few examples are still in doubt, most of them between
    two classes. A row is the gradient of one example.

    None where ``A`` is not of this form or has no ridge, its examples share their computation, parameters are few, or
    memory is too small.
    """
    rows = min(rows, A.size // SHARE, 2 * MEMORY // (8 * A.size))
    if rows < FEWEST or A.size < SMALLEST or A.batch is not None or not A.objective.convex or A.ridge <= 0:
        return None
    if not (A.gauss_newton and separate(A.objective)):
        return None
    if rows not in A.kept_rows:
        A.kept_rows[rows] = _inside(A, rows)
    inside = A.kept_rows[rows]
    return None if inside is None else LowRank(inside[0], inside[1] + A.ridge, A.ridge, below=True)


def _inside(A: Curvature, rows: int) -> tuple[Tensor, Tensor] | None:
    """Eigenvectors ``[p, r]`` and eigenvalues ``[r]`` of ``(1/n) sum_r g_r g_r^T``."""
    found = _largest(A, rows)
    if found is None:
        return None
    G = _gradients(A, *found) / A.objective.size**0.5
    values, vectors = torch.linalg.eigh(G @ G.T)
    kept = values > 1e-6 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return G.T @ vectors / values.sqrt(), values


def _largest(A: Curvature, rows: int) -> tuple[Tensor, Tensor] | None:
    """Positions ``[rows]`` and directions ``[rows, outputs]`` of the largest ``beta z z^T`` among all examples."""
    objective = A.objective
    values, positions, directions = (torch.zeros(0, device=A.theta.device) for _ in range(3))
    for batch in objective.batches():
        with torch.no_grad():
            outputs = objective.outputs(objective.params, batch)
        if outputs.dim() != 2 or outputs.size(1) > OUTPUTS:
            return None
        beta, z = torch.linalg.eigh(loss_derivatives(objective, batch, outputs.double())[1])
        own = (z * beta.clamp_min(0).sqrt()[:, None]).mT.reshape(-1, outputs.size(1))
        at = batch.repeat_interleave(outputs.size(1))
        if len(values):
            beta, at, own = torch.cat([values, beta.view(-1)]), torch.cat([positions, at]), torch.cat([directions, own])
        values, order = beta.view(-1).topk(min(rows, beta.numel()))
        positions, directions = at[order], own[order]
    return positions, directions


def _gradients(A: Curvature, positions: Tensor, directions: Tensor) -> Tensor:
    """``J_i^T d`` of each, float64 ``[rows, p]``."""

    def gradient(position: Tensor, direction: Tensor) -> Tensor:
        outputs = pullback(lambda at: A.objective.outputs(A.flat.params(at), position[None])[0], A.theta)[1]
        return outputs(direction)

    chunk = max(1, min(256, MEMORY // (8 * A.size)))
    columns = Columns(measured=False, chunk=chunk)
    return columns(gradient, positions, directions.to(A.theta)).detach().double()
