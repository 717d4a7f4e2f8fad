"""What influence loses without the training loss or the curvature, and harmful images of the same class (Fig. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

import explain
from explain import Influence
from explain.influence import Components, components, harmful
from models.koh_liang.data import Split, worst
from models.koh_liang.rows import Row
from models.linear import Linear
from models.optimum import fitted

WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Terms:
    """Influence on the loss of one test 7, with and without its terms.

    Args:
        why: influence with all of them.
        terms: the same without some of them; positive is harmful.
        same: bool ``[n]``, the training images of the test image's class.
    """

    why: explain.Explanation
    terms: Components
    same: torch.Tensor

    @property
    def looked_helpful(self) -> dict[str, float]:
        """The share of the training images of the same class that seem helpful, with and without terms."""
        names = ("full", "without_loss", "without_curvature", "without_both")
        return {name: float((getattr(self.terms, name)[self.same] <= 0).double().mean()) for name in names}

    @property
    def overestimates(self) -> float:
        """How much larger influence without the training loss is, the median over the images."""
        return float((self.terms.without_loss / self.terms.full).median())

    @property
    def rank_agreement(self) -> dict[str, float]:
        """Pearson's r of what is left with the whole."""
        full = self.terms.full
        rest = {name: getattr(self.terms, name) for name in ("without_loss", "without_curvature", "without_both")}
        return {name: float(torch.corrcoef(torch.stack([full, part]))[0, 1]) for name, part in rest.items()}

    @property
    def harmful_same(self) -> torch.Tensor:
        """The harmful training images of the same class, most harmful first."""
        return harmful(self.why, k=5, label=1)

    def rows(self) -> list[Row]:
        """K1 and K2."""
        helpful, agree = self.looked_helpful, self.rank_agreement
        ours = (
            f"without H {helpful['without_curvature']:.0%} of the same class look helpful, with it "
            f"{helpful['full']:.0%}; without the loss {self.overestimates:.0f} times too large; r with the whole: "
            f"{agree['without_loss']:.2f} without the loss, {agree['without_curvature']:.2f} without H, "
            f"{agree['without_both']:.2f} without both"
        )
        count = int((self.terms.full[self.same] > 0).sum())
        return [
            Row(
                "K1",
                "Fig. 1a: influence without its terms",
                "without the loss: overestimates; without H: all of the same class look helpful; without both: useless",
                ours,
                "fewer images, and another test 7",
                helpful["without_curvature"] == 1.0 and helpful["full"] < 1.0 and self.overestimates > 1.0,
            ),
            Row(
                "K2",
                "Fig. 1b: harmful images of the same class",
                "one harmful 7 is shown",
                f"{count} of {int(self.same.sum())} training 7s are harmful, worst {self.harmful_same.tolist()}",
                "all are counted here",
                count > 0,
            ),
        ]


def terms(split: Split) -> Terms:
    """Logistic regression of 1 and 7 without an intercept; the test 7 that is least sure and still right is asked."""
    net = fitted(Linear(split.x[0].numel()), split.x, split.y, weight_decay=WEIGHT_DECAY)
    margins = (2 * split.test_y - 1) * net(split.test_x).detach()[:, 0]
    asked = worst(F.softplus(-margins).where(margins > 0, -torch.inf), split.test_y, 1)
    model = explain.wrap(net, train=(split.x, split.y), task="classification", weight_decay=WEIGHT_DECAY)
    target = model.example(split.test_x[asked], label=1, payoff="loss")
    engine = Influence(solver="exact", seed=0)
    return Terms(engine.explain(target), components(target, engine), split.y == 1)
