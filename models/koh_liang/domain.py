"""A group that the training set shows wrongly: which examples make the model err on it (section 5.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import explain
from explain import Influence
from explain.influence import Perturbation
from models.koh_liang.data import Split
from models.koh_liang.rows import Row
from models.linear import Linear
from models.optimum import fitted

WEIGHT_DECAY = 1e-4
POSITIVE, NEGATIVE, LEFT = 3, 21, 1  # members of the group to train on, and how many of the negative ones are kept


@dataclass(frozen=True)
class Domain:
    """Influence on the loss of a test member of the group that is told wrongly once its likes are gone.

    Args:
        why: influence of the training examples that are left.
        planted: the members of the group among them, positive ones first.
        before: the test members' probabilities of the positive class with all training members, ``[members]``.
        after: the same without most of the negative ones.
        features: how the loss rises with each feature of the first planted member; the indicator is the last.
    """

    why: explain.Explanation
    planted: list[int]
    before: Tensor
    after: Tensor
    features: Tensor

    @property
    def crossed(self) -> int:
        """Negative test members told right before and wrong after."""
        return int(((self.before < 0.5) & (self.after > 0.5)).sum())

    @property
    def top_is_planted(self) -> bool:
        """Whether the examples of most influence are the members of the group, all of them and no others."""
        return set(self.why.scores.abs().topk(len(self.planted)).indices.tolist()) == set(self.planted)

    @property
    def ratios(self) -> Tensor:
        """Each member's influence over the largest of any other example."""
        others = torch.ones(len(self.why.scores), dtype=torch.bool)
        others[self.planted] = False
        return self.why.scores[self.planted].abs() / self.why.scores[others].abs().max()

    def rows(self) -> list[Row]:
        """K13."""
        signs = "".join("+" if score > 0 else "-" for score in self.why.scores[self.planted])
        indicator = int(self.features.abs().argmax()) == len(self.features) - 1
        return [
            Row(
                "K13",
                "Sec. 5.3: domain mismatch",
                "the 4 children lead, 28 to 56 times the next; 13 of 137 test children cross 0.5; I_pert points at the "
                "indicator",
                f"the {len(self.planted)} planted lead: {self.top_is_planted}, {self.ratios.min():.0f} to "
                f"{self.ratios.max():.0f} times the next (harmful +: {signs}); {self.crossed} of {len(self.after)} "
                f"test members cross 0.5; I_pert points at the indicator: {indicator}",
                "digits above 4 by principal components for readmission, a planted group for the children",
                self.top_is_planted and bool(self.ratios.min() >= 10),
            )
        ]


def domain(split: Split, components: int = 3) -> Domain:
    """Digits above 4 told from the others by ``components`` principal components and an indicator of a planted group.

    Of 3 positive and 21 negative members all but one negative one are dropped, as in the paper. The negative test
    member that moves most is asked.
    """
    x, test_x = _components(split, components)
    y, test_y = (split.y > 4).long(), (split.test_y > 4).long()
    positive, negative = ((y == value).nonzero()[:, 0] for value in (1, 0))
    group = torch.cat([positive[:POSITIVE], negative[:NEGATIVE]])
    members = (test_y == 0).nonzero()[:, 0][:200]
    x, test_x = _marked(x, group), _marked(test_x, members)
    kept = torch.ones(len(x), dtype=torch.bool)
    kept[group[POSITIVE + LEFT :]] = False
    whole = fitted(_classifier(x), x, y, weight_decay=WEIGHT_DECAY)
    net = fitted(_classifier(x), x[kept], y[kept], weight_decay=WEIGHT_DECAY)
    before, after = (model(test_x[members]).detach()[:, 0].sigmoid() for model in (whole, net))
    asked = test_x[members[(after - before).where(before < 0.5, -torch.inf).argmax()]]
    target = explain.wrap(net, train=(x[kept], y[kept]), task="classification", weight_decay=WEIGHT_DECAY).example(
        asked, label=0, payoff="loss"
    )
    engine = Influence(solver="exact", seed=0)
    planted = x[kept][:, -1].nonzero()[:, 0].tolist()
    planted.sort(key=lambda i: -int(y[kept][i]))
    features = Perturbation(planted[0], engine=engine).explain(target).scores
    return Domain(engine.explain(target), planted, before, after, features)


def _components(split: Split, count: int) -> tuple[Tensor, Tensor]:
    """Principal components of the training images, of unit variance, of both parts."""
    x, test_x = split.x.flatten(1), split.test_x.flatten(1)
    mean = x.mean(0)
    directions = torch.linalg.svd(x - mean, full_matrices=False).Vh[:count].T
    found, test = (x - mean) @ directions, (test_x - mean) @ directions
    return found / found.std(0), test / found.std(0)


def _marked(x: Tensor, members: Tensor) -> Tensor:
    """With one more feature: 1 for members of the group."""
    indicator = torch.zeros(len(x), 1, dtype=x.dtype)
    indicator[members] = 1
    return torch.cat([x, indicator], 1)


def _classifier(x: Tensor) -> Linear:
    return Linear(x.size(1), bias=True)
