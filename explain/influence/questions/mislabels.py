"""Finding mislabelled training examples: in which order to check them, and how soon that finds the wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from explain.explanation import Explanation
from explain.influence.inverse import positions_of


@dataclass(frozen=True, eq=False)
class MislabelSearch:
    """How many wrong labels are found when training examples are checked in some order.

    Args:
        order: int64 ``[n]`` for each ranking, the first to be checked first.
        checked: ``[n + 1]``, the fraction of the examples checked, from 0 to 1.
        found: ``[n + 1]`` for each ranking, the fraction of the wrong labels found by then.
        area: under ``found`` over ``checked``: 0.5 at random, at most ``1 - share / 2``.
        auc: of each ranking's scores (area under the receiver operating curve): the chance that a wrong example ranks
            above a right one.
    """

    order: dict[str, Tensor]
    checked: Tensor
    found: dict[str, Tensor]
    area: dict[str, float]
    auc: dict[str, float]

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {area:.3f}" for name, area in self.area.items())
        return f"MislabelSearch: area by {found}"


def mislabels(why: Explanation, wrong: Any, seed: int = 0) -> MislabelSearch:
    """Rank training examples by self-influence, by their loss, and at random (Koh and Liang 2017, section 5.4).

    Args:
        why: a `SelfInfluence` explanation.
        wrong: which labels are wrong: positions in the training set, or a bool mask ``[n]``.
        seed: of the random ranking.

    Drawn by ``explain.plot.mislabels(search.checked, search.found)``.

    Raises:
        ValueError: another explanation, or no wrong label, or nothing but wrong ones.

    >>> from explain.types import Players
    >>> why = Explanation(torch.tensor([0.1, 3.0, 0.2]), Players("train", torch.arange(3)), value=0.0,
    ...                   parts={"self_loss": torch.tensor([0.5, 0.4, 0.1])}, method="SelfInfluence")
    >>> search = mislabels(why, [1])
    >>> search.auc["self_influence"], search.auc["loss"], search.found["self_influence"].tolist()
    (1.0, 0.5, [0.0, 1.0, 1.0, 1.0])
    """
    if why.method != "SelfInfluence":
        raise ValueError(f"mislabels reads SelfInfluence().explain(target), got an explanation by {why.method!r}")
    size = len(why.players)
    is_wrong = torch.zeros(size, dtype=torch.bool)
    is_wrong[positions_of(wrong, size)] = True
    if is_wrong.all():
        raise ValueError("every label is said to be wrong: there is nothing to tell apart")
    chance = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).double()
    scores = {"self_influence": why.scores, "loss": why.parts["self_loss"].double().cpu(), "random": chance}
    order = {name: found.argsort(descending=True, stable=True) for name, found in scores.items()}
    start = torch.zeros(1, dtype=torch.float64)
    found = {name: torch.cat([start, is_wrong[at].double().cumsum(0) / is_wrong.sum()]) for name, at in order.items()}
    checked = torch.linspace(0, 1, size + 1, dtype=torch.float64)
    return MislabelSearch(
        order,
        checked,
        found,
        {name: float(torch.trapezoid(curve, checked)) for name, curve in found.items()},
        {name: _auc(given, is_wrong) for name, given in scores.items()},
    )


def accuracy_after_fixing(
    search: MislabelSearch,
    labels: Tensor,
    truth: Tensor,
    accuracy: Callable[[Tensor], float],
    fractions: Sequence[float] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
) -> dict[str, Tensor]:
    """Test accuracy once the first ``fractions`` of each ranking were checked and their labels put right.

    Args:
        search: what `mislabels` found.
        labels: ``[n]``, as they were trained on.
        truth: ``[n]``, as they should be.
        accuracy: ``labels [n] -> accuracy``: trains with these labels and tests.
        fractions: of the examples, each from 0 to 1.

    Returns:
        ``[len(fractions)]`` for each ranking.

    Raises:
        ValueError: labels of another length, or a fraction outside 0 to 1.
    """
    size = len(search.checked) - 1
    if labels.shape != (size,) or truth.shape != (size,):
        raise ValueError(f"labels and truth must be [{size}], got {list(labels.shape)} and {list(truth.shape)}")
    if not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions must be from 0 to 1, got {list(fractions)}")

    def after(order: Tensor, fraction: float) -> float:
        first = order[: round(fraction * size)]
        return float(accuracy(labels.clone().index_copy(0, first.to(labels.device), truth[first].to(labels))))

    return {
        name: torch.tensor([after(order, fraction) for fraction in fractions], dtype=torch.float64)
        for name, order in search.order.items()
    }


def _auc(scores: Tensor, wrong: Tensor) -> float:
    """Mann and Whitney's: ties count half."""
    ranks = rankdata(scores.numpy())[wrong.numpy()]
    count = len(ranks)
    return float((np.sum(ranks) - count * (count + 1) / 2) / (count * (len(scores) - count)))
