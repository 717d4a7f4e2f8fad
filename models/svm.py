"""The linear support vector machine: the hinge, and the smooth hinge that influence functions can look through."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.svm import LinearSVC
from torch import Tensor

from models.linear import Linear


@dataclass(frozen=True)
class SmoothHinge:
    """``t log(1 + exp((1 - s) / t))`` of the margin ``s = y f(x)``; ``max(0, 1 - s)`` at ``t = 0``.

    A loss ``(outputs [n, 1], labels [n]) -> [n]`` with labels 0 and 1 for ``y = -1`` and ``1`` (Koh and Liang 2017,
    section 4.3).

    Args:
        t: the temperature.

    >>> margins = torch.tensor([[0.0], [2.0]])
    >>> SmoothHinge(0.0)(margins, torch.tensor([1, 1])), SmoothHinge(1.0)(margins, torch.tensor([1, 1]))
    (tensor([1., 0.]), tensor([1.3133, 0.3133]))
    """

    t: float = 0.0

    def __post_init__(self) -> None:
        if not self.t >= 0:
            raise ValueError(f"the temperature must be 0 or more, got {self.t}")

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of each example."""
        return self.of_margin((2 * labels.reshape(-1).to(outputs.dtype) - 1) * outputs[:, 0])

    def of_margin(self, s: Tensor) -> Tensor:
        """The loss at margins ``s``, any shape."""
        return self.t * F.softplus((1 - s) / self.t, threshold=40) if self.t else (1 - s).relu()


def support_vector_machine(
    inputs: Tensor, labels: Tensor, *, weight_decay: float, without: int | None = None, tolerance: float = 1e-8
) -> Linear:
    """The minimum of ``(1/n) sum_i hinge_i + weight_decay/2 |w|^2``, no intercept, float64 (scikit-learn's LinearSVC).

    Args:
        inputs: ``[n, ...]``.
        labels: ``[n]``, 0 and 1.
        weight_decay: ``1 / (n C)``.
        without: an example to leave out, ``n`` kept fixed.
        tolerance: of the dual coordinate descent.
    """
    kept = torch.arange(len(inputs)) != (-1 if without is None else without)
    machine = LinearSVC(
        loss="hinge",
        C=1 / (len(inputs) * weight_decay),
        fit_intercept=False,
        tol=tolerance,
        max_iter=1_000_000,
        random_state=0,
    )
    machine.fit(inputs[kept].flatten(1).double().numpy(), labels[kept].numpy())
    module = Linear(inputs[0].numel())
    module.load_state_dict({"layer.weight": torch.from_numpy(machine.coef_)})
    return module
