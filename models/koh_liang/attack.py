"""Training images moved by less than half a grey level, so that the retrained model errs (section 5.2, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import explain
from explain import Influence
from explain.influence import Attack, Box, Poisoned, attackability, poison
from models.koh_liang.data import Split
from models.koh_liang.rows import Row
from models.linear import Linear
from models.optimum import fitted

WEIGHT_DECAY = 1e-4
KEPT = 0.95  # of the variance, by the principal components that a move is measured against


@dataclass(frozen=True)
class Poisoning:
    """Attacks on a head of logistic regression.

    Args:
        counts: training images poisoned at once, those of most effect on each test image.
        flipped: whether each test image, right before, is told wrongly then, bool ``[counts, tests]``.
        greys: the largest move of any pixel in any attack, in grey levels.
        joint: the attack of one image on several test images.
        spread: the mean distance of training inputs of the model from their centre.
        residual: of the move of the poisoned input, the share of its square outside the leading principal components.
        residuals: the same of every training input's distance from the centre, ``[n]``.
        margins: of the training examples, ``[n]``.
        rises: how far one poisoned training image can raise the loss of the joint targets, ``[n]``.
        pixels: in an image.
    """

    counts: tuple[int, ...]
    flipped: Tensor
    greys: float
    joint: Poisoned
    spread: float
    residual: float
    residuals: Tensor
    margins: Tensor
    rises: Tensor
    pixels: int

    @property
    def rates(self) -> list[float]:
        """The share of test images flipped, by the number of poisoned images."""
        return self.flipped.double().mean(1).tolist()

    @property
    def margin_and_rise(self) -> float:
        """Spearman's correlation of a training example's margin with what poisoning it does."""
        return float(spearmanr(self.margins, self.rises)[0])

    def rows(self) -> list[Row]:
        """K10 to K12."""
        half = self.greys <= 0.5
        grows = all(a <= b for a, b in zip(self.rates, self.rates[1:], strict=False)) and self.rates[-1] > 0
        joint, before, after = self.joint, self.joint.numbers[0].mean(), self.joint.numbers[-1].mean()
        moved = joint.pixel_distance[-1, 0], joint.feature_distance[-1, 0]
        rates = ", ".join(f"{count}: {rate:.0%}" for count, rate in zip(self.counts, self.rates, strict=True))
        return [
            Row(
                "K10",
                "Sec. 5.2, Fig. 5: one test image",
                "1 image flips 57 %, 2 images 77 %, 10 all but one of 591",
                f"{rates} of the {self.flipped.size(1)} least sure; no pixel moves by more than {self.greys:.3f} grey "
                "levels",
                f"{self.pixels} pixels for 268,203: half a grey level each adds up to that much less, so that only "
                "unsure test images flip",
                half and grows,
            ),
            Row(
                "K11",
                "Fig. 5: several test images, one poisoned",
                "16 of 30 flip; loss 0.035 to 1.36; moved by 1.88 in pixels, 11.1 in features (mean to centre 12.9)",
                f"{int(joint.flipped.sum())} of {len(joint.flipped)} flip; loss {before:.3f} to {after:.3f}; moved by "
                f"{moved[0]:.3f} in pixels, {moved[1]:.3f} in features (mean to centre {self.spread:.1f})",
                "as K10; a small network magnifies little what Inception magnifies much",
                bool(after > before) and half,
            ),
            Row(
                "K12",
                "Sec. 5.2: which images, which way",
                "moves along directions of low variance (residual 0.80); ambiguous or mislabelled images are best",
                f"{self.residual:.0%} of the move is outside the components of {KEPT:.0%} of the variance (training "
                f"images: {self.residuals.mean():.0%}); margin and effect correlate to {self.margin_and_rise:+.2f}",
                "as K10",
                self.residual > float(self.residuals.mean()) and self.margin_and_rise < -0.5,
            ),
        ]


def poisoning(
    split: Split,
    grey: float,
    features: nn.Module | None = None,
    counts: Sequence[int] = (1, 2, 10, 30, 100),
    tests: int = 30,
    together: int = 10,
    iterations: int = 10,
) -> Poisoning:
    """Logistic regression of two classes on ``features(images)``, or on the pixels.

    Args:
        split: few images to train on.
        grey: one grey level.
        features: ``images [n, 1, H, W] -> [n, d]``, frozen, float64.
        counts: training images poisoned at once.
        tests: test images attacked one by one: the least sure of those that are told rightly.
        together: test images attacked at once: the nearest to one another around the least sure one.
        iterations: of 0.1 grey levels each.
    """
    inputs, test = (_inputs(features, part) for part in (split.x, split.test_x))
    net = fitted(Linear(inputs[0].numel(), bias=True), inputs, split.y, weight_decay=WEIGHT_DECAY, slope=1e-7)
    model = explain.wrap(net, train=(inputs, split.y), task="classification", weight_decay=WEIGHT_DECAY)
    attack = Attack(
        step=0.1,
        iterations=iterations,
        box=Box(grey=grey),
        features=features,
        engine=Influence(solver="exact", seed=0),
    )
    margins = (2 * split.test_y - 1) * net(test).detach()[:, 0]
    unsure = margins.where(margins > 0, torch.inf).argsort()[:tests]
    one_by_one, near = (
        [model.example(test[i], label=int(split.test_y[i]), payoff="loss") for i in chosen]
        for chosen in (unsure, _neighbours(test, split.test_y, margins, together))
    )
    single = [[_attacked([target], split, attack, count) for target in one_by_one] for count in counts]
    joint = _attacked(near, split, attack, 1)
    residuals, directions = _outside(inputs.flatten(1))
    move = (_inputs(features, joint.images) - _inputs(features, joint.original)).flatten(1)
    return Poisoning(
        tuple(counts),
        torch.tensor([[bool(found.flipped.all()) for found in row] for row in single]),
        max(float(found.greys.max()) for found in [joint, *(found for row in single for found in row)]),
        joint,
        float((inputs.flatten(1) - inputs.flatten(1).mean(0)).norm(dim=1).mean()),
        float(_share_outside(move, directions)[0]),
        residuals,
        (2 * split.y - 1) * net(inputs).detach()[:, 0],
        attackability(near, attack, None if features is None else split.x),
        split.x[0].numel(),
    )


def _inputs(features: nn.Module | None, images: Tensor) -> Tensor:
    with torch.no_grad():
        return images if features is None else features(images)


def _attacked(targets: Sequence[explain.Target], split: Split, attack: Attack, count: int) -> Poisoned:
    """With the ``count`` training images of most effect poisoned."""
    images = None if attack.features is None else split.x
    best = attackability(targets, attack, images).topk(min(count, len(split.x))).indices
    return poison(targets, best, attack, None if images is None else images[best])


def _neighbours(test: Tensor, labels: Tensor, margins: Tensor, count: int) -> Tensor:
    """The least sure of the rightly told test images, and those nearest to it, of its class and told rightly too."""
    centre = margins.where(margins > 0, torch.inf).argmin()
    distance = (test - test[centre]).flatten(1).norm(dim=1)
    return distance.where((margins > 0) & (labels == labels[centre]), torch.inf).argsort()[:count]


def _outside(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The share of each centred input outside the leading principal components ``[d, k]``, and these."""
    centred = inputs - inputs.mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    kept = int((sizes.square().cumsum(0) / sizes.square().sum() < KEPT).sum()) + 1
    leading = directions[:kept].T
    return _share_outside(centred, leading), leading


def _share_outside(moves: Tensor, directions: Tensor) -> Tensor:
    return 1 - (moves @ directions).square().sum(1) / moves.square().sum(1)
