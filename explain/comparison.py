"""Do explanations agree? Rank correlations and shared top players, with intervals."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from explain.doubts import doubt
from explain.explanation import Explanation
from explain.spelling import came

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLOCK = 512  # players in one block of pairs
MEASURES = ("spearman", "kendall", "overlap")


@dataclass(frozen=True)
class Agreement:
    """How far two explanations agree; NaN where a correlation is undefined. Intervals are (low, high)."""

    first: str
    second: str
    spearman: float
    kendall: float
    overlap: float
    spearman_interval: tuple[float, float]
    kendall_interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Every pair of explanations of the same players.

    ``spearman`` and ``kendall`` (tau-b) compare scores with their sign, or their sizes where ``absolute``, -1 to 1;
    ``overlap`` is the share of the ``k`` players with the largest absolute scores that both name, 0 to 1. ``notes`` say
    what makes the comparison doubtful.
    """

    labels: tuple[str, ...]
    pairs: tuple[Agreement, ...]
    k: int
    kind: str
    players: int
    confidence: float
    absolute: bool = False
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """One row a pair: the three measures, and the bounds of the intervals."""
        rows = [
            {
                "first": pair.first,
                "second": pair.second,
                "spearman": pair.spearman,
                "spearman_low": pair.spearman_interval[0],
                "spearman_high": pair.spearman_interval[1],
                "kendall": pair.kendall,
                "kendall_low": pair.kendall_interval[0],
                "kendall_high": pair.kendall_interval[1],
                "overlap": pair.overlap,
            }
            for pair in self.pairs
        ]
        return pd.DataFrame(rows)

    @property
    def spearman(self) -> pd.DataFrame:
        """Spearman's rank correlations, a symmetric matrix."""
        return self.matrix("spearman")

    @property
    def kendall(self) -> pd.DataFrame:
        """Kendall's tau-b, a symmetric matrix."""
        return self.matrix("kendall")

    @property
    def overlap(self) -> pd.DataFrame:
        """Shared fraction of the top ``k``, a symmetric matrix."""
        return self.matrix("overlap")

    def matrix(self, measure: str = "spearman") -> pd.DataFrame:
        """One measure for all pairs; 1 on the diagonal.

        Raises:
            ValueError: an unknown measure.
        """
        if measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, {came(measure, MEASURES)}")
        values = np.eye(len(self.labels))
        for (i, j), pair in zip(itertools.combinations(range(len(self.labels)), 2), self.pairs, strict=True):
            values[i, j] = values[j, i] = getattr(pair, measure)
        return pd.DataFrame(values, index=list(self.labels), columns=list(self.labels))

    def plot(self, ax: Axes | None = None, measure: str = "spearman") -> Axes:
        """The matrix of a measure as a heat-map."""
        from explain.plot import agreement

        return agreement(self, ax, measure)

    def __repr__(self) -> str:
        found = self.table().round(3).to_string(index=False)
        kind = "training examples" if self.kind == "train" else self.kind
        return f"Comparison of {len(self.labels)} explanations over {self.players} {kind}, top {self.k}\n{found}"

    def _repr_html_(self) -> str:
        from explain.plot.inline import inline

        rows = "".join(
            f"<tr><td>{escape(p.first)}</td><td>{escape(p.second)}</td><td>{said(p.spearman, p.spearman_interval)}</td>"
            f"<td>{said(p.kendall, p.kendall_interval)}</td><td>{said(p.overlap)}</td></tr>"
            for p in self.pairs
        )
        notes = "".join(f"<p><mark>{escape(text)}</mark></p>" for text in self.notes)
        several = len(self.labels) > 2  # of one pair the table says it
        picture = inline(self.plot, "Spearman's rank correlations") if several else ""
        return (
            f"{picture}<table><caption>{self.players} {escape(self.kind)} · {self.confidence:.0%} bootstrap intervals "
            "over players</caption><thead><tr><th>first</th><th>second</th><th>Spearman</th><th>Kendall</th>"
            f"<th>top {self.k} shared</th></tr></thead><tbody>{rows}</tbody></table>{notes}"
        )


def compare(
    *explanations: Explanation,
    k: int = 5,
    absolute: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """How far explanations of the same players agree, pair by pair.

    Players are aligned by their index, so their order may differ. Equal absolute scores count as top in the order of
    the first explanation's players. With fewer than ``k`` players the top is all of them. The intervals are percentiles
    of a bootstrap that draws players with replacement (Efron 1979): how much a correlation hangs on single players.
    They cost about ``resamples * P^2`` a pair; ``resamples=0`` leaves them NaN. ``absolute=True`` ranks by the size of
    scores: fair to methods whose scores have no sign, such as `Attention` and `Mask`.

    Raises:
        ValueError: fewer than two explanations, different players, or a setting out of range.

    Warns:
        UserWarning: the answers are to different questions (removal, payoff, label, baseline, value), scores with a
            sign meet scores without, or a correlation is undefined because scores are constant; ``notes`` say the same.

    >>> import torch
    >>> from explain.types import Players
    >>> players = Players("nodes", torch.arange(4))
    >>> one, other = (torch.tensor(s) for s in ([4.0, 3.0, 2.0, 1.0], [3.0, 4.0, 2.0, 1.0]))
    >>> found = compare(Explanation(one, players, 1.0, method="A"), Explanation(other, players, 1.0, method="B"), k=1)
    >>> float(round(found.spearman.loc["A", "B"], 3)), float(found.overlap.loc["A", "B"])
    (0.8, 0.0)
    """
    _check(explanations, k, resamples, confidence)
    first = explanations[0]
    labels = _labels(explanations)
    scores = [_aligned(first, other, label) for other, label in zip(explanations, labels, strict=True)]
    notes = [*_questions(explanations, labels), *([] if absolute else _signs(explanations, labels))]
    scores = [np.abs(found) for found in scores] if absolute else scores
    notes += _constants(scores, labels)
    for text in notes:
        doubt(text)
    draws = _draws(len(first.players), resamples, seed)
    pairs = tuple(
        _agreement((labels[i], labels[j]), scores[i], scores[j], k, draws, confidence)
        for i, j in itertools.combinations(range(len(labels)), 2)
    )
    return Comparison(labels, pairs, k, first.players.kind, len(first.players), confidence, absolute, tuple(notes))


def said(value: float, interval: tuple[float, float] | None = None) -> str:
    """A measure and its interval in words."""
    if np.isnan(value):
        return "undefined"
    known = interval is not None and not np.isnan(interval[0])
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]" if known and interval else f"{value:.2f}"


def _check(explanations: tuple[Explanation, ...], k: int, resamples: int, confidence: float) -> None:
    for found in explanations:
        if not isinstance(found, Explanation):
            star = "compare(*found.values())" if isinstance(found, Mapping) else "compare(*explanations)"
            raise TypeError(f"compare takes explanations one by one, got {type(found).__name__}: {star}")
    if len(explanations) < 2:
        raise ValueError(f"compare needs at least two explanations, got {len(explanations)}")
    for name, number in (("k", k), ("resamples", resamples), ("confidence", confidence)):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"{name} must be a number, got {number!r}")
    if k < 1 or resamples < 0 or not 0 < confidence < 1:
        raise ValueError(f"need k >= 1, resamples >= 0 and 0 < confidence < 1, got {k}, {resamples}, {confidence}")


def _labels(explanations: tuple[Explanation, ...]) -> tuple[str, ...]:
    """Method names, numbered where they come twice."""
    names = [found.method or "Explanation" for found in explanations]
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(f"{name} {seen[name]}" if names.count(name) > 1 else name)
    return tuple(labels)


def _keys(explanation: Explanation) -> list[tuple[int, ...]]:
    index = explanation.players.index
    return [tuple(row) for row in index.reshape(len(index), -1).tolist()] if len(index) else []


def _aligned(first: Explanation, other: Explanation, label: str) -> np.ndarray:
    """The other's scores in the order of the first one's players.

    Raises:
        ValueError: other players, or two of one index.
    """
    if other.players.kind != first.players.kind:
        raise ValueError(
            f"{label} shares credit among {other.players.kind}, {first.method} among {first.players.kind}: explain "
            f"both with the same players, e.g. {first.method or 'Shapley'}({other.players.kind!r})"
        )
    expected, found = _keys(first), {key: place for place, key in enumerate(_keys(other))}
    if len(found) < len(other.players) or len(set(expected)) < len(expected):
        raise ValueError("two players of one explanation have the same index: they cannot be aligned")
    if found.keys() != set(expected):
        missing, more = sorted(set(expected) - found.keys()), sorted(found.keys() - set(expected))
        raise ValueError(
            f"{label} is about other {first.players.kind}: {len(missing)} of {len(expected)} are missing "
            f"{_few(missing)}, {len(more)} are new {_few(more)}: explain the same target, or give each explainer the "
            "same Players"
        )
    return other.scores.numpy()[[found[key] for key in expected]]


def _few(keys: list[tuple[int, ...]]) -> str:
    shown = ", ".join("-".join(map(str, key)) for key in keys[:3])
    return f"({shown}{', …' if len(keys) > 3 else ''})" if keys else ""


def _questions(explanations: tuple[Explanation, ...], labels: tuple[str, ...]) -> list[str]:
    """What differs between the questions that were answered."""
    notes = []
    for name in ("removal", "payoff", "label", "baseline"):
        answers = [_asked(found, name) for found in explanations]
        known = {label: answer for label, answer in zip(labels, answers, strict=True) if answer is not None}
        if len({str(answer) for answer in known.values()}) > 1:
            told = ", ".join(f"{label} {answer}" for label, answer in known.items())
            notes.append(f"different questions: {name} is {told}; scores may differ for that reason alone")
    values = np.array([found.value for found in explanations])
    if np.ptp(values) > 1e-4 * np.abs(values).max():
        told = ", ".join(f"{label} {value:.4g}" for label, value in zip(labels, values, strict=True))
        notes.append(f"different questions: the explained number is {told}")
    return notes


def _asked(explanation: Explanation, name: str) -> Any:
    """What a method really answered, where it says so, else what was asked; nothing is taken away for bare shares."""
    if name == "removal" and name not in explanation.checks and "scores" in explanation.checks:
        return None
    return explanation.checks.get(name, explanation.target.get(name))


def _signs(explanations: tuple[Explanation, ...], labels: tuple[str, ...]) -> list[str]:
    """Methods that say in ``checks["scores"]`` what their scores are have no sign; the others have one."""
    bare = [label for label, found in zip(labels, explanations, strict=True) if "scores" in found.checks]
    if not bare or len(bare) == len(labels):
        return []
    return [
        f"scores of {', '.join(bare)} have no sign, those of the others do: compare(..., absolute=True) ranks by size"
    ]


def _constants(scores: list[np.ndarray], labels: tuple[str, ...]) -> list[str]:
    flat = [label for label, found in zip(labels, scores, strict=True) if len(found) < 2 or np.ptp(found) == 0]
    return [f"rank correlations with {', '.join(flat)} are undefined (NaN): its scores do not vary"] if flat else []


def _draws(players: int, resamples: int, seed: int) -> np.ndarray:
    """Positions ``[resamples, P]``, the same for every pair."""
    return np.random.default_rng(seed).integers(max(players, 1), size=(resamples, players))


def _agreement(
    labels: tuple[str, str], x: np.ndarray, y: np.ndarray, k: int, draws: np.ndarray, confidence: float
) -> Agreement:
    undefined = (float("nan"), float("nan"))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Agreement(*labels, *undefined, overlap(x, y, k), undefined, undefined)
    return Agreement(
        *labels,
        spearman=float(stats.spearmanr(x, y).statistic),
        kendall=float(stats.kendalltau(x, y).statistic),
        overlap=overlap(x, y, k),
        spearman_interval=_interval(spearman_resampled(x, y, draws), confidence),
        kendall_interval=_interval(kendall_resampled(x, y, draws), confidence),
    )


def overlap(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """``|top_k(x) and top_k(y)| / k``."""
    top = [set(np.argsort(-np.abs(scores), kind="stable")[:k].tolist()) for scores in (x, y)]
    return len(top[0] & top[1]) / len(top[0]) if len(x) else float("nan")


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentiles of the defined resamples."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def spearman_resampled(x: np.ndarray, y: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of ``draws [resamples, P]``; NaN where a resample is constant."""
    first, second = (stats.rankdata(scores[draws], axis=1) for scores in (x, y))
    first, second = (ranks - ranks.mean(1, keepdims=True) for ranks in (first, second))
    spread = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.divide((first * second).sum(1), spread, out=np.full(len(draws), np.nan), where=spread > 0)


def kendall_resampled(x: np.ndarray, y: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row of ``draws``, by how often each player was drawn.

    ``tau = sum_ij w_i w_j sgn(x_i - x_j) sgn(y_i - y_j) / sqrt(sum_ij w_i w_j [x_i != x_j] * the same of y)``
    """
    players = len(x)
    rows = np.arange(len(draws))[:, None]
    weights = np.zeros((len(draws), players))
    np.add.at(weights, (rows, draws), 1.0)
    totals: Any = np.zeros((3, len(draws)))
    for start in range(0, players, BLOCK):
        block = slice(start, start + BLOCK)
        one, other = (np.sign(scores[:, None] - scores[None, block]) for scores in (x, y))
        for total, pairs in zip(totals, (one * other, np.abs(one), np.abs(other)), strict=True):
            total += ((weights @ pairs) * weights[:, block]).sum(1)
    spread = np.sqrt(totals[1] * totals[2])
    return np.divide(totals[0], spread, out=np.full(len(draws), np.nan), where=spread > 0)
