"""Whether an explanation stays where it should, and changes where it must."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from explain.comparison import overlap
from explain.explainer import Explainer
from explain.explanation import Explanation
from explain.metrics.selection import expect
from explain.types import Players, Target

TRIES = 20  # noisy inputs drawn for each that is used: those that change the predicted class are left out


@dataclass(frozen=True)
class Stability:
    """How alike explanations are, means over pairs.

    ``spearman``: of the scores, -1 to 1. ``cosine``: one less the graph explanation stability of Agarwal et al. (2023).
    ``overlap``: share of the ``k`` top players that both name. ``sensitivity``: the largest ``|phi' - phi| / |phi|``
    (Yeh et al. 2019; not divided where ``phi`` is zero). ``worst``: the lowest Spearman. ``pairs``: how many pairs.
    """

    spearman: float
    cosine: float
    overlap: float
    sensitivity: float
    worst: float
    pairs: int


def stability(
    explainer: Explainer, target: Target, *, repeats: int = 5, scale: float = 0.05, k: int = 5, seed: int = 0
) -> Stability:
    """The explanation against those of slightly noisy inputs on which the predicted class stays; high is good.

    ``sensitivity`` is captum's ``sensitivity_max`` of this noise.

    Args:
        explainer: with a fixed seed, so that only the input moves.
        target: what is explained; without classes, every noisy input counts.
        repeats: noisy inputs.
        scale: the noise, as a share of each feature's spread.
        k: top players compared.
        seed: of the noise.

    Raises:
        ValueError: no noisy input keeps the predicted class: lower the scale.
    """
    expect((explainer, Explainer), (target, Target))
    _at_least(repeats, 1)
    generator = torch.Generator().manual_seed(seed)
    why = explainer.explain(target)
    pinned = _pinned(explainer, why.players)
    others = [pinned.explain(noisy) for noisy in _same_class(target, generator, repeats, scale)]
    return _alike([(why, other) for other in others], k)


def reproducibility(explainer: Explainer, target: Target, *, repeats: int = 5, k: int = 5, seed: int = 0) -> Stability:
    """Explanations of the same target from different seeds, each pair; high is good, and 1 where nothing is drawn."""
    expect((explainer, Explainer), (target, Target))
    _at_least(repeats, 2)
    runs = [_seeded(explainer, seed + i).explain(target) for i in range(repeats)]
    return _alike(list(itertools.combinations(runs, 2)), k)


def randomisation(explainer: Explainer, target: Target, *, repeats: int = 3, k: int = 5, seed: int = 0) -> Stability:
    """The explanation against those of networks that have learned nothing (Adebayo et al. 2018); *low* is good.

    An explanation that stays when the parameters are shuffled does not hang on what the network has learned.
    """
    expect((explainer, Explainer), (target, Target))
    _at_least(repeats, 1)
    generator = torch.Generator().manual_seed(seed)
    why = explainer.explain(target)
    pinned = _pinned(explainer, why.players)
    return _alike([(why, pinned.explain(target.randomised(generator))) for _ in range(repeats)], k)


def _same_class(target: Target, generator: torch.Generator, repeats: int, scale: float) -> list[Target]:
    drawn = (target.perturbed(generator, scale) for _ in range(repeats * TRIES))
    if not target.has_classes:
        return list(itertools.islice(drawn, repeats))
    predicted = target.predicted()
    found = list(itertools.islice((noisy for noisy in drawn if noisy.predicted() == predicted), repeats))
    if not found:
        raise ValueError(f"none of {repeats * TRIES} noisy inputs keeps the predicted class: lower scale={scale}")
    return found


def _pinned(explainer: Explainer, players: Players) -> Explainer:
    """The same explainer asked for exactly these players, so that explanations can be held against each other."""
    return _replaced(explainer, players=players) if hasattr(explainer, "players") else explainer


def _seeded(explainer: Explainer, seed: int) -> Explainer:
    return _replaced(explainer, seed=seed) if hasattr(explainer, "seed") else explainer


def _replaced(explainer: Explainer, **settings: Any) -> Explainer:
    return dataclasses.replace(explainer, **settings)


def _at_least(repeats: int, least: int) -> None:
    if repeats < least:
        raise ValueError(f"repeats must be at least {least}, got {repeats}")


def _alike(pairs: list[tuple[Explanation, Explanation]], k: int) -> Stability:
    def each(measure: Callable[[Tensor, Tensor], float]) -> np.ndarray:
        return np.array([measure(first.scores, second.scores) for first, second in pairs])

    ranks = each(_spearman)
    return Stability(
        float(ranks.mean()),
        float(each(_cosine).mean()),
        float(each(lambda a, b: overlap(a.numpy(), b.numpy(), k)).mean()),
        float(each(lambda a, b: float((b - a).norm() / (a.norm() or 1.0))).max()),
        float(ranks.min()),
        len(pairs),
    )


def _spearman(a: Tensor, b: Tensor) -> float:
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():  # no ranks: the same answer or not
        return 1.0 if torch.allclose(a, b) else 0.0
    return float(stats.spearmanr(a.numpy(), b.numpy()).statistic)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-300)) if a.any() or b.any() else 1.0
