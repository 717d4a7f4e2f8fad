"""Influence next to distance in pixels: an RBF machine, and a linear one on deep features (section 5.1, Fig. 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

import explain
from explain import Influence
from explain.training import example_loss
from models.koh_liang.data import Split
from models.koh_liang.rows import Row
from models.linear import Linear
from models.optimum import fitted
from models.rbf import CholeskyFeatures
from models.svm import SmoothHinge, support_vector_machine

GAMMA = 0.05
PENALTY = {"rbf": 0.1, "deep": 1e-3}


@dataclass(frozen=True)
class Against:
    """Influence of one machine on some test images, next to how far the training images are, ``[tests, n]`` each.

    Args:
        harm: by which the loss of a test image falls without each training image.
        distance: in pixels.
        same: whether both are of one class.
        accuracy: on all test images.
    """

    harm: Tensor
    distance: Tensor
    same: Tensor
    accuracy: float

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of size of influence and distance within a class, mean over classes and tests.

        Within a class, for the distance alone tells a 1 from a 7.
        """
        found = []
        for harm, distance, same in zip(self.harm, self.distance, self.same, strict=True):
            found += [float(spearmanr(harm[part].abs(), distance[part])[0]) for part in (same, ~same)]
        return sum(found) / len(found)

    @property
    def sign_follows_class(self) -> float:
        """The share of images whose influence is that of their class: the same helps, the other harms."""
        return float(((self.harm <= 0) == self.same).double().mean())

    @property
    def first_of_other_class(self) -> int:
        """Rank of the first image of the other class among the most helpful ones of the first test, from 1."""
        order = self.harm[0].argsort()
        return int((~self.same[0][order]).nonzero()[0]) + 1


@dataclass(frozen=True)
class Kernels:
    """Both machines."""

    rbf: Against
    deep: Against

    def rows(self) -> list[Row]:
        """K9."""
        rbf, deep = self.rbf, self.deep
        ours = (
            f"rank correlation of |I| with distance {rbf.rank_correlation:+.2f} (RBF), {deep.rank_correlation:+.2f} "
            f"(deep); sign as the class {rbf.sign_follows_class:.0%}, {deep.sign_follows_class:.0%}; first helpful "
            f"image of the other class at rank {rbf.first_of_other_class}, {deep.first_of_other_class}; accuracy "
            f"{rbf.accuracy:.3f}, {deep.accuracy:.3f}"
        )
        return [
            Row(
                "K9",
                "Sec. 5.1, Fig. 4: RBF and deep features",
                "RBF: influence falls with distance, sign as the class; Inception: neither, a dog helps (rank 5)",
                ours,
                "1 and 7 for dog and fish, the network of K5 for Inception, and more L2, so that here too most images "
                "are support vectors",
                rbf.rank_correlation <= -0.7 and abs(deep.rank_correlation) <= 0.3,
            )
        ]


def kernels(split: Split, features: Callable[[Tensor], Tensor], tests: Sequence[int] = (0, 1, 2, 3)) -> Kernels:
    """The RBF machine by Cholesky features and a smooth hinge, and logistic regression on ``features(images)``.

    Args:
        split: 1 and 7.
        features: ``[n, 1, 28, 28] -> [n, d]``, frozen.
        tests: test images asked about.
    """
    x, test_x = split.x.flatten(1), split.test_x.flatten(1)
    phi = CholeskyFeatures(x, GAMMA)
    machine = support_vector_machine(phi(x), split.y, weight_decay=PENALTY["rbf"])
    rbf = _against(split, machine, phi(x), phi(test_x), tests, SmoothHinge(0.001), PENALTY["rbf"])
    with torch.no_grad():
        deep, test_deep = (features(enlarged(part)).double() for part in (split.x, split.test_x))
    top = fitted(Linear(deep.size(1), bias=True), deep, split.y, weight_decay=PENALTY["deep"])
    return Kernels(rbf, _against(split, top, deep, test_deep, tests, None, PENALTY["deep"]))


def enlarged(images: Tensor) -> Tensor:
    """Images as the network of K5 takes them, float32 ``[n, 1, 28, 28]``."""
    if images.shape[-2:] == (28, 28):
        return images.float()
    return F.interpolate(images.float(), (28, 28), mode="bilinear", align_corners=False)


def _against(
    split: Split,
    net: Linear,
    train: Tensor,
    test: Tensor,
    tests: Sequence[int],
    loss: SmoothHinge | None,
    weight_decay: float,
) -> Against:
    model = explain.wrap(net, train=(train, split.y), task="classification", loss=loss, weight_decay=weight_decay)
    harm = []
    for i in tests:
        label = split.test_y[i : i + 1]

        def number(outputs: Tensor, label: Tensor = label) -> Tensor:
            return (loss or example_loss)(outputs, label.expand(len(outputs)))

        harm.append(Influence(solver="exact", seed=0).explain(model.example(test[i], payoff=number)).scores)
    at = list(tests)
    distance = torch.cdist(split.test_x[at].flatten(1), split.x.flatten(1))
    right = (net(test).detach()[:, 0] > 0).long() == split.test_y
    return Against(torch.stack(harm), distance, split.test_y[at][:, None] == split.y, float(right.double().mean()))
