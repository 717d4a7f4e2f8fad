"""Brute force of the rules that differentiate: slopes on the user's own call, and formulas of influence as matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.matrix.case import Smooth, Training

_STEP = 1e-5  # of central differences
_POINTS = 400  # of a path's Riemann sum


def slopes(smooth: Smooth) -> Tensor:
    """``d f / d x_i`` by central differences, in the shape of the inputs."""
    x = smooth.inputs.detach()
    found = torch.zeros(x.numel()).double()
    with torch.no_grad():
        for i in range(x.numel()):
            up, down = x.clone().reshape(-1), x.clone().reshape(-1)
            up[i] += _STEP
            down[i] -= _STEP
            found[i] = (float(smooth.f(up.view_as(x))) - float(smooth.f(down.view_as(x)))) / (2 * _STEP)
    return found.view(x.shape)


def slope_at(smooth: Smooth, x: Tensor) -> Tensor:
    """``d f / d x_i`` at another point, by autograd."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(smooth.f(x), x)[0].detach()


def along_path(smooth: Smooth) -> Tensor:
    """``(x - b) int_0^1 d f / d x (b + a (x - b)) da``, a Riemann sum at midpoints."""
    x, base = smooth.inputs.detach(), smooth.baseline
    points = (torch.arange(_POINTS).double() + 0.5) / _POINTS
    return (x - base) * sum(slope_at(smooth, base + a * (x - base)) for a in points.tolist()) / _POINTS


def owned(credit: Tensor, owner: Tensor, players: int) -> Tensor:
    """Credit of the atoms summed for each player."""
    return torch.stack([credit.double()[owner == i].sum() for i in range(players)])


def gradient(f: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """Of a scalar function."""
    at = theta.detach().clone().requires_grad_()
    with torch.enable_grad():
        found = torch.autograd.grad(f(at), at, allow_unused=True)[0]
    return torch.zeros_like(theta) if found is None else found


def each_gradient(f: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """Of each of the numbers of a function, ``[n, p]``."""
    at = theta.detach().clone().requires_grad_()
    with torch.enable_grad():
        rows = [torch.autograd.grad(one, at, retain_graph=True, allow_unused=True)[0] for one in f(at).unbind()]
    return torch.stack([torch.zeros_like(theta) if row is None else row for row in rows])


def newton_minimum(training: Training, left: int | None = None) -> Tensor:
    """The minimum without an example, ``n`` kept, of a quadratic loss: one step of Newton's."""

    def total(theta: Tensor) -> Tensor:
        losses = training.losses(theta)
        kept = losses.sum() - (0.0 if left is None else losses[left])
        return kept / len(losses) + training.weight_decay / 2 * theta.square().sum()

    start = torch.zeros_like(training.theta)
    H = torch.autograd.functional.hessian(total, start)
    return start - torch.linalg.solve(H, gradient(total, start))
