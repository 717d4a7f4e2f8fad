"""Predicted and actual leave-one-out changes of a logistic regression, by an exact solver and by LiSSA (Fig. 2)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

import explain
from explain import Influence
from explain.influence import ConjugateGradient, Lissa
from models.koh_liang.data import Split, worst
from models.koh_liang.rows import Row
from models.linear import Linear
from models.logistic import without_each
from models.optimum import fitted

WEIGHT_DECAY = 0.01


def pearson(x: Tensor, y: Tensor) -> float:
    """Pearson's r."""
    return float(torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1])


@dataclass(frozen=True)
class Stochastic:
    """Influence by LiSSA next to the exact one.

    Args:
        why: LiSSA's answer.
        r: Pearson's r with the exact influence of all training examples.
        distance: their relative L2 distance.
        top: how many of the exact ten strongest are among its ten strongest.
    """

    why: explain.Explanation
    r: float
    distance: float
    top: int


@dataclass(frozen=True)
class LeaveOneOut:
    """The loss of a wrongly classified test digit, without each of the training digits of most influence.

    Args:
        why: influence of all training digits, by conjugate gradients to the end.
        removed: the digits really left out.
        predicted: how much the loss falls without each of them, ``[removed]``.
        actual: the same after training again.
        stochastic: LiSSA with the settings of each name.
    """

    why: explain.Explanation
    removed: Tensor
    predicted: Tensor
    actual: Tensor
    stochastic: dict[str, Stochastic] = field(default_factory=dict)

    @property
    def r(self) -> float:
        """Pearson's r of predicted and actual."""
        return pearson(self.predicted, self.actual)

    @property
    def slope(self) -> float:
        """Actual over predicted, by least squares: a first-order estimate understates large effects."""
        return float((self.predicted * self.actual).sum() / self.predicted.square().sum())

    def rows(self) -> list[Row]:
        """K3 and K4."""
        n, p = self.why.checks["examples"], self.why.checks["parameters"]
        best, paper = self.stochastic["ours"], self.stochastic["ten repeats"]
        noisy = self.stochastic["one repeat"]
        return [
            Row(
                "K3",
                "Fig. 2 left: logistic regression, 10 classes",
                "500 points on the diagonal (n 55,000, p 7,840)",
                f"r {self.r:.4f}, slope {self.slope:.2f}, {len(self.removed)} points (n {n:,}, p {p:,})",
                "fewer images, so that each moves the model more and the first order understates it",
                self.r >= 0.98,
            ),
            Row(
                "K4",
                "Fig. 2 middle: LiSSA",
                "r = 10, t = 5,000 near the diagonal; r = 1 noisy, and still finds the same top points",
                f"r {best.r:.5f}, L2 distance {best.distance:.2%}; single examples, r t = n: ten repeats r "
                f"{paper.r:.3f}, one repeat r {noisy.r:.3f} and {noisy.top} of the top 10",
                "cycles on the measured residual; the paper's recursion has t = n / r steps, here too few for r = 10",
                best.r >= 0.999 and best.distance <= 0.02 and noisy.r >= 0.95,
            ),
        ]


def leave_one_out(split: Split, count: int = 500) -> LeaveOneOut:
    """Ten classes without an intercept; the test digit of the largest loss, and the ``count`` of most influence."""
    net = fitted(Linear(split.x[0].numel(), 10), split.x, split.y, weight_decay=WEIGHT_DECAY)
    losses = F.cross_entropy(net(split.test_x).detach(), split.test_y, reduction="none")
    asked = worst(losses)
    model = explain.wrap(net, train=(split.x, split.y), task="classification", weight_decay=WEIGHT_DECAY)
    target = model.example(split.test_x[asked], label=int(split.test_y[asked]), payoff="loss")
    why = Influence(solver=ConjugateGradient(tolerance=1e-8), seed=0).explain(target)
    removed = why.scores.abs().topk(count).indices
    weights = without_each(net, split.x, split.y, removed.tolist(), weight_decay=WEIGHT_DECAY)
    after = F.cross_entropy(
        weights @ split.test_x[asked].flatten(), split.test_y[asked].expand(count), reduction="none"
    )
    return LeaveOneOut(why, removed, why.scores[removed], losses[asked] - after, _stochastic(target, why))


def _stochastic(target: explain.Target, exact: explain.Explanation) -> dict[str, Stochastic]:
    """LiSSA as it is, and as the paper has it: single examples, and as many products as there are examples."""
    n = exact.checks["examples"]
    settings = {
        "ours": Lissa(),
        "ten repeats": Lissa(depth=n // 10, repeats=10, batch_size=1, momentum=False),
        "one repeat": Lissa(depth=n, repeats=1, batch_size=1, momentum=False),
    }
    found = {}
    for name, solver in settings.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the inverse is loose")  # its residual is among the checks
            why = Influence(solver=solver, seed=0).explain(target)
        shared = set(why.scores.abs().topk(10).indices.tolist()) & set(exact.scores.abs().topk(10).indices.tolist())
        distance = float((why.scores - exact.scores).norm() / exact.scores.norm())
        found[name] = Stochastic(why, pearson(why.scores, exact.scores), distance, len(shared))
    return found
