"""Whether the top players are needed, and whether they are enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explain.explanation import Explanation
from explain.metrics.selection import expect, selected
from explain.types import Target, Unsupported


@dataclass(frozen=True)
class Fidelity:
    """``plus``: what is lost without the top players (high is good). ``minus``: what is lost with them alone (low).

    ``characterisation``: their weighted harmonic mean, 0 to 1. ``kept``: how many players were taken; ``sparsity``: the
    share that was left out.
    """

    plus: float
    minus: float
    characterisation: float
    kept: int
    sparsity: float


def fidelity(
    why: Explanation, target: Target, size: float = 0.2, payoff: Any = "probability", absolute: bool = False
) -> Fidelity:
    """``fid+ = v(N) - v(N - S)``, ``fid- = v(N) - v(S)`` for the top players ``S`` (Amara et al. 2022).

    Args:
        why: an explanation of the target.
        target: asked again; its removal and baseline say what absent means. Its label is the model's own, or the true
            one where it was given.
        size: how many players are in ``S``, or which share of them.
        payoff: "probability", "label" (1 where the predicted class is the target's, else 0; of several yes or no where
            that to its label stays what it is), or another payoff.
        absolute: whether the largest absolute scores are the top ones.

    Raises:
        TypeError: no explanation, or no target.
        ValueError: a payoff that the target does not have: of a regression take "logit", its output.
        Unsupported: the target cannot be asked about another number, or about its label where it has no classes.

    >>> import explain
    >>> net = torch.nn.Linear(3, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [3.0, 1.0, -1.0]]))
    >>> target = explain.wrap(net, task="classification").example(torch.ones(3), 1)
    >>> fidelity(explain.Shapley("features").explain(target), target, size=1, payoff="logit")
    Fidelity(plus=3.0, minus=0.0, characterisation=1.0, kept=1, sparsity=0.666...)
    """
    expect((why, Explanation), (target, Target))
    top = selected(why, size, absolute)
    everyone = torch.ones_like(top)
    whole, without, alone = ask(target, payoff).game(why.players)(torch.stack([everyone, ~top, top])).tolist()
    plus, minus, kept = whole - without, whole - alone, int(top.sum())
    return Fidelity(plus, minus, characterisation(plus, minus), kept, 1 - kept / max(len(top), 1))


def characterisation(plus: float, minus: float, weight: float = 0.5) -> float:
    """``1 / (w / fid+ + (1 - w) / (1 - fid-))``, 0 to 1; both are first brought between 0 and 1.

    A fidelity+ of nothing, or a fidelity- of everything, makes it 0.

    Raises:
        ValueError: a weight out of range.

    >>> characterisation(0.5, 0.5), characterisation(0.0, 0.2), characterisation(0.8, -0.1)
    (0.5, 0.0, 0.888...)
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be from 0 to 1, got {weight}")
    needed, enough = (min(max(share, 0.0), 1.0) for share in (plus, 1 - minus))
    if needed == 0 or enough == 0:
        return 0.0
    return 1 / (weight / needed + (1 - weight) / enough)


def unfaithfulness(why: Explanation, target: Target, size: float = 0.2, absolute: bool = False) -> float:
    """``1 - exp(-KL(p || q))``: how far what the model says of classes moves with the top players alone, 0 to 1.

    ``p`` is the model's answer with every player and ``q`` with the top ones, so that what the model says weighs the
    divergence (Agarwal et al. 2023, graph explanation faithfulness). Of several labels that do not exclude one another
    the divergences add up. It is 1 where the top ones alone rule out what the model says may be.

    Raises:
        Unsupported: the target has no classes.
    """
    expect((why, Explanation), (target, Target))
    if not target.has_classes:
        raise Unsupported("unfaithfulness is about a distribution over classes, and this target has none: use fidelity")
    top = selected(why, size, absolute)

    def moved(outputs: Tensor) -> Tensor:
        return -torch.expm1(-target.divergence(outputs.double()).clamp_min(0))

    return float(target.asking(moved).game(why.players)(top[None]))


def ask(target: Target, payoff: Any) -> Target:
    """The target with another number, "label" being whether the class is still the predicted one."""
    return target.asking(_still(target) if payoff == "label" else payoff)


def _still(target: Target) -> Callable[[Tensor], Tensor]:
    if not target.has_classes:
        raise Unsupported('payoff="label" asks which class is predicted, and this target has no classes: use "logit"')
    stands = True  # what is decided on the true class, where another one was predicted, is whether it is that one
    if target.decision()[0] == getattr(target, "label", None):
        stands = bool(target.decides(target.run()[:1]))  # of several yes or no also a no
    return lambda outputs: (target.decides(outputs) == stands).double()
