"""Pairwise interactions as an explainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from explain.explainer import Answer, Explainer
from explain.shapley.banzhaf import banzhaf_values, paired_regression
from explain.shapley.estimate import Estimate, relative_gap, warn_if_drowned
from explain.shapley.exact import shapley_values, table_of
from explain.shapley.interaction_indices import FITTED, Pairwise, interactions_of, sampled_banzhaf, sampled_shapley
from explain.shapley.kernel import regression
from explain.shapley.local import local_game
from explain.shapley.settings import check_settings, chosen
from explain.shapley.stratified import adjusted
from explain.spelling import came
from explain.types import Game, Players, Target

INDICES = ("shapley", "banzhaf")
MOST_SAMPLED = 500  # players whose pairs the default budget can tell apart, and that take seconds
ESTIMATORS = ("exact", "local", "stratified")


@dataclass(frozen=True)
class Interactions(Explainer):
    r"""What two players add together beyond what each adds alone, on average over the others.

    ``I_ij = sum over S without i, j of  w(|S|) (v(S + i + j) - v(S + i) - v(S + j) + v(S))``, with
    ``w(s) = s! (P - s - 2)! / (P - 1)!`` for the Shapley interaction index (Grabisch, Roubens 1999) and
    ``w = 2^-(P-2)`` for the Banzhaf interaction index. Positive: they need each other. Negative: one stands in for the
    other. In the number's own units.

    The ``scores`` are the Shapley (or Banzhaf) values. ``parts["interactions"]``, float64 ``[P, P]``, symmetric, holds
    ``I_ij`` beside the diagonal and on it the main effects ``phi_i - 1/2 sum over j of I_ij`` (order 2 of the n-Shapley
    values of Bordt, von Luxburg 2023), so that half of each interaction belongs to each of the two. With samples,
    ``parts["interactions_error"]``, ``[P, P]``, is one standard error of each ``I_ij``, and on the diagonal the most
    that of the main effect can be, a sum of ``P`` errors: of many players hardly any is told from zero.

    Not for: more than some dozens of players, whose pairs no budget tells from zero.

    Args:
        players: a kind such as "nodes", or `Players`.
        index: "shapley" or "banzhaf".
        estimator: "exact" (to 22 players); "stratified", means by size and membership of what a regression leaves, each
            coalition used for every pair of players (Kolpaczki et al. 2024); for "banzhaf" that regression itself;
            "local", exact for the logit of a whole graph by nodes where the readout is linear (see `local_values`); or
            "auto": exact when ``2^P <= samples``, or when ``samples`` is None and ``P <= 16``; otherwise stratified.
        samples: budget of model evaluations, at least ``6 P + 2``; the quadratic regression, and with it most of the
            precision, needs ``2 P^2`` and at most 100 players. None: ``2 P^2`` of at most 100 players, or 2048 if it is
            more; of more players 20000, or ``8 P`` if it is more.
        seed: an int, a `torch.Generator`, or None for a fresh seed.
        progress: a bar where it takes more than five seconds.

    Its ``checks``: ``estimator``; ``coalitions``; ``efficiency_gap``, between ``v(all) - v(empty)`` and the sum of all
    main effects and interactions, relative to the larger of ``|v(all)|`` and ``|v(empty)|`` (rounding for "shapley");
    ``largest_error``, of the scores, and ``largest_interaction_error``; and all that the game measured about itself.

    Raises:
        ValueError: an unknown index or estimator, too small a budget, or too many players for "exact", or for the
            default budget of samples (500).

    Warns:
        UserWarning: the standard errors are over half as large as the interactions (root sum of squares of each).

    >>> from explain.types import Game
    >>> class Pair(Target):
    ...     module = torch.nn.Identity()
    ...     def game(self, players):
    ...         return Game(Players(players, torch.arange(3)), lambda masks: 6.0 * masks[:, :2].all(1) + masks[:, 2])
    ...     def describe(self):
    ...         return {"asked": "are 0 and 1 both there? and 2?"}
    >>> why = Interactions("nodes").explain(Pair())
    >>> why.scores, why.parts["interactions"]
    (tensor([3., 3., 1.], dtype=torch.float64), tensor([[0., 6., 0.],
        [6., 0., 0.],
        [0., 0., 1.]], dtype=torch.float64))
    """

    players: str | Players
    index: str = "shapley"
    estimator: str = "auto"
    samples: int | None = None
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        check_settings(self.players, self.estimator, ESTIMATORS, self.samples)
        if self.index not in INDICES:
            raise ValueError(f"index must be one of {', '.join(INDICES)}, {came(self.index, INDICES)}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        game = target.game(self.players)
        before, players = game.calls, len(game.players)
        name = chosen(self.estimator, players, self.samples, "stratified")
        if name == "stratified" and self.samples is None and players > MOST_SAMPLED:
            raise ValueError(
                f"{players} players have {players * (players - 1) // 2} pairs, which no affordable number of samples "
                f"tells from zero: take up to {MOST_SAMPLED}, such as groups of them as a Players, give samples= of "
                f"your own, or ask Shapley({game.players.kind!r}) for the values alone"
            )
        find = {"exact": self._exact, "local": self._local, "stratified": self._sampled}[name]
        values, pairwise = find(game, generator)
        matrix = pairwise.interactions.clone()
        matrix.diagonal().copy_(values.scores - pairwise.interactions.sum(1) / 2)
        own = {"estimator": name, "coalitions": game.calls - before, **values.checks, **_proof(values, pairwise)}
        parts = {"interactions": matrix}
        if pairwise.error is not None:
            own_error = torch.zeros(players).double() if values.error is None else values.error
            parts["interactions_error"] = pairwise.error + (own_error + pairwise.error.sum(1) / 2).diag()
        return Answer(
            scores=values.scores,
            players=game.players,
            value=values.value,
            base=values.base,
            error=values.error,
            parts=parts,
            checks={**game.checks, **own},
            calls=game.calls,
        )

    def _exact(self, game: Game, generator: torch.Generator) -> Found:
        table = table_of(game, self.progress, '"stratified"')
        scores = shapley_values(table) if self.index == "shapley" else banzhaf_values(table)
        values = Estimate(scores, None, float(table[0]), float(table[-1]), {})
        return Found(values, Pairwise(interactions_of(table, self.index), None))

    def _local(self, game: Game, generator: torch.Generator) -> Found:
        found = local_game(game, generator, self.progress)
        values = found.estimate(found.effects(self.index))
        return Found(values, Pairwise(found.interactions(self.index), None))

    def _sampled(self, game: Game, generator: torch.Generator) -> Found:
        players = len(game.players)
        samples = max(2048, 2 * min(players, FITTED) ** 2, 8 * players) if self.samples is None else self.samples
        if self.index == "shapley":
            return _shapley(game, samples, generator, self.progress)
        return _banzhaf(game, samples, generator, self.progress)


class Found(NamedTuple):
    """Values of the players, and what pairs of them add."""

    values: Estimate
    pairwise: Pairwise


def _shapley(game: Game, samples: int, generator: torch.Generator, progress: bool) -> Found:
    fit = regression(game, samples, generator, progress, "stratified")
    pairs = fit.drawn.pairs
    found = sampled_shapley(pairs.masks, fit.sums, pairs.weights, pairs.unseen, fit.base + fit.value)
    return Found(adjusted(fit), found)


def _banzhaf(game: Game, samples: int, generator: torch.Generator, progress: bool) -> Found:
    values, masks, sums = paired_regression(game, samples, generator, progress, "stratified")
    return Found(values, sampled_banzhaf(masks, sums))


def _proof(values: Estimate, pairwise: Pairwise) -> dict[str, float | None]:
    """How far all effects are from adding up, and the largest standard errors."""
    return {
        "efficiency_gap": relative_gap(values),
        "largest_error": None if values.error is None else float(values.error.max()),
        "largest_interaction_error": warn_if_drowned(pairwise.interactions, pairwise.error, values, "interactions"),
    }
