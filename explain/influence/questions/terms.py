"""What influence loses without the loss of the training example, or without the curvature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from explain.influence.explainer import Influence
from explain.influence.inverse import asked, checked_engine, finite_question, inverse_of
from explain.influence.linear_maps import Columns, Flat, pullback, pushforward, slope
from explain.types import Objective, Target


@dataclass(frozen=True, eq=False)
class Components:
    """Influence and what is left of it without one of its terms, float64 ``[n]`` each, in the sign of `Influence`.

    Args:
        full: ``-(1/n) grad f^T A^-1 J_i^T r_i``, with ``J_i`` the Jacobian of the outputs and ``r_i`` the derivative of
            the loss in them, large for an example that fits badly.
        without_loss: with ``r_i / max |r_i|`` in place of ``r_i``: every example as if it fitted equally badly.
        without_curvature: with ``A = I``: a dot product of gradients.
        without_both: without either; for a linear model a scaled inner product of the inputs.
    """

    full: Tensor
    without_loss: Tensor
    without_curvature: Tensor
    without_both: Tensor

    def __repr__(self) -> str:
        return f"Components: influence of {len(self.full)} examples, and without the loss, the curvature, and both"


def components(target: Target, engine: Influence | None = None) -> Components:
    """Influence with and without its terms (Koh and Liang 2017, section 2.3 and figure 1), for any model.

    For a logistic regression with ``y = +-1`` and the payoff "loss" these are, up to ``1 / n``, in the sign of a
    removal, ``-y_t y sigma(-y_t theta x_t)`` times ``sigma(-y theta x) x_t^T H^-1 x``; without the loss
    ``x_t^T H^-1 x``; without the curvature ``sigma(-y theta x) x_t^T x``; without both ``x_t^T x``: where all inputs
    are positive, every example of the same class then looks helpful.

    Args:
        target: whose number.
        engine: curvature, damping, solver, training set, seed and progress; an `Influence` of defaults when None.

    Raises:
        NonFinite: NaN or infinity in the number's gradient or the training losses.
        Indefinite: the curvature asked for is not positive definite.

    >>> from torch import nn
    >>> import explain
    >>> mean = nn.Linear(1, 1, bias=False)  # the mean of 0, 1 and 5
    >>> _ = nn.init.constant_(mean.weight, 2.0)
    >>> data = torch.ones(3, 1), torch.tensor([[0.0], [1.0], [5.0]])
    >>> target = explain.wrap(mean, task="regression", train=data).example(torch.ones(1))
    >>> components(target).without_loss  # (y - mean) / n without the size of y - mean
    tensor([-0.1667, -0.1667,  0.1667], dtype=torch.float64)
    """
    engine = Influence() if engine is None else engine
    checked_engine(engine)
    with asked(target, engine) as (objective, generator):
        _, gradient, _ = finite_question(objective)
        s = inverse_of(objective, engine, generator) @ gradient
        found = _along_outputs(objective, torch.stack([s, gradient], 1))
    full, without_loss = (-part.cpu() / objective.size for part in found)
    return Components(full[:, 0], without_loss[:, 0], full[:, 1], without_loss[:, 1])


def _along_outputs(objective: Objective, directions: Tensor) -> tuple[Tensor, Tensor]:
    """``r_i^T J_i d`` for each direction ``[p, k]``, and the same with ``r_i / max |r_i|``, float64 ``[n, k]`` each."""
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    columns, with_loss, without_loss = Columns(), [], []
    for batch in objective.batches():
        outputs, pull = pullback(partial(_outputs, objective, flat, batch), theta)
        moves = columns(pushforward(pull, outputs), directions.T.to(theta)).double()  # [k, examples, outputs]
        r = slope(partial(_total_loss, objective, batch))(outputs.detach()).double()
        largest = r.flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float64).tiny)
        found = (moves * r).flatten(2).sum(2).T.detach()
        with_loss.append(found)
        without_loss.append(found / largest[:, None])
    return torch.cat(with_loss), torch.cat(without_loss)


def _outputs(objective: Objective, flat: Flat, batch: Tensor, theta: Tensor) -> Tensor:
    return objective.outputs(flat.params(theta), batch)


def _total_loss(objective: Objective, batch: Tensor, outputs: Tensor) -> Tensor:
    return objective.loss(outputs, batch).sum()
