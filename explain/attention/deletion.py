"""Whether what is looked at most matters most: it is taken away, and another in its stead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from explain.types import Players, Target, Unsupported


def deletion(
    target: Target, players: Players, scores: Tensor, may: list[int], value: float, generator: torch.Generator
) -> dict[str, Any]:
    """``v(N without i) - v(N)`` for the player with the highest score, and for another at random.

    Attention that explains the number makes the first the larger one. Empty where there are not two, or none can play.

    Args:
        target: the number.
        players: who is looked at.
        scores: how much, ``[P]``.
        may: positions of the players that are looked at at all.
        value: ``v(N)``.
        generator: who the other one is.
    """
    if len(may) < 2:
        return {}
    try:
        game = target.game(players)
    except (Unsupported, ValueError) as refusal:
        return {"deletion": f"not done: {refusal}"}
    top = max(may, key=lambda i: float(scores[i]))
    others = [i for i in may if i != top]
    other = others[int(torch.randint(len(others), (1,), generator=generator))]
    masks = torch.ones(2, len(players), dtype=torch.bool)
    masks[0, top] = masks[1, other] = False
    without_top, without_other = (float(number) - value for number in game(masks))
    return {
        "top": players.names[top],
        "change_without_top": without_top,
        "other": players.names[other],
        "change_without_other": without_other,
    }
