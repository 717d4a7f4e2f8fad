"""The number under coalitions of features, patches or superpixels, and under small changes of them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explain.guard import evaluating, untouched
from explain.supervised.baselines import Reference
from explain.supervised.players import owner_of
from explain.types import Differentiable, Game, Masks, Players, Unsupported, Values

if TYPE_CHECKING:
    from explain.supervised.targets import ExampleTarget


def coalition_game(target: ExampleTarget, players: Players) -> Game:
    """``v(S) = mean_m number(fill_m(x, S))``: one forward pass holds coalitions times draws.

    Raises:
        ValueError: the players do not fit the example, see `owner_of`.
    """
    owner = owner_of(players, target.x.shape).to(target.x.device)
    baseline = target.baseline

    def evaluate(masks: Masks) -> Values:
        filled = baseline.fill(target.x, present_atoms(masks, owner))
        with untouched(target.module), torch.no_grad():
            numbers = target.numbers(filled.flatten(0, 1))
        return numbers.cpu().double().view(len(masks), baseline.draws).mean(1)

    with untouched(target.module), torch.no_grad():
        measured = baseline.checks(target.numbers)
    checks = {"value_function": baseline.formula, "batched": target.batching.independent, **measured}
    return Game(players, evaluate, batch_size=max(1, target.batching.rows // baseline.draws), checks=checks)


def gradient_question(target: ExampleTarget, players: Players) -> Differentiable:
    """The number as a function of the atoms, from the baseline's reference to the example.

    Raises:
        Unsupported: whole numbers, which have no derivative.

    Warns:
        UserWarning: absence is a background or a distribution, for which its mean stands here: another question.
    """
    if not target.x.is_floating_point():
        raise Unsupported(
            "token ids have no derivative: ask Shapley, Lime or Occlusion, or wrap what follows the embedding and give "
            "it the embedded tokens"
        )
    if not isinstance(target.baseline, Reference):
        warnings.warn(
            f"gradients start from one reference: the mean stands for the {target.baseline.removal} baseline",
            stacklevel=3,
        )

    def number(x: Tensor) -> Tensor:
        with evaluating(target.module):
            return target.numbers(x)

    owner = owner_of(players, target.x.shape).to(target.x.device)
    return Differentiable(target.x[None], target.baseline.reference[None], number, owner)


def present_atoms(masks: Masks, owner: Tensor) -> Tensor:
    """Which atoms a coalition keeps: ``[coalitions, P]``, ``[*atoms]`` -> bool ``[coalitions, *atoms]``.

    >>> present_atoms(torch.tensor([[True, False]]), torch.tensor([0, 1, 1, -1]))
    tensor([[ True, False, False,  True]])
    """
    everyone = torch.ones(len(masks), 1, dtype=torch.bool)
    padded = torch.cat([masks.cpu(), everyone], 1).to(owner.device)  # owner -1 reads the last column: always present
    return padded[:, owner]
