"""Whether scores of training examples find what is known of them: wrong labels, the same class, another source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from explain.explanation import Explanation


def mislabel_detection(scores: Any, wrong: Any) -> float:
    """The chance that a mislabelled example scores above another, ties counting half: area under the ROC curve.

    Scores say how suspect an example is, as `explain.SelfInfluence` does (Koh and Liang 2017, section 5.4).

    Args:
        scores: ``[n]``, or an `Explanation` over the training examples.
        wrong: bool ``[n]``, True where the label is known to be wrong.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, or no example or every one wrong.

    >>> mislabel_detection(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, False, False]))
    1.0
    """
    found, truth = _rows(scores)[0], _flags(wrong)
    _check_found(found[None], truth, "mislabelled")
    ranks = stats.rankdata(found)
    positive, negative = int(truth.sum()), int((~truth).sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def same_class(scores: Any, labels: Any, asked: Any, top: int = 1) -> float:
    """The share of each question's ``top`` examples that have its class, a mean over questions (Hanawa et al. 2021).

    Args:
        scores: ``[questions, n]``, or an `Explanation` a question.
        labels: ``[n]``, the classes of the training examples.
        asked: ``[questions]``, the classes that are asked about.
        top: how many examples; ties go by position.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, or more examples than there are.

    >>> same_class(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 1]), torch.tensor([0, 0]))
    0.5
    """
    found = _rows(scores)
    own, wanted = (torch.as_tensor(given).cpu().numpy() for given in (labels, asked))
    if own.shape != found.shape[1:] or wanted.shape != found.shape[:1]:
        raise ValueError(
            f"scores {list(found.shape)} need {found.shape[1]} labels and {found.shape[0]} classes asked about, got "
            f"{list(own.shape)} and {list(wanted.shape)}"
        )
    if not 1 <= top <= found.shape[1]:
        raise ValueError(f"top must be from 1 to {found.shape[1]}, got {top!r}")
    best = np.argsort(-found, axis=1, kind="stable")[:, :top]
    return float((own[best] == wanted[:, None]).mean())


def mixed_data(scores: Any, source: Any) -> float:
    """How far up the examples of another source stand, for questions about what came from there: average precision.

    A mean over questions; by chance about the share of such examples (Hammoudeh and Lowd 2022).

    Args:
        scores: ``[questions, n]``, or an `Explanation` a question.
        source: bool ``[n]``, True where an example is of that source.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, or no example or every one of that source.

    >>> mixed_data(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([True, True, False]))
    0.8333333333333333
    """
    found, truth = _rows(scores), _flags(source)
    _check_found(found, truth, "of that source")
    return float(np.mean([_average_precision(row, truth) for row in found]))


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Precision at each true example, those that tie counted together, so that their order says nothing."""
    at_least = scores[None, :] >= scores[truth][:, None]
    return float((at_least[:, truth].sum(1) / at_least.sum(1)).mean())


def _rows(scores: Any) -> np.ndarray:
    """``[questions, n]``, float64.

    Raises:
        ValueError: another shape, or NaN or infinity.
    """
    if isinstance(scores, Explanation):
        scores = scores.scores
    elif isinstance(scores, Sequence) and scores and all(isinstance(one, Explanation) for one in scores):
        scores = torch.stack([one.scores for one in scores])
    found = torch.as_tensor(scores).detach().cpu().double().numpy()
    found = found[None] if found.ndim == 1 else found
    if found.ndim != 2 or not np.isfinite(found).all():
        raise ValueError(f"scores must be finite, [n] or [questions, n], got {list(found.shape)}")
    return found


def _flags(given: Any) -> np.ndarray:
    return torch.as_tensor(given).cpu().numpy()


def _check_found(scores: np.ndarray, truth: np.ndarray, what: str) -> None:
    if truth.dtype != bool or truth.shape != scores.shape[1:]:
        raise ValueError(f"which are {what} must be bool [{scores.shape[1]}], got {truth.dtype} {list(truth.shape)}")
    if truth.all() or not truth.any():
        raise ValueError(f"some examples, and not every one, must be {what}")
