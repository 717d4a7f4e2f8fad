"""Which scores predict retraining? ``python -m models.lds``: the linear datamodelling score of every method.

A denoiser of digits is trained on random halves of its training images (`models.retrained`). Each method scores the
training images once, by the one model that saw all of them, for the error of held-out images, and has to predict how
that error differs between the models of the halves. Where a method has a setting (damping, kind of similarity) it is
chosen by half of the held-out images; what is reported is the other half.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
import typer
from scipy import stats
from torch import Tensor

from explain import TracIn, Trak
from explain.diffusion.model import DiffusionModel
from explain.diffusion.targets import StepTarget
from explain.influence import Ekfac, Exact, GaussNewton, Hessian, Indefinite
from explain.influence.scores import directional, measured_gradient
from explain.influence.spectrum import extreme_eigenvalues
from explain.metrics import Lds, lds
from models import checkpoints, retrained
from models.retrained import Recipe, Retrained

TIMES = (6, 18, 31, 43, 56, 68, 81, 93)  # an image's error is a mean over these noise levels
DRAWS = 2  # of noise at each
DAMPINGS = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
FACTORS = (0.1, 1.0, 10.0, 100.0)  # of the damping that TRAK takes by itself
Scores = dict[str, Tensor]  # by setting, [images asked, training images]


class Row(NamedTuple):
    """One method: its setting as chosen by half of the images, and its score on the others."""

    method: str
    setting: str
    chosen_by: float
    reported: Lds


class Experiment(NamedTuple):
    """What `run` finds.

    ``rows``: a method each, best first. ``sweep``: every setting, with its score on both halves of the images.
    ``agreement``: mean Spearman correlation of the outcomes of two seeds; ``ceiling``: of their mean with the truth, as
    that implies: what no score can do better than on average. ``found``: the retrained models.
    """

    rows: list[Row]
    sweep: pd.DataFrame
    agreement: float
    ceiling: float
    found: Retrained

    def table(self) -> pd.DataFrame:
        """One row a method: the score with its interval, and by how much the best method is above it."""
        best = self.rows[0].reported
        rows = []
        for row in self.rows:
            less = best.minus(row.reported)
            rows.append(
                {
                    "method": row.method,
                    "setting": row.setting,
                    "LDS": row.reported.mean,
                    "low": row.reported.low,
                    "high": row.reported.high,
                    "below best": less.mean,
                    "from": less.low,
                    "to": less.high,
                }
            )
        return pd.DataFrame(rows).set_index("method")


def run(
    recipe: Recipe | None = None,
    *,
    images: int = 64,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Experiment:
    """Train on the halves, or find them in the cache; score by every method; compare.

    Args:
        recipe: of the models, `models.retrained.Recipe()` when None.
        images: held-out images asked about; every other one chooses the settings.
        folder: the cache, see `models.checkpoints.trained`.
        fresh: trains in any case.
        progress: shows tqdm.
    """
    found = retrained.load_or_train(recipe, folder=folder, fresh=fresh, progress=progress)
    outcomes = _outcomes(found, images, folder, fresh)[:, :-1]  # the last is of all images
    model, train = found.model(), (found.data.images, found.data.labels)
    real = outcomes.mean(0)
    chooses = torch.arange(images) % 2 == 0
    rows, sweep = [], []
    for method, scored in METHODS.items():
        scores, chosen_by = scored(model, train, found, images), {}
        for setting, each in scores.items():
            halves = [lds(each[at], found.masks, real[:, at], resamples=1).mean for at in (chooses, ~chooses)]
            chosen_by[setting] = halves[0]
            sweep.append({"method": method, "setting": setting, "chosen by": halves[0], "LDS": halves[1]})
        best = max(chosen_by, key=lambda setting: chosen_by[setting])
        reported = lds(scores[best][~chooses], found.masks, real[:, ~chooses])
        rows.append(Row(method, best, chosen_by[best], reported))
    rows.sort(key=lambda row: row.reported.mean, reverse=True)
    return Experiment(rows, pd.DataFrame(sweep), *_reliability(outcomes), found)


def asked(model: DiffusionModel, found: Retrained, images: int, payoff: str = "error") -> list[StepTarget]:
    """The question of each held-out image: minus its error, ``-|e - e_hat|^2``, over the same draws for all."""
    pairs = zip(found.others.images[:images], found.others.labels[:images].tolist(), strict=True)
    return [model.step(image, TIMES, label, draws=DRAWS, payoff=payoff) for image, label in pairs]


def _outcomes(found: Retrained, images: int, folder: str | os.PathLike[str] | None, fresh: bool) -> Tensor:
    """The numbers of every model, ``[seeds, subsets + 1, images]``."""

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        rows = []
        for seed, weights in enumerate(found.weights):
            targets = asked(found.model(seed), found, images)
            for k in range(found.recipe.subsets + 1):
                params = {f"net.{name}": values[k] for name, values in weights.items()}
                with torch.no_grad():
                    rows.append(torch.stack([target.measured(params) for target in targets]))
        return {"numbers": torch.stack(rows).view(found.recipe.seeds, -1, images)}, {}

    settings = {"recipe": asdict(found.recipe), "images": images, "times": TIMES, "draws": DRAWS}
    config = checkpoints.origin("outcomes", (retrained, asked), found.others, **settings)
    return checkpoints.kept("outcomes", config, make, folder=folder, fresh=fresh).state["numbers"]


def _reliability(outcomes: Tensor) -> tuple[float, float]:
    """Agreement of single seeds, and the ceiling by Spearman and Brown's formula; NaN with one seed."""
    seeds, _, images = outcomes.shape
    found = [
        stats.spearmanr(outcomes[a, :, j], outcomes[b, :, j]).statistic
        for a in range(seeds)
        for b in range(a)
        for j in range(images)
    ]
    single = sum(found) / len(found) if found else float("nan")
    return single, (seeds * max(single, 0.0) / (1 + (seeds - 1) * single)) ** 0.5


# --- methods: (model, train, found, images) -> scores by setting ---


def _influence(kind: type[GaussNewton] | type[Hessian]) -> Callable[..., Scores]:
    """Influence by the whole damped matrix, made once; dampings that leave it indefinite are left out."""

    def scored(model: DiffusionModel, train: tuple[Tensor, Tensor], found: Retrained, images: int) -> Scores:
        objectives = [target.objective(train) for target in asked(model, found, images)]
        b = torch.stack([measured_gradient(objective)[1] for objective in objectives], 1)
        A, generator = kind(objectives[0]), torch.Generator().manual_seed(0)
        scores = {}
        for damping in DAMPINGS:
            damped = A.damped(damping)
            try:
                x = Exact().solve(damped, b, extreme_eigenvalues(damped, generator), generator).x
            except Indefinite:
                continue
            scores[f"damping {damping:g}"] = -directional(objectives[0], x).T / len(found.data.images)
        return scores

    return scored


def _ekfac(model: DiffusionModel, train: tuple[Tensor, Tensor], found: Retrained, images: int) -> Scores:
    objectives = [target.objective(train) for target in asked(model, found, images)]
    b = torch.stack([measured_gradient(objective)[1] for objective in objectives], 1)
    A, scores = GaussNewton(objectives[0]), {}
    for damping in DAMPINGS[1:-1:2]:
        damped, generator = A.damped(damping), torch.Generator().manual_seed(0)
        x = Ekfac().solve(damped, b, extreme_eigenvalues(damped, generator), generator).x
        scores[f"damping {damping:g}"] = -directional(objectives[0], x).T / len(found.data.images)
    return scores


def _dot(model: DiffusionModel, train: tuple[Tensor, Tensor], found: Retrained, images: int) -> Scores:
    whys = TracIn(train=train, seed=0).explain_all(asked(model, found, images))
    return {"": torch.stack([why.scores for why in whys])}


def _trak(model: DiffusionModel, train: tuple[Tensor, Tensor], found: Retrained, images: int) -> Scores:
    return _projected(Trak(train=train, seed=0), asked(model, found, images))


def _dtrak(model: DiffusionModel, train: tuple[Tensor, Tensor], found: Retrained, images: int) -> Scores:
    """The norm on both sides; its scores stand for those of the loss, and the number is minus that."""
    scores = _projected(Trak(train=train, features="norm", seed=0), asked(model, found, images, payoff="norm"))
    return {setting: -rows for setting, rows in scores.items()}


def _projected(trak: Trak, targets: list[StepTarget]) -> Scores:
    (own,) = trak.explain(targets[0]).checks["damping"]
    scores = {}
    for factor in FACTORS:
        whys = Trak(
            trak.dimensions, features=trak.features, damping=factor * own, train=trak.train, seed=0
        ).explain_all(targets)
        scores[f"damping {factor * own:.2g}"] = torch.stack([why.scores for why in whys])
    return scores


def _pixels(model: DiffusionModel, train: tuple[Tensor, Tensor], found: Retrained, images: int) -> Scores:
    """How alike two images look; no model is asked."""
    x, y = train[0].flatten(1).double(), found.others.images[:images].flatten(1).double()
    unit_x, unit_y = (rows / rows.norm(dim=1, keepdim=True) for rows in (x, y))
    return {"dot product": y @ x.T, "cosine": unit_y @ unit_x.T, "minus distance": -torch.cdist(y, x)}


METHODS: dict[str, Callable[..., Scores]] = {
    "influence, Gauss-Newton": _influence(GaussNewton),
    "influence, Hessian": _influence(Hessian),
    "influence, EK-FAC": _ekfac,
    "TRAK": _trak,
    "D-TRAK": _dtrak,
    "gradient dot product": _dot,
    "raw pixels": _pixels,
}


def main(
    fresh: Annotated[bool, typer.Option("--fresh", help="train again, whatever the cache holds")] = False,
) -> None:
    """Score seven attributions of a small denoiser of digits by the linear datamodelling score: over retrained models.

    Prints how they were trained, the score of every method, and every setting tried. What is trained is kept.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model is not at a minimum")
        experiment = run(fresh=fresh)
    recipe, found = experiment.found.recipe, experiment.found
    seconds = sum(facts["seconds"] for facts in found.facts)
    print(
        f"{recipe.subsets} random halves of {recipe.images} digits x {recipe.seeds} seeds, and all of them x "
        f"{recipe.seeds}; {sum(w[0].numel() for w in found.weights[0].values())} parameters, {recipe.iterations} steps "
        f"of Adam each: {seconds:.0f} s\ntwo seeds agree by {experiment.agreement:.3f}, so that the mean of "
        f"{recipe.seeds} could be predicted by {experiment.ceiling:.3f} at best\n"
    )
    print(experiment.table().to_string(float_format="%.3f"))
    print("\nevery setting:\n" + experiment.sweep.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    typer.run(main)
