"""The explainer in front of the estimators."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from explain.explainer import Answer, Explainer
from explain.shapley.estimate import Estimate, Estimator, relative_gap, warn_if_drowned
from explain.shapley.exact import exact_values
from explain.shapley.kernel import kernel_values
from explain.shapley.local import local_values
from explain.shapley.permutation import permutation_values
from explain.shapley.rounds import FIRST_ROUND, until_precise
from explain.shapley.settings import check_count, check_settings, chosen
from explain.shapley.stratified import stratified_values
from explain.types import Game, Players, Target

ESTIMATORS: dict[str, Estimator] = {
    "exact": exact_values,
    "kernel": kernel_values,
    "local": local_values,
    "permutation": permutation_values,
    "stratified": stratified_values,
}


@dataclass(frozen=True)
class Shapley(Explainer):
    r"""Shapley values: the one fair share of ``v(all) - v(empty)`` among the players (Shapley 1953).

    ``phi_i = sum over S without i of  |S|! (P - |S| - 1)! / P!  (v(S + i) - v(S))``

    They add up to ``v(all) - v(empty)``; a player that never matters gets zero; interchangeable players get the same.

    Not for: many players on a small budget, whose standard errors are as large as their credit; nor what one
    deletion does, which is `Occlusion`'s question.

    Args:
        players: a kind such as "edges", or `Players`.
        estimator: "exact" (to 22 players), "kernel" (paired KernelSHAP), "stratified" (by size and membership, on what
            the kernel regression leaves), "permutation" (antithetic), "local" (exact for the logit of a whole graph by
            nodes where the readout is linear, see `local_values`), or "auto": exact when ``2^P <= samples``, or when
            ``samples`` is None and ``P <= 16``; otherwise kernel. One player or none is always exact.
        samples: budget of model evaluations, at least ``6 P`` for "kernel" and "stratified", ``8 P`` for "permutation";
            None: 2048, or ``8 P`` if that is more; "auto": rounds until the tolerance is met.
        seed: an int, a `torch.Generator`, or None for a fresh seed. The same seed, samples and number of players mean
            the same coalitions, which "kernel" and "stratified" remember: many targets in a row are faster with one.
        progress: a bar where it takes more than five seconds.
        tolerance: of ``samples="auto"``: the 95 % interval, relative to the scores (root sum of squares of each).
        limit: of ``samples="auto"``: the most samples.

    The answer's ``error`` is one standard error of each score over the draw, None where the scores are exact. Its
    ``checks`` hold ``estimator``, ``coalitions`` (evaluated), ``efficiency_gap`` (``|sum phi - (v(all) - v(empty))|``
    relative to the larger of ``|v(all)|``, ``|v(empty)|``; rounding only, by construction of each estimator) and
    ``largest_error``; from kernel ``r2``, how additive the game is, and ``complete_sizes``, the coalition sizes
    enumerated; from permutation ``permutations``; with ``samples="auto"`` also ``rounds``, ``interval`` and ``stopped``
    (see `until_precise`); and all that the game measured about itself.

    Raises:
        ValueError: an unknown estimator, too small a budget, or too many players for "exact".

    Warns:
        UserWarning: the standard errors are over half as large as the scores (root sum of squares of each), or
            ``samples="auto"`` reached its limit.

    >>> from explain.types import Game
    >>> class Pair(Target):
    ...     module = torch.nn.Identity()
    ...     def game(self, players):
    ...         return Game(Players(players, torch.arange(3)), lambda masks: 6.0 * masks[:, :2].all(1))
    ...     def describe(self):
    ...         return {"asked": "are 0 and 1 both there?"}
    >>> Shapley("nodes").explain(Pair()).scores
    tensor([3., 3., 0.], dtype=torch.float64)
    """

    players: str | Players
    estimator: str = "auto"
    samples: int | str | None = None
    seed: int | torch.Generator | None = None
    progress: bool = True
    tolerance: float = 0.05
    limit: int = 2**16

    def __post_init__(self) -> None:
        if isinstance(self.samples, str) and self.samples != "auto":
            raise ValueError(f'samples must be an int, "auto" or None, got {self.samples!r}')
        samples = None if isinstance(self.samples, str) else self.samples
        check_settings(self.players, self.estimator, ESTIMATORS, samples)
        check_count("limit", self.limit)
        numeric = isinstance(self.tolerance, (int, float)) and not isinstance(self.tolerance, bool)
        if not numeric or not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance must be a positive number, got {self.tolerance!r}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        game = target.game(self.players)
        players = len(game.players)
        name = self._choice(players)
        before = game.calls
        estimate = self._estimate(name, game, generator)
        own = {"estimator": name, "coalitions": game.calls - before, **_proof(estimate), **estimate.checks}
        return Answer(
            scores=estimate.scores,
            players=game.players,
            value=estimate.value,
            base=estimate.base,
            error=estimate.error,
            checks={**game.checks, **own},
            calls=game.calls,
        )

    def _estimate(self, name: str, game: Game, generator: torch.Generator) -> Estimate:
        estimator = ESTIMATORS[name]
        if self.samples == "auto" and name != "exact":
            return until_precise(estimator, game, self.tolerance, self.limit, generator, self.progress)
        samples = self.samples if isinstance(self.samples, int) else max(2048, 8 * len(game.players))
        return estimator(game, samples, generator, self.progress)

    def _choice(self, players: int) -> str:
        samples = FIRST_ROUND if isinstance(self.samples, str) else self.samples
        return chosen(self.estimator, players, samples, "kernel")


def _proof(found: Estimate) -> dict[str, Any]:
    """The efficiency gap and the largest standard error."""
    largest = warn_if_drowned(found.scores, found.error, found, "Shapley values")
    return {"efficiency_gap": relative_gap(found), "largest_error": largest}
