"""The number: what a trained network says about an example, and about edited copies of it, with any parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.outputs import Meaning
from explain.payoffs import Payoff
from explain.supervised.border import Batching
from explain.supervised.trained import TrainedNetwork
from explain.types import Parameters


@dataclass(frozen=True, eq=False, repr=False)
class ExampleNumber:
    """``f(x)``: one number an example, read from the network's outputs.

    Args:
        model: whose number it is.
        x: the example that is asked about, ``[features]`` or ``[C, H, W]``.
        label: the class, or a regressor's output; None where there is but one.
        payoff: what was asked of the outputs.
        read: the same as a function, ``[rows, outputs] -> [rows]``.
        meaning: what the model's outputs are.
        batching: how many rows one call of the model may take.
    """

    model: TrainedNetwork
    x: Tensor
    label: int | None
    payoff: Payoff
    read: Callable[[Tensor], Tensor]
    meaning: Meaning
    batching: Batching

    def numbers(self, x: Tensor) -> Tensor:
        """The number for each row of ``x [rows, *shape]``, ``[rows]``, in as many calls as memory asks for."""
        outputs = [self.model.answers(rows) for rows in x.split(self.batching.rows)]
        return self.read(torch.cat(outputs))

    def measured(self, params: Parameters) -> Tensor:
        """The example's number with other parameters, a scalar."""
        return self.read(self.model.answers_with(params, self.x[None]))[0]
