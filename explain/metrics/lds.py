"""The linear datamodelling score: do scores of training examples predict what models say that were trained on some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from explain.doubts import doubt
from explain.explanation import Explanation


@dataclass(frozen=True)
class Lds:
    """A linear datamodelling score, -1 to 1.

    Args:
        mean: over the measurements.
        low: lower end of the bootstrap interval of the mean.
        high: its upper end.
        each: the score of every measurement.
        subsets: how many retrained models it rests on.
        confidence: of the interval.
        resampled: the mean of every resample of the bootstrap.
        agreement: mean Spearman correlation of the outcomes of two seeds; NaN of one.
        ceiling: of their mean with what an infinity of seeds would say, as that implies (Spearman and Brown): what no
            score can do better than on average; NaN of one seed.
    """

    mean: float
    low: float
    high: float
    each: tuple[float, ...]
    subsets: int
    confidence: float
    resampled: tuple[float, ...] = field(repr=False, default=())
    agreement: float = field(default=float("nan"), compare=False)
    ceiling: float = field(default=float("nan"), compare=False)

    def minus(self, other: Lds) -> Lds:
        """The difference of two scores, with an interval of its own: both are resampled alike, by the same seed.

        Raises:
            ValueError: scores over other models or measurements, or resampled differently.
        """
        if (self.subsets, len(self.each), len(self.resampled)) != (
            other.subsets,
            len(other.each),
            len(other.resampled),
        ):
            raise ValueError("only scores over the same models and measurements, with as many resamples, are compared")
        each = tuple(a - b for a, b in zip(self.each, other.each, strict=True))
        means = tuple(a - b for a, b in zip(self.resampled, other.resampled, strict=True))
        low, high = _ends(means, self.confidence)
        return Lds(self.mean - other.mean, low, high, each, self.subsets, self.confidence, means)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def lds(
    scores: Tensor | Sequence[Explanation],
    subsets: Any,
    outcomes: Any,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Lds:
    """Spearman's correlation of predicted and real numbers over retrained models (Ilyas 2022; Park et al. 2023).

    For every measurement ``j``::

        predicted_sj = sum of the scores_j of the examples in subset s
        lds_j        = spearman over s of (predicted_sj, outcomes_sj),     mean over the measurements j

    The interval is of the percentile bootstrap, which draws both the retrained models and the measurements anew.

    Args:
        scores: ``[measurements, n]``, or one `Explanation` over all ``n`` training examples a measurement.
        subsets: bool ``[models, n]``, which examples each model was trained on; random halves as a rule.
        outcomes: ``[models, measurements]``, the number that each model says, or ``[seeds, models, measurements]``, of
            which the mean is taken, as `Retrainings` gives them.
        confidence: of the interval, between 0 and 1.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, fewer than 3 models, numbers that are not finite, or another confidence.

    Warns:
        UserWarning: predictions or outcomes of a measurement that are all the same: its score is 0.

    >>> subsets = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1]]).bool()
    >>> lds(torch.tensor([[3.0, 2.0, 1.0]]), subsets, torch.tensor([[5.0], [4.0], [3.0]])).mean
    1.0
    """
    outcomes = torch.as_tensor(outcomes).detach().cpu().double()
    seeds = outcomes if outcomes.dim() == 3 and len(outcomes) else outcomes[None]
    predicted, real = _checked(scores, subsets, seeds.mean(0))
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence must be between 0 and 1 and resamples above 0, got {confidence} and {resamples}")
    each = _spearman(predicted, real)
    flat = (np.ptp(predicted, 0) == 0) | (np.ptp(real, 0) == 0)
    if flat.any():
        doubt(
            f"{int(flat.sum())} of {len(each)} measurements have predictions or outcomes that are all the same: they "
            "count as 0"
        )
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        models, measured = (rng.integers(count, size=count) for count in predicted.shape)
        at = np.ix_(models, measured)
        means[i] = _spearman(predicted[at], real[at]).mean()
    low, high = _ends(means, confidence)
    return Lds(
        float(each.mean()),
        low,
        high,
        tuple(each.tolist()),
        len(predicted),
        confidence,
        tuple(means.tolist()),
        *_reliability(seeds.numpy()),
    )


def _reliability(outcomes: np.ndarray) -> tuple[float, float]:
    """Agreement of two seeds of ``[seeds, models, measurements]``, and the ceiling of the mean of all."""
    seeds = len(outcomes)
    found = [_spearman(outcomes[a], outcomes[b]).mean() for a in range(seeds) for b in range(a)]
    if not found:
        return float("nan"), float("nan")
    single = float(np.mean(found))
    return single, (seeds * max(single, 0.0) / (1 + (seeds - 1) * max(single, 0.0))) ** 0.5


def _ends(means: Any, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _checked(scores: Any, subsets: Any, outcomes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and real numbers, ``[models, measurements]`` each.

    Raises:
        ValueError: other shapes, fewer than 3 models, or NaN or infinity.
    """
    if not isinstance(scores, Tensor) and any(isinstance(one, Explanation) for one in scores):
        scores = torch.stack([one.scores for one in scores])
    credit, members, real = (torch.as_tensor(given).detach().cpu().numpy() for given in (scores, subsets, outcomes))
    if credit.ndim != 2 or members.ndim != 2 or members.shape[1] != credit.shape[1]:
        raise ValueError(
            f"scores must be [measurements, n] and subsets [models, n], got {credit.shape} and {members.shape}"
        )
    if real.shape != (len(members), len(credit)):
        raise ValueError(f"outcomes must be [{len(members)} models, {len(credit)} measurements], got {real.shape}")
    if members.dtype != bool:
        raise ValueError(f"subsets must be bool, True where an example was trained on, got {members.dtype}")
    if len(members) < 3:
        raise ValueError(f"a rank correlation needs at least 3 retrained models, got {len(members)}")
    if not (np.isfinite(credit).all() and np.isfinite(real).all()):
        raise ValueError("scores and outcomes must be finite")
    return members @ credit.T.astype(np.float64), real.astype(np.float64)


def _spearman(predicted: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each column, 0 where it is not defined."""
    ranks = [stats.rankdata(values, axis=0) for values in (predicted, real)]
    a, b = (rank - rank.mean(0) for rank in ranks)
    size = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return np.divide((a * b).sum(0), size, out=np.zeros(size.shape), where=size > 0)
