"""The number under coalitions of features, patches or superpixels, and under small changes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.guard import evaluating, untouched
from explain.supervised.baselines import Baseline, Reference
from explain.supervised.number import ExampleNumber
from explain.supervised.players import owner_of
from explain.types import Differentiable, Game, Masks, Players, Unsupported, Values, present_atoms


def coalition_game(number: ExampleNumber, baseline: Baseline, players: Players) -> Game:
    """``v(S) = mean_m number(fill_m(x, S))``: one forward pass holds coalitions times draws.

    Raises:
        ValueError: the players do not fit the example, see `owner_of`.
    """
    owner = owner_of(players, number.x.shape).to(number.x.device)

    def evaluate(masks: Masks) -> Values:
        filled = baseline.fill(number.x, present_atoms(masks, owner))
        with untouched(number.model.module), torch.no_grad():
            numbers = number.numbers(filled.flatten(0, 1))
        return numbers.cpu().double().view(len(masks), baseline.draws).mean(1)

    with untouched(number.model.module), torch.no_grad():
        measured = baseline.checks(number.numbers)
    checks = {"value_function": baseline.formula, "batched": number.batching.independent, **measured}
    return Game(players, evaluate, batch_size=max(1, number.batching.rows // baseline.draws), checks=checks)


def differentiable(number: ExampleNumber, baseline: Baseline, players: Players) -> Differentiable:
    """The number as a function of the atoms, from the baseline's reference to the example.

    Raises:
        Unsupported: whole numbers, which have no derivative.

    Warns:
        UserWarning: absence is a background or a distribution, for which its mean stands here: another question.
    """
    if not number.x.is_floating_point():
        raise Unsupported(
            "token ids have no derivative: ask Shapley, Lime or Occlusion, or wrap what follows the embedding and give "
            "it the embedded tokens"
        )
    if not isinstance(baseline, Reference):
        doubt(f"gradients start from one reference: the mean stands for the {baseline.removal} baseline")

    def numbers(x: Tensor) -> Tensor:
        with evaluating(number.model.module):
            return number.numbers(x)

    owner = owner_of(players, number.x.shape).to(number.x.device)
    return Differentiable(number.x[None], baseline.reference[None], numbers, owner)
