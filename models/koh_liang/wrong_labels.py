"""Finding mislabelled training examples by self-influence, by their loss, and at random (section 5.4, Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import explain
from explain import Influence
from explain.influence import SelfInfluence, accuracy_after_fixing, mislabels
from models.datasets import cora
from models.koh_liang.data import Split
from models.koh_liang.rows import Row
from models.linear import Linear
from models.optimum import fit

WEIGHT_DECAY = 1e-4
WRONG = 0.1  # of the labels
RANKINGS = ("self_influence", "loss", "random")


@dataclass(frozen=True)
class WrongLabels:
    """Several repeats, each with other wrong labels.

    Args:
        checked: ``[n + 1]``, the fraction of the examples checked.
        found: for each ranking, the fraction of the wrong labels found by then, ``[repeats, n + 1]``.
        fractions: checked before training again.
        accuracy: for each ranking, on the test set once what was found is put right, ``[repeats, fractions]``.
        clean: the same with no wrong label.
        parameters: of the model.
        data: in words.
    """

    checked: Tensor
    found: dict[str, Tensor]
    fractions: tuple[float, ...]
    accuracy: dict[str, Tensor]
    clean: float
    parameters: int
    data: str

    @property
    def area(self) -> dict[str, Tensor]:
        """Under ``found`` over ``checked``, ``[repeats]`` for each ranking; at most 0.95."""
        return {name: torch.trapezoid(curves, self.checked, dim=1) for name, curves in self.found.items()}

    def rows(self) -> list[Row]:
        """K14."""
        area = self.area
        own, loss, chance = (float(area[name].mean()) for name in RANKINGS)
        wins = int((area["self_influence"] >= area["loss"]).sum())
        repeats, n = len(area["loss"]), len(self.checked) - 1
        if own >= loss:
            differs = f"{self.data} for Enron's mails; here the loss does nearly as well"
        else:
            differs = (
                f"{self.data} for Enron's mails; {self.parameters} parameters cannot fit {n} wrong labels, so that the "
                "loss shows them by itself"
            )
        return [
            Row(
                "K14",
                "Sec. 5.4, Fig. 6: wrong labels",
                "influence recovers the accuracy fastest, the loss second, 40 repeats",
                f"area under found over checked: self-influence {own:.3f}, loss {loss:.3f}, random {chance:.3f}; "
                f"self-influence leads in {wins} of {repeats} repeats (n {n}, p {self.parameters})",
                differs,
                own >= loss > chance,
            )
        ]


def topics(count: int = 1200) -> Split:
    """Bags of words, as mails are: whether a paper of Cora is about neural networks, and 508 others to test on.

    Raises:
        FileNotFoundError: Cora is not at hand.
    """
    data = cora()
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))
    x, y = (data.x > 0).double()[order], (data.y == 3).long()[order]
    return Split(x[:count], y[:count], x[-508:], y[-508:])


def wrong_labels(
    split: Split,
    repeats: int = 20,
    fractions: Sequence[float] = (0.05, 0.1, 0.2, 0.3),
    retrained: int = 5,
    data: str = "words of Cora's papers",
) -> WrongLabels:
    """Logistic regression with a tenth of the labels turned over.

    Args:
        split: two classes.
        repeats: each with other wrong labels.
        fractions: checked and put right before training again.
        retrained: in so many of the repeats.
        data: in words.
    """
    searches, accuracies = [], []
    for seed in range(repeats):
        wrong = torch.randperm(len(split.x), generator=torch.Generator().manual_seed(seed))
        wrong = wrong[: round(WRONG * len(wrong))]
        labels = split.y.index_put((wrong,), 1 - split.y[wrong])
        model = explain.wrap(
            _trained(split.x, labels), train=(split.x, labels), task="classification", weight_decay=WEIGHT_DECAY
        )
        why = SelfInfluence(Influence(solver="exact", seed=0)).explain(model.example(split.test_x[0]))
        searches.append(mislabels(why, wrong, seed=seed))
        if seed < retrained:
            accuracies.append(
                accuracy_after_fixing(searches[-1], labels, split.y, lambda fixed: _accuracy(split, fixed), fractions)
            )
    return WrongLabels(
        searches[0].checked,
        {name: torch.stack([search.found[name] for search in searches]) for name in RANKINGS},
        tuple(fractions),
        {name: torch.stack([found[name] for found in accuracies]) for name in RANKINGS},
        _accuracy(split, split.y),
        sum(p.numel() for p in model.module.parameters()),
        data,
    )


def _trained(x: Tensor, labels: Tensor) -> Linear:
    return fit(Linear(x[0].numel(), bias=True), x, labels, weight_decay=WEIGHT_DECAY, slope=1e-6)


def _accuracy(split: Split, labels: Tensor) -> float:
    outputs = _trained(split.x, labels)(split.test_x).detach()[:, 0]
    return float(((outputs > 0).long() == split.test_y).double().mean())
