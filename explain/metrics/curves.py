"""The number while players leave or come, the most important ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from explain.explanation import Explanation
from explain.metrics.fidelity import ask, characterisation
from explain.metrics.ground_truth import distance
from explain.metrics.selection import count, expect, order
from explain.types import Target

SIZES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Curve:
    """``values [P + 1]``: the number after each player; ``area``: their mean height (the trapezoid rule on 0 to 1).

    To read it against: ``random``, the mean area of orders drawn at random, and ``at_random [P + 1]``, their mean
    values; on graphs ``by_distance [P + 1]``, the values where the nearest to the explained node are first.
    """

    values: np.ndarray
    area: float
    random: float
    at_random: np.ndarray | None = None
    by_distance: np.ndarray | None = None


def deletion(why: Explanation, target: Target, *, absolute: bool = False, draws: int = 8, seed: int = 0) -> Curve:
    """The number while the top players are taken away one by one: a low area is good (Petsiuk et al. 2018)."""
    return _curve(why, target, absolute, draws, seed, insert=False)


def insertion(why: Explanation, target: Target, *, absolute: bool = False, draws: int = 8, seed: int = 0) -> Curve:
    """The number while the top players come one by one to an empty input: a high area is good (Petsiuk et al. 2018).

    >>> import explain
    >>> net = torch.nn.Linear(3, 1, bias=False)
    >>> _ = torch.nn.init.constant_(net.weight, 1.0)
    >>> target = explain.wrap(net, task="regression").example(torch.tensor([1.0, 3.0, 2.0]))
    >>> insertion(explain.Shapley("features").explain(target), target).values
    array([0., 3., 5., 6.])
    """
    return _curve(why, target, absolute, draws, seed, insert=True)


def deletion_and_insertion(
    answers: Sequence[Explanation],
    target: Target,
    *,
    absolute: bool = False,
    draws: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> list[tuple[Curve, ...]]:
    """`deletion` and `insertion` of each of several answers over the same players; no coalition is asked about twice.

    Args:
        answers: about this target, over the same players; their random orders are the same.
        target: what is asked, again and again; its removal says what absent means.
        absolute: whether the largest absolute scores go first.
        draws: orders at random.
        seed: of these.
        progress: a bar, where it takes more than five seconds.

    Raises:
        ValueError: no answers, or players that are not the same.

    >>> import explain
    >>> target = explain.wrap(torch.nn.Linear(3, 1), task="regression").example(torch.ones(3))
    >>> answers = [explain.Shapley("features").explain(target), explain.Lime("features", samples=8).explain(target)]
    >>> [len(curves) for curves in deletion_and_insertion(answers, target)]
    [2, 2]
    """
    if not answers:
        raise ValueError("give at least one explanation")
    for why in answers:
        expect((why, Explanation), (target, Target))
        if why.players.names != answers[0].players.names:
            raise ValueError(f"{why.method} is about other players than {answers[0].method}: give each its own curves")
    return _curves(answers, target, absolute, draws, seed, (False, True), progress)


def fidelity_curve(
    why: Explanation,
    target: Target,
    sizes: Sequence[float] = SIZES,
    payoff: Any = "probability",
    absolute: bool = False,
) -> pd.DataFrame:
    """`fidelity` over sizes, one row each: size, kept, sparsity, plus, minus, characterisation."""
    expect((why, Explanation), (target, Target))
    ranks = order(why, absolute).argsort()
    kept = torch.tensor([count(len(ranks), size) for size in sizes])
    top = ranks[None] < kept[:, None]
    masks = torch.cat([torch.ones(1, len(ranks), dtype=torch.bool), ~top, top])
    values = ask(target, payoff).game(why.players)(masks)
    without, alone = values[1:].chunk(2)
    plus, minus = (values[0] - without).tolist(), (values[0] - alone).tolist()
    return pd.DataFrame(
        {
            "size": list(sizes),
            "kept": kept.tolist(),
            "sparsity": (1 - kept / max(len(ranks), 1)).tolist(),
            "plus": plus,
            "minus": minus,
            "characterisation": [characterisation(p, m) for p, m in zip(plus, minus, strict=True)],
        }
    )


def _curve(why: Explanation, target: Target, absolute: bool, draws: int, seed: int, insert: bool) -> Curve:
    expect((why, Explanation), (target, Target))
    ((curve,),) = _curves([why], target, absolute, draws, seed, [insert])
    return curve


def _curves(
    answers: Sequence[Explanation], target: Target, absolute: bool, draws: int, seed: int, ways: Sequence[bool],
    progress: bool = False,
) -> list[tuple[Curve, ...]]:  # fmt: skip
    """The curves of each answer, a way each; what is drawn is theirs together."""
    players, generator = answers[0].players, torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(len(players), generator=generator) for _ in range(draws)]
    near = distance(players)
    beside = drawn if near is None else [*drawn, near.argsort(descending=True, stable=True)]
    orders = [*(order(why, absolute) for why in answers), *beside]
    masks = torch.cat([_steps(each, insert) for insert in ways for each in orders])
    distinct, place = masks.unique(dim=0, return_inverse=True)  # none is asked about twice
    values = target.game(players)(distinct, progress)[place].reshape(len(ways), len(orders), -1).numpy()
    areas = (values[..., 1:] + values[..., :-1]).mean(-1) / 2 if len(players) else values[..., 0]
    chance = slice(len(answers), len(answers) + draws)
    return [
        tuple(
            Curve(
                of[i],
                float(area[i]),
                float(area[chance].mean()) if draws else float("nan"),
                of[chance].mean(0) if draws else None,
                None if near is None else of[-1],
            )
            for of, area in zip(values, areas, strict=True)
        )
        for i in range(len(answers))
    ]


def _steps(order: Tensor, insert: bool) -> Tensor:
    """Masks ``[P + 1, P]`` of an order in which players come, or leave."""
    arrived = order.argsort()[None] < torch.arange(len(order) + 1)[:, None]
    return arrived if insert else ~arrived
