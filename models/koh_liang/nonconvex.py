"""Leave-one-out changes of a convolutional network that is neither convex nor converged (Fig. 2 right, section 4.2)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import explain
from explain import Influence
from explain.influence import ConjugateGradient
from models.all_cnn import load_or_train
from models.koh_liang.data import Split
from models.koh_liang.kernels import enlarged
from models.koh_liang.leave_one_out import pearson
from models.koh_liang.rows import Row
from models.leave_one_out import Retraining, retrained

WEIGHT_DECAY = 1e-3
FULL = Retraining(steps=400)


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Args:
        images: to train on.
        steps: of the first training.
        points: left out, those of most influence.
        retraining: of each of them.
        seeds: retrainings that are averaged, each with other batches.
        hessian: dampings of the Hessian; the first is the one that is judged.
        ggn: dampings of the Gauss-Newton matrix.
    """

    images: int = 500
    steps: int = 3000
    points: int = 40
    retraining: Retraining = FULL
    seeds: int = 2
    hessian: tuple[float, ...] = (0.01, 0.03, 0.1)
    ggn: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class NonConvex:
    """The loss of a wrongly classified test image without each of some training images.

    Args:
        why: influence by the damped Hessian.
        removed: the images left out.
        predicted: by curvature and damping, ``[removed]`` each.
        actual: one retraining a row, ``[seeds, removed]``.
        judged: which of ``predicted`` is the answer.
    """

    why: explain.Explanation
    removed: Tensor
    predicted: dict[tuple[str, float], Tensor]
    actual: Tensor
    judged: tuple[str, float]

    @property
    def r(self) -> dict[tuple[str, float], float]:
        """Pearson's r with the mean retraining, by curvature and damping."""
        return {key: pearson(found, self.actual.mean(0)) for key, found in self.predicted.items()}

    @property
    def repeats_agree(self) -> float:
        """Pearson's r of the first retraining with the second: no prediction can be much better."""
        return pearson(self.actual[0], self.actual[1])

    def rows(self) -> list[Row]:
        """K5 and K6."""
        found, checks = self.r, self.why.checks
        best = max(found, key=lambda key: found[key])
        return [
            Row(
                "K5",
                "Fig. 2 right: convolutional network",
                "r 0.86 (0.875 in the released notebook), damping 0.01, 2,616 parameters",
                f"r {found[self.judged]:.3f} with damping {self.judged[1]:g}, {len(self.removed)} points, "
                f"{len(self.actual)} retrainings each (they agree to r {self.repeats_agree:.2f}); smallest eigenvalue "
                f"of the Hessian {checks['hessian_lambda_min']:.2g}",
                "fewer images and shorter training; each is compared with a retraining on all, on the same batches",
                found[self.judged] >= 0.86,
            ),
            Row(
                "K6",
                "Sec. 4.2: quadratic model at a point that is no minimum",
                "H + 0.01 I",
                "; ".join(f"{kind} + {damping:g}: r {r:.3f}" for (kind, damping), r in found.items()),
                "the damping is swept; retraining for so many steps is itself a damping",
                found[best] >= 0.86,
            ),
        ]


def nonconvex(split: Split, size: Size | None = None, progress: bool = False) -> NonConvex:
    """The network of section 4.2, the damped influence of its training images, and retraining from where it stands.

    Warns:
        UserWarning: retrainings that do not agree with one another.
    """
    size = size or Size()
    x, y = enlarged(split.x[: size.images]), split.y[: size.images]
    net = load_or_train(x, y, weight_decay=WEIGHT_DECAY, steps=size.steps, progress=progress)
    test_x, label = _asked(net, enlarged(split.test_x), split.test_y)
    model = explain.wrap(net, train=(x, y), task="classification", weight_decay=WEIGHT_DECAY)
    target = model.example(test_x, label=label, payoff="loss")
    answers = {}
    for kind, dampings in (("hessian", size.hessian), ("ggn", size.ggn)):
        for damping in dampings:
            answers[kind, damping] = _influence(target, kind, damping, progress)
    judged = ("hessian", size.hessian[0])
    removed = answers[judged].scores.abs().topk(size.points).indices
    actual = torch.stack(
        [_actual(net, x, y, removed, test_x, label, size, seed, progress) for seed in range(size.seeds)]
    )
    predicted = {key: why.scores[removed] for key, why in answers.items()}
    found = NonConvex(answers[judged], removed, predicted, actual, judged)
    if size.seeds > 1 and not found.repeats_agree >= 0.9:
        warnings.warn(
            f"two retrainings of the same images agree to r = {found.repeats_agree:.2f} alone: their steps are too "
            "long for so sharp a loss, and nothing can foretell them. Use a smaller Retraining(lr=)",
            stacklevel=2,
        )
    return found


def _asked(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, int]:
    """The wrongly classified test image whose loss is nearest to 2."""
    with torch.no_grad():
        outputs = net(x)
    losses = F.cross_entropy(outputs, y, reduction="none").where(outputs.argmax(1) != y, torch.inf)
    found = int((losses - 2).abs().argmin())
    return x[found], int(y[found])


def _influence(target: explain.Target, curvature: str, damping: float, progress: bool) -> explain.Explanation:
    solver = ConjugateGradient(tolerance=1e-3)
    with warnings.catch_warnings():  # the network is no minimum: that is the experiment
        warnings.filterwarnings("ignore", message="the model is not at a minimum of its training loss")
        return Influence(solver=solver, curvature=curvature, damping=damping, seed=0, progress=progress).explain(target)


def _actual(
    net: nn.Module, x: Tensor, y: Tensor, removed: Tensor, test_x: Tensor, label: int, size: Size, seed: int, bar: bool
) -> Tensor:
    """How much the loss falls without each image, against a retraining with all of them on the same batches."""
    everyone = [None, *removed.tolist()]
    params = retrained(net, x, y, everyone, size.retraining, weight_decay=WEIGHT_DECAY, seed=seed, progress=bar)
    with torch.no_grad():
        outputs = torch.func.vmap(lambda p: functional_call(net, p, (test_x[None],))[0])(params)
    losses = -outputs.double().log_softmax(1)[:, label]
    return losses[0] - losses[1:]
