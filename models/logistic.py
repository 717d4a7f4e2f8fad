"""Multinomial logistic regression at its minimum, and at the minima without each of some examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.linear import Linear


def hessian(net: Linear, x: Tensor, weight_decay: float) -> Tensor:
    """``(1/n) sum_i (diag(p_i) - p_i p_i^T) kron x_i x_i^T + weight_decay I``, ``[C d, C d]``, for ``x [n, d]``.

    >>> hessian(Linear(1, 2), torch.ones(3, 1).double(), 0.0)
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]], dtype=torch.float64)
    """
    p = net(x).detach().softmax(1)
    classes, features = net.layer.weight.shape
    blocks = torch.empty(classes, features, classes, features, dtype=x.dtype)
    for a in range(classes):
        for b in range(a + 1):
            block = x.T @ ((p[:, a] * (float(a == b) - p[:, b]))[:, None] * x) / len(x)
            blocks[a, :, b], blocks[b, :, a] = block, block
    flat = blocks.reshape(classes * features, -1)
    flat.diagonal().add_(weight_decay)
    return flat


def without_each(
    net: Linear,
    x: Tensor,
    y: Tensor,
    removed: Sequence[int],
    *,
    weight_decay: float,
    slope: float = 1e-10,
    steps: int = 50,
    together: int = 32,
) -> Tensor:
    """Weights ``[len(removed), C, d]`` at the minimum without the loss of one example each; ``n`` is kept fixed.

    Newton's method from the trained weights with the Hessian held fixed, many retrainings in one product of matrices,
    until no slope is above ``slope``.

    Args:
        net: at its minimum, without an intercept.
        x: ``[n, ...]``.
        y: ``[n]``.
        removed: the examples.
        weight_decay: as in ``torch.optim.SGD``.
        slope: where to stop.
        steps: the most of them.
        together: retrainings in one product.

    Raises:
        RuntimeError: no such minimum after so many steps.
    """
    x = x.flatten(1)
    factor = torch.linalg.cholesky(hessian(net, x, weight_decay))
    start = net.layer.weight.detach()
    target = F.one_hot(y, len(start)).to(x)
    found = []
    for some in torch.as_tensor(removed).split(together):
        weights = start.expand(len(some), *start.shape).clone()
        rows = torch.arange(len(some))
        for _ in range(steps):
            logits = (x @ weights.flatten(0, 1).T).view(len(x), *weights.shape[:2])
            slopes = (logits.softmax(2) - target[:, None]) / len(x)
            slopes[some, rows] = 0
            gradient = (slopes.flatten(1).T @ x).view_as(weights) + weight_decay * weights
            if gradient.abs().max() <= slope:
                break
            weights -= torch.cholesky_solve(gradient.flatten(1).T, factor).T.view_as(weights)
        else:
            raise RuntimeError(f"no minimum after {steps} steps: the slope is {float(gradient.abs().max()):.2g}")
        found.append(weights)
    return torch.cat(found)
