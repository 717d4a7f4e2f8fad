"""Which training examples help the model with this number, and which harm it."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.explanation import Explanation


def helpful(why: Explanation, k: int = 5, label: int | None = None) -> Tensor:
    """Positions of the ``k`` most helpful training examples, int64, the most helpful first; see `harmful`."""
    return _ranked(why, k, label, best=True)


def harmful(why: Explanation, k: int = 5, label: int | None = None) -> Tensor:
    """Positions of the ``k`` most harmful training examples, int64, the most harmful first; fewer where fewer are.

    An example is harmful if it pushes the number the wrong way: up for the payoff "loss", else down. With ``label``
    only examples of that class count: one of the very class that is asked for may well be harmful (Koh and Liang 2017,
    figure 1).

    Args:
        why: an explanation over training examples.
        k: the most there may be.
        label: their class.

    Raises:
        ValueError: players that are not training examples, no classes, or no such class among them.

    >>> from explain.types import Players
    >>> players = Players("train", torch.arange(4), geometry={"classes": torch.tensor([0, 1, 1, 1])})
    >>> why = Explanation(torch.tensor([3.0, 2.0, -1.0, 1.0]), players, value=0.5, target={"payoff": "loss"})
    >>> harmful(why), harmful(why, label=1), helpful(why)
    (tensor([0, 1, 3]), tensor([1, 3]), tensor([2]))
    """
    return _ranked(why, k, label, best=False)


def _ranked(why: Explanation, k: int, label: int | None, best: bool) -> Tensor:
    if why.players.kind != "train":
        raise ValueError(f"training examples are helpful or harmful; these players are {why.players.kind}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    harm = why.scores if why.target.get("payoff") == "loss" else -why.scores
    credit = -harm if best else harm
    order = credit.argsort(descending=True, stable=True)
    order = order[credit[order] > 0]
    if label is not None:
        order = order[_classes(why, label)[order]]
    return order[:k]


def _classes(why: Explanation, label: int) -> Tensor:
    classes = why.players.geometry.get("classes")
    if classes is None:
        raise ValueError("these training examples have no classes: leave label out")
    found = torch.as_tensor(classes) == label
    if not found.any():
        raise ValueError(f"label must be one of the training classes {classes.unique().tolist()}, got {label!r}")
    return found
