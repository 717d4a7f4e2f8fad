"""How far first order carries: what scores foretell of networks trained without ever more of the examples.

``python -m models.lds.shares`` prints, for the perceptron on digits, by the share that is left out at random: Pearson's
correlation of what is foretold of a question's number with what retrained networks say, the mean over the questions,
and how many times the foretold change the real one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from explain import Influence
from explain.metrics import Retrainings, subsets
from models.lds.experiment import MODELS
from models.lds.retraining import Again, recorded
from models.lds.settings import SETTINGS, Setting

DROPPED = (0.01, 0.05, 0.2, 0.5, 0.8)


class Carried(NamedTuple):
    """Of one method and share: ``r``, and real over foretold changes (the median question's least squares)."""

    method: str
    dropped: float
    r: float
    times: float


def carried(setting: Setting, dropped: Sequence[float] = DROPPED, models: int = MODELS) -> list[Carried]:
    """Through the training and around its end, share by share."""
    net, run = recorded(setting)
    targets = setting.asked(net)
    now = torch.tensor([target.value() for target in targets], dtype=torch.float64)
    methods = {
        "through training": Influence(setting.train, through=run, seed=0),
        "influence, damping auto": Influence(setting.train, curvature="ggn", seed=0),
    }
    scores = {
        name: torch.stack([why.scores for why in made.explain_all(targets)]).double() for name, made in methods.items()
    }
    found = []
    for share in dropped:
        kept = subsets(setting.size, models, 1 - share, seed=7)
        real = Retrainings(Again(setting), kept, together=models).outcomes(targets, setting.train)[0] - now
        for name, each in scores.items():
            found.append(Carried(name, share, *_fit(-(~kept).double() @ each.T, real)))
    return found


def _fit(foretold: Tensor, real: Tensor) -> tuple[float, float]:
    """Mean correlation and median slope of columns ``[models, questions]``."""
    both = (foretold - foretold.mean(0), real - real.mean(0))
    a, b = (part / part.norm(dim=0) for part in both)
    return float((a * b).sum(0).mean()), float(((foretold * real).sum(0) / foretold.square().sum(0)).median())


def table(rows: Sequence[Carried]) -> str:
    """A line a method and share."""
    return "\n".join(f"{row.method:<26}{row.dropped:>6.0%}{row.r:>8.3f}{row.times:>8.2f}" for row in rows)


if __name__ == "__main__":
    print(f"{'method':<26}{'out':>6}{'r':>8}{'times':>8}\n{table(carried(SETTINGS['mlp']()))}")
