"""From a solution ``s = A^-1 grad f`` to scores, and from an example to the change of the parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.influence.assembly import separate
from explain.influence.curvature import Curvature, Hessian
from explain.influence.example_gradients import MEMORY, example_gradients
from explain.influence.linear_maps import Columns, Flat, pullback, pushforward, twice_differentiable
from explain.influence.solvers.exact import Exact
from explain.influence.solvers.solution import Solver
from explain.influence.spectrum import extreme_eigenvalues
from explain.types import Objective, Parameters, Questions

FEW = 4  # directions up to which no gradient of a single example is worth making
SHARED = 64  # examples that share their computation, as the nodes of a graph do, up to which each is gone through


def directional(objective: Objective, directions: Tensor) -> Tensor:
    """``grad loss_i . d`` of every training example along each direction, ``[p]`` or ``[p, k] -> [n]`` or ``[n, k]``.

    Along few directions in one pass over the training set, without a gradient of any single example; along many by the
    gradients of single examples, where these do not share their computation.
    """
    if directions.dim() > 1 and directions.size(1) > FEW and separate(objective):
        return along_and_norms(objective, directions)[0]
    return _tangents(objective, directions)


def along_and_norms(objective: Objective, directions: Tensor) -> tuple[Tensor, Tensor | None]:
    """`directional`, and ``|grad loss_i|`` of every training example, float64 ``[n]``.

    No norms where more than 64 examples share one computation, as the nodes of a graph do: it would be done again for
    each.
    """
    apart = separate(objective)
    if not apart and objective.size > SHARED:
        return _tangents(objective, directions), None
    many = directions.dim() > 1 and directions.size(1) > FEW
    found, norms = [], []
    for _, rows in example_gradients(objective):
        norms.append(rows.square().sum(1).sqrt())
        if apart and many:
            found.append(rows @ directions.double())
    along = torch.cat(found) if found else _tangents(objective, directions)
    return along, torch.cat(norms)


def _tangents(objective: Objective, directions: Tensor) -> Tensor:
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    rows = directions.reshape(flat.size, -1).T.to(theta)
    columns, found = Columns(), []
    for batch in objective.batches():
        losses, pull = pullback(_losses(objective, flat, batch), theta)
        found.append(columns(pushforward(pull, losses), rows).double())
    return torch.cat(found, 1).detach().T.reshape(objective.size, *directions.shape[1:])


def example_losses(objective: Objective) -> Tensor:
    """The loss of every training example, float64 ``[n]``."""
    with torch.no_grad():
        return torch.cat([objective.train_loss(objective.params, batch).double() for batch in objective.batches()])


def measured_gradient(objective: Objective) -> tuple[float, Tensor]:
    """The number and its gradient, ``f`` and float64 ``[p]``.

    Detached: a payoff may hold a network of its own, whose parameters would keep every later step in memory.
    """
    flat = Flat(objective.params)
    with torch.enable_grad(), twice_differentiable():
        theta = flat.vector(objective.params).detach().requires_grad_()
        value = objective.measurement(flat.params(theta))
        if not value.requires_grad:
            doubt(
                "the number does not depend on the trained parameters, so that no example matters to it: was it "
                "computed with NumPy, detached, or from frozen parameters alone?"
            )
            return float(value), torch.zeros_like(theta).detach().double()
        (gradient,) = torch.autograd.grad(value, theta, materialize_grads=True)
    return float(value.detach()), gradient.double()


def measured_gradients(params: Parameters, questions: Questions) -> tuple[list[float], Tensor]:
    """`measured_gradient` of many numbers in one pass, ``q`` of them and float64 ``[p, q]``."""
    flat, everyone = Flat(params), torch.arange(questions.total)
    theta = flat.vector(params)

    def outputs(at: Tensor, positions: Tensor) -> Tensor:
        return questions.outputs(flat.params(at), positions.to(at.device))

    def row(position: Tensor, direction: Tensor) -> Tensor:
        return pullback(lambda at: outputs(at, position[None]), theta)[1](direction[None])

    with torch.enable_grad(), twice_differentiable():
        rows = outputs(theta, everyone).detach().requires_grad_()
        values = questions.numbers(rows)
        slopes = torch.autograd.grad(values.sum(), rows)[0] if values.requires_grad else torch.zeros_like(rows)
        if questions.apart:
            columns = Columns(measured=False, chunk=max(1, MEMORY // (8 * flat.size)))
            found = columns(row, everyone.to(theta.device), slopes)
        else:
            pull = pullback(lambda at: outputs(at, everyone), theta)[1]
            found = Columns()(pull, torch.diag_embed(slopes.T).permute(1, 2, 0))
    return values.detach().double().tolist(), found.detach().double().T


def training_gradient(objective: Objective) -> Tensor:
    """``grad J``, penalty included, float64 ``[p]``: zero at a minimum."""
    return loss_and_gradient(objective, Flat(objective.params).vector(objective.params))[1]


def loss_and_gradient(objective: Objective, theta: Tensor) -> tuple[float, Tensor]:
    """``J`` and ``grad J`` at parameters ``[p]``, penalty included, summed in float64."""
    flat = Flat(objective.params)
    at = theta.to(flat.vector(objective.params).dtype)
    value = objective.weight_decay / 2 * float(theta.double() @ theta.double())
    gradient = objective.weight_decay * theta.double()
    for batch in objective.batches():
        losses, pull = pullback(_losses(objective, flat, batch), at)
        value += float(losses.detach().double().sum()) / objective.size
        gradient += pull(torch.ones_like(losses)).detach().double() / objective.size
    return value, gradient


def _losses(objective: Objective, flat: Flat, batch: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda at: objective.train_loss(flat.params(at), batch)


def parameter_change(
    objective: Objective, player: int, A: Curvature | None = None, solver: Solver | None = None, seed: int = 0
) -> Parameters:
    """``theta_without - theta ~= (1/n) A^-1 grad loss_i``: how the parameters move if the example had been left out.

    Args:
        objective: the trained loss.
        player: position of the example in the training set.
        A: its curvature, such as ``GaussNewton(objective, damping)``; the Hessian when None.
        solver: how to invert it; the whole matrix when None.
        seed: of the eigenvalue search and of a solver that samples.

    Raises:
        IndexError: no such example.
        Indefinite: ``A`` is not positive definite.
    """
    if not 0 <= player < objective.size:
        raise IndexError(f"player must be from 0 to {objective.size - 1}, got {player}")
    A = Hessian(objective) if A is None else A
    generator = torch.Generator().manual_seed(seed)
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    batch = torch.tensor([player], device=theta.device)
    loss, pull = pullback(_losses(objective, flat, batch), theta)
    b = pull(torch.ones_like(loss)).double() / objective.size
    found = (solver or Exact()).solve(A, b, extreme_eigenvalues(A, generator), generator)
    return flat.params(found.x)
