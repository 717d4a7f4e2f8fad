"""LIME: a weighted linear surrogate of the number, near the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lime.lime_base import LimeBase
from sklearn.linear_model import Ridge
from torch import Tensor

from explain.doubts import doubt
from explain.explainer import Answer, Explainer
from explain.types import Game, Masks, Players, Scores, Target, Values

_CONSTANT = 1e-12  # spread below this share of the number is rounding
_SHRUNK = 0.1  # where the ridge takes more than this share of a coefficient, it and not the data decides


@dataclass(frozen=True)
class Lime(Explainer):
    r"""LIME (Ribeiro, Singh, Guestrin 2016): coefficients of a weighted linear fit to the number on random coalitions.

    ``beta = argmin sum over masks z of w(z) (v(z) - c - z beta)^2 + ridge |beta|^2``, with the weight
    ``w(z) = sqrt(exp(-D(z)^2 / kernel_width^2))`` and the cosine distance from the whole ``D(z) = 1 - sqrt(|z| / P)``:
    the form of LIME's image explainer. `lime.lime_base` fits the surrogate. A score is in the number's own units.

    Players are present with probability 1/2 each, and the first mask has all of them. Where ``2^P <= samples`` each
    coalition is taken once instead: nothing is left to chance, and ``error`` is None.

    Not for: numbers that hang on pairs of players, which a linear fit misses (``r2`` and the gap say so), or shares
    that are to add up.

    Args:
        players: a kind such as "edges", or `Players`.
        samples: masks; equal ones are evaluated once.
        kernel_width: of the exponential kernel; LIME's image default.
        ridge: the penalty. LIME's own default, 1, shrinks coefficients by about one percent at 1000 samples; this one
            recovers a linear game.
        seed: an int, a `torch.Generator`, or None for a fresh seed.
        progress: a bar where it takes more than five seconds.

    The answer's ``error`` is one standard error over the draw of the masks (sandwich estimator, HC3), None also where
    the masks do not determine the coefficients. Its ``checks``: ``r2`` of the surrogate (weighted; None where it is
    undefined), ``intercept``, ``local_prediction`` (the surrogate's number for the whole, beside the true ``value``),
    ``local_gap`` (their distance relative to the spread of the number over the masks), ``effective_samples``
    ``(sum w)^2 / sum w^2``, ``shrinkage`` (the largest share of any combination of coefficients that the ridge takes
    away), ``coalitions`` (evaluated), and all that the game measured about itself.

    No players: empty scores. One: the difference ``v(all) - v(empty)``. A constant game: zeros, with a warning.

    Raises:
        ValueError: a setting out of range.

    Warns:
        UserWarning: the number does not depend on the players, or the masks do not determine the coefficients.

    >>> from explain.types import Game
    >>> class Sum(Target):
    ...     module = torch.nn.Identity()
    ...     def game(self, players):
    ...         weights = torch.tensor([3.0, 1.0, -1.0])
    ...         return Game(Players(players, torch.arange(3)), lambda masks: masks.float() @ weights)
    ...     def describe(self):
    ...         return {"asked": "a weighted sum"}
    >>> Lime("nodes", seed=0).explain(Sum()).scores.round(decimals=6)
    tensor([ 3.,  1., -1.], dtype=torch.float64)
    """

    players: str | Players
    samples: int = 1000
    kernel_width: float = 0.25
    ridge: float = 1e-8
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.players, (str, Players)):
            raise TypeError(f'players must be a kind such as "edges", or Players, got {type(self.players).__name__}')
        if isinstance(self.samples, bool) or not isinstance(self.samples, int):
            raise TypeError(f"samples must be an int, got {type(self.samples).__name__}")
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2, got {self.samples}")
        for name, number in (("kernel_width", self.kernel_width), ("ridge", self.ridge)):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name} must be a positive number, got {number}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        game = target.game(self.players)
        before = game.calls
        few = len(game.players) <= 1
        fit = _difference(game) if few else _surrogate(game, self, generator)
        return Answer(
            scores=fit.scores,
            players=game.players,
            value=fit.value,
            base=fit.base,
            error=fit.error,
            checks={**game.checks, **fit.checks, "coalitions": game.calls - before},
            calls=game.calls,
        )


class _Fit(NamedTuple):
    scores: Scores
    error: Scores | None
    base: float
    value: float
    checks: dict[str, Any]


def _difference(game: Game) -> _Fit:
    """The answer for one player, or none: nothing to fit."""
    base, value = game.ends()
    scores = torch.full((len(game.players),), value - base, dtype=torch.float64)
    checks = {"r2": None, "intercept": base, "local_prediction": value, "local_gap": 0.0}
    return _Fit(scores, None, base, value, checks)


def _surrogate(game: Game, lime: Lime, generator: torch.Generator) -> _Fit:
    masks, complete = draw_masks(len(game.players), lime.samples, generator)
    values, base = _values(game, masks, lime.progress)
    distances = cosine_distances(masks)
    weights = kernel(distances, lime.kernel_width)
    scores, intercept, r2, prediction = _lime_fit(masks, values, distances, lime)
    residuals = values - intercept - masks.double() @ scores
    error, shrinkage = _standard_errors(masks, weights, residuals, lime.ridge)
    spread = float(values.max() - values.min())
    constant = spread <= _CONSTANT * float(values.abs().max())
    _warn_if_doubtful(constant, shrinkage, masks)
    checks = {
        "r2": None if constant else r2,
        "intercept": intercept,
        "local_prediction": prediction,
        "local_gap": 0.0 if constant else abs(prediction - float(values[0])) / spread,
        "effective_samples": float(weights.sum().square() / weights.square().sum()),
        "shrinkage": shrinkage,
    }
    unknown = complete or shrinkage > _SHRUNK
    scores = torch.zeros_like(scores) if constant else scores
    return _Fit(scores, None if unknown else error, base, float(values[0]), checks)


def draw_masks(players: int, samples: int, generator: torch.Generator) -> tuple[Masks, bool]:
    """Masks, the whole first, and whether they are simply all coalitions, each once."""
    if 2**players <= samples:
        positions = torch.arange(2**players).flip(0)
        return (positions[:, None] >> torch.arange(players) & 1).bool(), True
    masks = torch.rand(samples, players, generator=generator) < 0.5
    masks[0] = True
    return masks, False


def cosine_distances(masks: Masks) -> Tensor:
    """``1 - sqrt(|z| / P)``, the cosine distance of each mask to the whole, ``[masks]``."""
    return 1 - masks.double().mean(1).sqrt()


def kernel(distances: Tensor, width: float) -> Tensor:
    """LIME's exponential kernel ``sqrt(exp(-D^2 / width^2))``."""
    return torch.exp(-distances.square() / width**2).sqrt()


def _values(game: Game, masks: Masks, progress: bool) -> tuple[Values, float]:
    """The number for each mask, equal masks evaluated once, and for none of the players."""
    rows = torch.cat([masks, torch.zeros(1, masks.size(1), dtype=torch.bool)])
    asked, positions = rows.unique(dim=0, return_inverse=True)
    values = game(asked, progress)[positions]
    return values[:-1], float(values[-1])


def _lime_fit(masks: Masks, values: Values, distances: Tensor, lime: Lime) -> tuple[Scores, float, float, float]:
    """Coefficients, intercept, weighted R2 and the prediction for the first mask, by lime's own code."""
    base = LimeBase(lambda far: kernel(torch.from_numpy(far), lime.kernel_width).numpy(), random_state=0)
    intercept, coefficients, r2, prediction = base.explain_instance_with_data(
        masks.double().numpy(),
        values.numpy()[:, None],
        distances.numpy(),
        label=0,
        num_features=masks.size(1),
        feature_selection="none",
        model_regressor=Ridge(alpha=lime.ridge),
    )
    scores = torch.zeros(masks.size(1), dtype=torch.float64)
    for player, coefficient in coefficients:  # lime sorts them by size
        scores[int(player)] = float(coefficient)
    return scores, float(intercept), float(r2), float(prediction[0])


def _standard_errors(masks: Masks, weights: Tensor, residuals: Tensor, ridge: float) -> tuple[Scores, float]:
    """Sandwich standard errors (HC3: each residual as if its mask had been left out), and the largest shrinkage."""
    centred = masks.double() - weights @ masks.double() / weights.sum()
    spectrum, vectors = torch.linalg.eigh(centred.T @ (centred * weights[:, None]))
    penalised = spectrum.clamp(min=0) + ridge
    response = (centred @ vectors / penalised) @ vectors.T * weights[:, None]
    leverage = (response * centred).sum(1) + weights / weights.sum()
    outside = residuals / (1 - leverage).clamp(min=1e-10)
    return (response * outside[:, None]).square().sum(0).sqrt(), float(ridge / penalised[0])


def _warn_if_doubtful(constant: bool, shrinkage: float, masks: Masks) -> None:
    if constant:
        doubt("the number does not depend on these players: R2 is undefined")
    elif shrinkage > _SHRUNK:
        doubt(
            f"{len(masks)} masks do not determine the coefficients of {masks.size(1)} players under this kernel (the "
            f"ridge takes up to {shrinkage:.0%} away): raise samples or kernel_width"
        )
