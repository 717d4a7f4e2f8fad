"""Banzhaf values: what a player adds to a coalition when every coalition is as likely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explain.explainer import Answer, Explainer
from explain.shapley.estimate import Estimate, Estimator, relative_gap, warn_if_drowned
from explain.shapley.exact import table_of
from explain.shapley.settings import check_settings, chosen
from explain.types import Game, Masks, Players, Scores, Target, Values

_LEAST = 64  # samples below which a player may be in all of them, or in none


@dataclass(frozen=True)
class Banzhaf(Explainer):
    r"""Banzhaf values (Banzhaf 1965): ``beta_i = 2^-(P-1) sum over S without i of  v(S + i) - v(S)``.

    Unlike Shapley values they do not add up to ``v(all) - v(empty)``, and their order is the least disturbed by noise
    in the number (Wang, Jia 2023). In the number's own units.

    Not for: shares that are to add up to the number.

    Args:
        players: a kind such as "edges", or `Players`.
        estimator: "exact" (to 22 players); "reuse", maximum sample reuse (Wang, Jia 2023): the mean number with the
            player less the mean without, over the same random coalitions; "regression", the least squares whose answer
            they are, on coalitions paired with their complements (Liu et al. 2024); or "auto": exact when
            ``2^P <= samples``, or when ``samples`` is None and ``P <= 16``; otherwise regression.
        samples: budget of model evaluations, at least 64 for "reuse", ``6 P + 2`` for "regression"; None: 2048, or
            ``8 P`` if that is more.
        seed: an int, a `torch.Generator`, or None for a fresh seed.
        progress: a bar where it takes more than five seconds.

    The answer's ``error`` is one standard error of each score over the draw, None where the scores are exact. Its
    ``checks``: ``estimator``; ``coalitions``; ``additivity_gap``, ``|sum scores - (v(all) - v(empty))|`` relative to
    the larger of ``|v(all)|`` and ``|v(empty)|``; ``largest_error``; and all that the game measured about itself.

    Raises:
        ValueError: an unknown estimator, too small a budget, or too many players for "exact".

    Warns:
        UserWarning: the standard errors are over half as large as the scores (root sum of squares of each).

    >>> from explain.types import Game
    >>> class Majority(Target):
    ...     module = torch.nn.Identity()
    ...     def game(self, players):
    ...         return Game(Players(players, torch.arange(3)), lambda masks: (masks.sum(1) >= 2).double())
    ...     def describe(self):
    ...         return {"asked": "are there two of three?"}
    >>> Banzhaf("nodes").explain(Majority()).scores
    tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """

    players: str | Players
    estimator: str = "auto"
    samples: int | None = None
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        check_settings(self.players, self.estimator, ESTIMATORS, self.samples)

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        game = target.game(self.players)
        players, before = len(game.players), game.calls
        name = chosen(self.estimator, players, self.samples, "regression")
        samples = max(2048, 8 * players) if self.samples is None else self.samples
        found = ESTIMATORS[name](game, samples, generator, self.progress)
        own = {"estimator": name, "coalitions": game.calls - before, **found.checks}
        return Answer(
            scores=found.scores,
            players=game.players,
            value=found.value,
            base=found.base,
            error=found.error,
            checks={**game.checks, **own, **_proof(found)},
            calls=game.calls,
        )


def _proof(found: Estimate) -> dict[str, float | None]:
    """How far the scores are from adding up, and the largest standard error."""
    largest = warn_if_drowned(found.scores, found.error, found, "Banzhaf values")
    return {"additivity_gap": relative_gap(found), "largest_error": largest}


def banzhaf_values(table: Values) -> Scores:
    """Banzhaf values ``[P]`` of a game given as its table ``v [2^P]``, where bit ``i`` of a position is player ``i``.

    >>> banzhaf_values(torch.tensor([0., 0., 0., 6.], dtype=torch.float64))  # both are needed
    tensor([3., 3.], dtype=torch.float64)
    """
    players = len(table).bit_length() - 1
    scores = torch.empty(players, dtype=torch.float64)
    for player in range(players):
        without, joined = table.view(-1, 2, 2**player).unbind(1)
        scores[player] = (joined - without).mean()
    return scores


def _exact(game: Game, samples: int, generator: torch.Generator, progress: bool) -> Estimate:
    table = table_of(game, progress, '"regression" or "reuse"')
    return Estimate(banzhaf_values(table), None, float(table[0]), float(table[-1]), {})


def _reuse(game: Game, samples: int, generator: torch.Generator, progress: bool) -> Estimate:
    """Mean with the player less mean without; the error is that of a difference of two means.

    Raises:
        ValueError: too few samples.
    """
    if samples < _LEAST:
        raise ValueError(f"reuse needs samples={_LEAST} or more, got {samples}")
    base, value = game.ends()
    masks = torch.rand(samples - 2, len(game.players), generator=generator) < 0.5
    values = game(masks, progress)
    inside = torch.stack([masks, ~masks]).double()  # [2, coalitions, P]
    counts = inside.sum(1)
    means = torch.einsum("c,kcp->kp", values, inside) / counts
    beyond = (values[:, None] - means[:, None]) * inside
    variance = beyond.square().sum(1) / (counts * (counts - 1))
    return Estimate(means[0] - means[1], variance.sum(0).sqrt(), base, value, {})


def _regression(game: Game, samples: int, generator: torch.Generator, progress: bool) -> Estimate:
    return paired_regression(game, samples, generator, progress, "regression")[0]


def paired_regression(
    game: Game, samples: int, generator: torch.Generator, progress: bool, estimator: str
) -> tuple[Estimate, Masks, Values]:
    """Least squares of ``v(S) - v(complement)`` on the signs of membership, every coalition as likely.

    With the coalitions ``S [pairs, P]`` and ``v(S) + v(complement) [pairs]``.

    Raises:
        ValueError: too few samples.
    """
    players = len(game.players)
    least = 6 * players + 2
    if samples < least:
        raise ValueError(f"{estimator} needs samples={least} or more for {players} players, got {samples}")
    base, value = game.ends()
    masks = torch.rand((samples - 2) // 2, players, generator=generator) < 0.5
    small, large = game(torch.cat([masks, ~masks]), progress).chunk(2)
    scores, error = least_squares(2 * masks.double() - 1, small - large)
    return Estimate(scores, error, base, value, {}), masks, small + large


def least_squares(signs: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of ``answers [rows]`` on ``signs [rows, columns]``, and their standard errors (HC3)."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(signs.T @ signs))
    response = signs @ inverse
    coefficients = answers @ response
    leverage = (response * signs).sum(1)
    outside = (answers - signs @ coefficients) / (1 - leverage).clamp(min=1e-10)
    return coefficients, (outside.square() @ response.square()).sqrt()


ESTIMATORS: dict[str, Estimator] = {"exact": _exact, "reuse": _reuse, "regression": _regression}
