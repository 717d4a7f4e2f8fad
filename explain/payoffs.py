"""The number: from a model's outputs ``[rows, outputs]`` to one number a row."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Payoff: TypeAlias = Literal["logit", "probability", "log_probability", "loss"] | Callable[[Tensor], Tensor]
NAMES = ("logit", "probability", "log_probability", "loss")


def payoff_function(payoff: Payoff, label: int | None) -> Callable[[Tensor], Tensor]:
    """``[rows, outputs] -> [rows]``: the class's logit, probability, log-probability or cross-entropy loss.

    One output a row is a binary classifier's logit ``z``: class 1 reads it as ``z``, class 0 as ``-z``. ``label=None``
    is a regressor: "logit" is then its only output.

    >>> payoff_function("probability", 1)(torch.zeros(1, 4))
    tensor([0.2500])

    Raises:
        ValueError: an unknown payoff, or a callable that does not give one number a row.
    """
    if callable(payoff):
        return _checked(payoff)
    if payoff not in NAMES:
        raise ValueError(f"payoff must be one of {', '.join(NAMES)} or a callable, got {payoff!r}")
    if label is None:
        if payoff != "logit":
            raise ValueError(
                f"payoff={payoff!r} needs classes; a regression target has 'logit' (its output) or a callable"
            )
        return lambda outputs: outputs.reshape(len(outputs), -1).sum(1)

    def number(outputs: Tensor) -> Tensor:
        logits = outputs
        if outputs.size(1) == 1:
            logits = torch.cat([torch.zeros_like(outputs), outputs], 1)
            if payoff == "logit":
                return logits[:, 1] if label == 1 else -logits[:, 1]
        if payoff == "logit":
            return logits[:, label]
        log_probability = logits.log_softmax(1)[:, label]
        return {"probability": log_probability.exp(), "log_probability": log_probability, "loss": -log_probability}[
            payoff
        ]

    return number


def predicted(outputs: Tensor) -> int:
    """The class predicted for one row ``[outputs]``: the largest, or the sign of a single logit."""
    return int(outputs.argmax()) if outputs.numel() > 1 else int(outputs.item() > 0)


def checked_label(label: int | None, outputs: Tensor) -> int:
    """``label`` if it is a class of this row, the predicted class when it is None.

    Raises:
        ValueError: no such class.
    """
    classes = max(outputs.numel(), 2)
    if label is None:
        return predicted(outputs)
    found = whole_number(label)
    if found is None or not 0 <= found < classes:
        raise ValueError(f"label must be a class from 0 to {classes - 1}, got {label!r}")
    return found


def whole_number(given: Any) -> int | None:
    """An int, also out of NumPy or a torch scalar; None for anything else, True and 1.0 included.

    >>> whole_number(torch.tensor(3)), whole_number(1.0), whole_number(True)
    (3, None, None)
    """
    if isinstance(given, (bool, np.bool_)) or (isinstance(given, Tensor) and given.dtype == torch.bool):
        return None
    try:
        return operator.index(given)
    except TypeError:
        return None


def shuffled(module: nn.Module, generator: torch.Generator) -> None:
    """Shuffle the entries of each parameter in place: the same values, and nothing that was learned.

    Raises:
        ValueError: there is nothing to shuffle.
    """
    parameters = [p for p in module.parameters() if p.numel() > 1]
    if not parameters:
        raise ValueError("the model has no parameters to randomise")
    with torch.no_grad():
        for p in parameters:
            order = torch.randperm(p.numel(), generator=generator).to(p.device)
            p.copy_(p.detach().reshape(-1)[order].reshape(p.shape))


def _checked(payoff: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def number(outputs: Tensor) -> Tensor:
        values = payoff(outputs)
        if not isinstance(values, Tensor) or values.shape != outputs.shape[:1]:
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"payoff must give one number a row, [{len(outputs)}], got {got}")
        return values

    return number
