"""Training to a minimum, to a gradient that is zero to rounding: L-BFGS, then Newton's method with inner CG."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
from scipy.optimize import minimize
from torch import nn
from torch_geometric.data import Data

from models.removal.losses import Array, Layout, Product, TrainedLoss, trained_loss

Metric: TypeAlias = Callable[[Array], Array]

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Training:
    """``J(theta) = (1/n) sum_i cross-entropy_i + weight_decay/2 |theta|^2`` over ``data.train_mask``, ``n`` fixed.

    Args:
        data: float64.
        weight_decay: as in ``torch.optim.SGD``.
        n: number of training nodes before any was taken away.
        slope: the gradient norm to reach.
    """

    data: Data
    weight_decay: float
    n: int
    slope: float = 1e-10

    def to_minimum(self, net: Net, *, first: int = 0, metric: Metric | None = None) -> Net:
        """Train a copy, from where ``net`` is.

        Args:
            net: a network of `models.removal.networks` in float64.
            first: the most iterations of L-BFGS.
            metric: about the inverse of the curvature, which saves products with it, see `metric_of`.

        Raises:
            RuntimeError: no such minimum was found.
        """
        made, loss, layout = copy.deepcopy(net), self.loss(net), Layout.of(net)
        theta = layout.read(net)
        if first:
            options = {"maxiter": first, "maxfun": 2 * first, "maxcor": 30, "gtol": 0, "ftol": 0}
            theta = minimize(lambda t: loss.at(t)[:2], theta, jac=True, method="L-BFGS-B", options=options).x
        layout.write(made, newton_cg(loss, theta, self.slope, metric=metric))
        return made.eval()

    def loss(self, net: nn.Module) -> TrainedLoss:
        """``J``."""
        return trained_loss(net, self.data, self.weight_decay, self.n)

    def gradient_norm(self, net: nn.Module) -> float:
        """``|grad J|``."""
        return float(np.linalg.norm(self.loss(net).at(Layout.of(net).read(net))[1]))

    def on(self, data: Data) -> Training:
        """The same on an edited graph."""
        return replace(self, data=data)


def metric_of(training: Training, net: nn.Module) -> Metric:
    """``v -> |H|^-1 v`` with the Hessian at ``net``, each eigenvalue at least a ten-thousandth of the largest."""
    loss, layout = training.loss(net), Layout.of(net)
    theta = layout.read(net)
    product = loss.at(theta)[2]
    H = np.stack([product(each) for each in np.eye(len(theta))])
    values, vectors = np.linalg.eigh((H + H.T) / 2)
    size = np.abs(values).clip(1e-4 * np.abs(values).max())
    return lambda v: vectors @ ((vectors.T @ v) / size)


def newton_cg(loss: TrainedLoss, theta: Array, slope: float, steps: int = 200, metric: Metric | None = None) -> Array:
    """Steps ``-H^-1 g``, each shortened until ``J`` falls; as far as the curvature is positive (Nocedal and Wright).

    Raises:
        RuntimeError: ``|g|`` is still above ``slope`` after so many steps, or none lowers ``J``.
    """
    value, g, product = loss.at(theta)
    for _ in range(steps):
        size = float(np.linalg.norm(g))
        if size <= slope:
            return theta
        step, length = _truncated(product, g, min(0.1, size**0.5), metric or (lambda v: v)), 1.0
        while length > 1e-8:
            moved = loss.at(theta + length * step)
            lower = moved[0] <= value + 1e-4 * length * float(g @ step)
            if lower or np.linalg.norm(moved[1]) < (1 - 0.5 * length) * size:  # J itself is rounded where g is tiny
                break
            length /= 2
        else:
            break
        theta = theta + length * step
        value, g, product = moved
    raise RuntimeError(f"no minimum: the gradient norm is {np.linalg.norm(g):.2g}, asked for {slope:.2g}")


def _truncated(product: Product, g: Array, tolerance: float, metric: Metric) -> Array:
    """``-H^-1 g`` by conjugate gradients, to this relative residual or the first direction of negative curvature."""
    x, residual = np.zeros_like(g), -g
    direction = metric(residual)
    square = float(residual @ direction)
    goal = tolerance**2 * square
    for _ in range(1000):
        image = product(direction)
        curvature = float(direction @ image)
        if curvature <= 1e-12 * float(direction @ direction):
            return x if x.any() else direction
        x = x + square / curvature * direction
        residual = residual - square / curvature * image
        scaled = metric(residual)
        before, square = square, float(residual @ scaled)
        if square <= goal:
            break
        direction = scaled + square / before * direction
    return x
