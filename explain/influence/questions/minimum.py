"""The minimum of a convex training loss, from where it stands: what removing or changing an example really does."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from explain.influence.curvature import Hessian
from explain.influence.linear_maps import Flat
from explain.influence.scores import loss_and_gradient
from explain.influence.solvers.cg import ConjugateGradient
from explain.influence.spectrum import Indefinite, Unsettled, extreme_eigenvalues
from explain.types import LabelledObjective, Objective, Parameters

CLOSE = 1e-3  # a gradient below this, relative to the loss, is that of a start close to the minimum


def refit(objective: Objective, tolerance: float | None = None, max_iterations: int = 2000) -> Parameters:
    """``argmin_theta J(theta)`` by L-BFGS (Liu and Nocedal 1989) and Newton steps, started from ``objective.params``.

    Where it starts close to the minimum, as after a small change of the training set, Newton steps alone will do.

    Args:
        objective: of a convex loss, such as that of a last layer, or of a network near a minimum.
        tolerance: stops once ``|grad J| <= tolerance``; as far as the model's own precision goes when None.
        max_iterations: the most steps.

    Raises:
        Unsettled: the gradient did not vanish.

    >>> from explain.training import TrainingObjective
    >>> from explain.types import Players
    >>> data = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> start = {"mean": torch.zeros(1, dtype=torch.float64)}
    >>> objective = TrainingObjective(start, Players("train", torch.arange(2)),
    ...                               lambda p, at: p["mean"].expand(len(at), 1), data, lambda p: p["mean"].sum())
    >>> refit(objective)["mean"]
    tensor([2.], dtype=torch.float64)
    """
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    limit = tolerance or torch.finfo(theta.dtype).eps ** 0.6
    value, gradient = loss_and_gradient(objective, theta)
    if gradient.norm() < CLOSE * max(1.0, abs(value)):
        theta, gradient = _finished(objective, flat, theta, gradient, tolerance)
        if gradient.norm() <= limit:
            return flat.params(theta)

    def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss_and_gradient(objective, torch.from_numpy(vector).to(theta))
        return value, gradient.cpu().numpy()

    options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "gtol": limit / 10, "ftol": 0, "maxcor": 20}
    found = minimize(loss, theta.double().cpu().numpy(), jac=True, method="L-BFGS-B", options=options)
    jacobian = torch.from_numpy(found.jac).to(gradient)
    x, gradient = _finished(objective, flat, torch.from_numpy(found.x).to(theta), jacobian, tolerance)
    left = float(gradient.norm())
    if not left <= limit * max(1.0, abs(found.fun)):
        raise Unsettled(
            f"training again did not reach a minimum: the gradient is {left:.2g} after {found.nit} steps, above "
            f"{limit:.2g}. Use more max_iterations, a higher tolerance, double precision or a convex loss"
        )
    return flat.params(x)


def _finished(
    objective: Objective, flat: Flat, theta: Tensor, gradient: Tensor, tolerance: float | None, most: int = 5
) -> tuple[Tensor, Tensor]:
    """A few Newton steps, as long as the gradient falls; a line search that compares losses stops before."""
    generator = torch.Generator().manual_seed(0)
    limit = tolerance or max(1e-12, 10 * torch.finfo(theta.dtype).eps)
    for _ in range(most):
        if gradient.norm() <= limit or not isinstance(objective, LabelledObjective):
            break
        A = Hessian(objective.at(flat.params(theta)))
        try:
            spectrum = extreme_eigenvalues(A, generator)
            solution = ConjugateGradient(tolerance=1e-3).solve(A, gradient.to(theta.device), spectrum, generator)
        except Indefinite:
            break
        moved = theta - solution.x.to(theta)
        new = loss_and_gradient(objective, moved)[1]
        if not new.norm() < gradient.norm():
            break
        theta, gradient = moved, new
    return theta, gradient
