"""Influence where the loss has no second derivative: the hinge, and a smooth hinge in its place (Fig. 3)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

import explain
from explain import Influence
from models.koh_liang.data import Split
from models.koh_liang.leave_one_out import pearson
from models.koh_liang.rows import Row
from models.linear import Linear
from models.svm import SmoothHinge, support_vector_machine

TEMPERATURES = (0.0, 0.001, 0.1)
C = 1 / (13_007 * 0.01)  # the paper's 1 / (n L2): how much one example can count for
RELIABLE = 0.85  # of Pearson's r; below it a prediction is warned about


@dataclass(frozen=True)
class Prediction:
    """The hinge loss of a test image without each of some training images, predicted and actual, ``[removed]``."""

    temperature: float
    why: explain.Explanation
    removed: Tensor
    predicted: Tensor
    actual: Tensor

    @property
    def r(self) -> float:
        """Pearson's r of predicted and actual."""
        return pearson(self.predicted, self.actual)


@dataclass(frozen=True)
class Hinge:
    """`Prediction` at each temperature, 0 for the hinge itself."""

    predictions: dict[float, Prediction]

    def rows(self) -> list[Row]:
        """K7 and K8."""
        plain, sharp, soft = (self.predictions[t] for t in TEMPERATURES)
        why = (
            "fewer images, and the paper's C = 1 / (n L2) in place of its L2: with its L2 the machine has almost "
            "nothing but vectors on the margin, where leaving one out is no small step"
        )
        return [
            Row(
                "K7",
                "Fig. 3b: hinge, H = L2",
                "r 0.63",
                f"r {plain.r:.2f}: not to be relied on",
                why,
                plain.r < RELIABLE,
            ),
            Row(
                "K8",
                "Fig. 3c-d: smooth hinge",
                "r 0.95 at t = 0.001, 0.91 at t = 0.1",
                f"r {sharp.r:.3f} at t = 0.001, {soft.r:.3f} at t = 0.1",
                why,
                sharp.r >= 0.91 and soft.r >= 0.91,
            ),
        ]


def hinge(split: Split, count: int = 100, c: float = C) -> Hinge:
    """The machine's weights are those of the hinge at every temperature; the worst classified test image is asked.

    Warns:
        UserWarning: predictions that do not agree with training again.
    """
    weight_decay = 1 / (c * len(split.x))
    net = support_vector_machine(split.x, split.y, weight_decay=weight_decay)
    asked = int(_hinge(net, split.test_x, split.test_y).argmax())
    x, y = split.test_x[asked : asked + 1], split.test_y[asked : asked + 1]
    answers = {t: _influence(net, split, x, y, t, weight_decay) for t in TEMPERATURES}
    removed = {t: why.scores.abs().topk(count).indices for t, why in answers.items()}
    before = float(_hinge(net, x, y))
    actual = {}
    for i in torch.cat(list(removed.values())).unique().tolist():
        other = support_vector_machine(split.x, split.y, weight_decay=weight_decay, without=i)
        actual[i] = before - float(_hinge(other, x, y))
    found = {}
    for t, why in answers.items():
        changes = torch.tensor([actual[i] for i in removed[t].tolist()])
        found[t] = Prediction(t, why, removed[t], why.scores[removed[t]], changes)
        if found[t].r < RELIABLE:
            warnings.warn(
                f"influence on the hinge loss at temperature {t:g} agrees with training again only to r = "
                f"{found[t].r:.2f}: "
                + ("its curvature is the penalty alone. Use a smooth hinge" if t == 0 else "use another temperature"),
                stacklevel=2,
            )
    return Hinge(found)


def _influence(net: Linear, split: Split, x: Tensor, y: Tensor, t: float, weight_decay: float) -> explain.Explanation:
    loss = SmoothHinge(t)
    model = explain.wrap(net, train=(split.x, split.y), task="classification", loss=loss, weight_decay=weight_decay)

    def number(outputs: Tensor) -> Tensor:
        return loss(outputs, y.expand(len(outputs)))

    with warnings.catch_warnings():  # the weights minimise the hinge, not the smooth hinge: that is the experiment
        warnings.filterwarnings("ignore", message="the model is not at a minimum of its training loss")
        return Influence(solver="exact", seed=0).explain(model.example(x[0], payoff=number))


def _hinge(net: Linear, x: Tensor, y: Tensor) -> Tensor:
    return SmoothHinge(0.0)(net(x).detach(), y)
