"""Training to the very minimum of a stated loss: what influence functions ask for."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from explain.training import example_loss
from models import checkpoints

Loss = Callable[[Tensor, Tensor], Tensor]
Net = TypeVar("Net", bound=nn.Module)


def fit(
    module: Net,
    inputs: Tensor,
    labels: Tensor,
    *,
    weight_decay: float,
    loss: Loss = example_loss,
    weights: Tensor | None = None,
    slope: float = 1e-8,
    iterations: int = 5000,
) -> Net:
    """L-BFGS in place, until no slope of ``J = (1/n) sum_i weights_i loss_i + weight_decay/2 |theta|^2`` is above.

    Args:
        module: of outputs, in float64.
        inputs: ``[n, ...]``.
        labels: ``[n]``.
        weight_decay: as in ``torch.optim.SGD``.
        loss: ``(outputs, labels) -> [examples]``.
        weights: ``[n]``, 1 each when None; 0 leaves an example out, ``n`` kept fixed.
        slope: where to stop.
        iterations: the most of them.

    Raises:
        RuntimeError: no such minimum after so many iterations.

    >>> net = nn.Linear(1, 1, bias=False).double()                 # minimises (w - 3)^2 + w^2 / 2
    >>> fit(net, torch.ones(1, 1).double(), torch.tensor([3.0]).double(), weight_decay=1.0).weight.item()
    2.0
    """
    params = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(
        params,
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=slope,
        tolerance_change=0,
        history_size=30,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = loss(module(inputs), labels)
        total = (losses if weights is None else losses * weights).sum() / len(inputs)
        value = total + weight_decay / 2 * sum(p.square().sum() for p in params)
        value.backward()
        return value

    optimizer.step(closure)
    left = max(float(p.grad.abs().max()) for p in params if p.grad is not None)
    optimizer.zero_grad()
    if not left <= slope:
        raise RuntimeError(f"no minimum after {iterations} iterations: the slope is {left:.2g}, asked for {slope:.2g}")
    return module


def fit_without(module: Net, example: int, inputs: Tensor, labels: Tensor, **options: Any) -> Net:
    """A copy of the trained module, trained on without the loss of one example; ``n`` is kept fixed. As `fit`."""
    weights = torch.ones(len(inputs), dtype=inputs.dtype)
    weights[example] = 0
    return fit(copy.deepcopy(module), inputs, labels, weights=weights, **options)


def fitted(
    module: Net,
    inputs: Tensor,
    labels: Tensor,
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    loss: Loss = example_loss,
    **options: Any,
) -> Net:
    """`fit`, or the same minimum from the cache (`models.checkpoints.kept`).

    Args:
        module: at its first weights.
        inputs: ``[n, ...]``.
        labels: ``[n]``.
        folder: the cache.
        fresh: trains in any case.
        loss: a function or a frozen dataclass, whose settings count too.
        options: of `fit`, plain values.
    """
    start = {name: value.clone() for name, value in module.state_dict().items()}
    config = checkpoints.origin(
        repr(module),
        code=[sys.modules[__name__], sys.modules[type(module).__module__]],
        data=[inputs, labels, *start.values()],
        loss=getattr(loss, "__qualname__", repr(loss)),
        options=options,
    )

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        return fit(module, inputs, labels, loss=loss, **options).state_dict(), {}

    module.load_state_dict(checkpoints.kept(type(module).__name__, config, make, folder=folder, fresh=fresh).state)
    return module
