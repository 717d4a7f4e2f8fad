"""Scores of training examples for a setting's questions, by every method: what is judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from explain import Explainer, Influence, Target, TracIn, Trak
from explain.influence import Ekfac, GaussNewton
from explain.influence.through import Recording
from models.lds.settings import Setting

SHARES = (0.1, 0.01, 0.001)  # of the mean eigenvalue, as fixed dampings
PROBES = 32  # random directions that it is measured along


class Scored(NamedTuple):
    """A method's scores ``[questions, examples]`` and the seconds that they took."""

    scores: Tensor
    seconds: float


def scored(setting: Setting, net: nn.Module, run: Recording) -> dict[str, Scored]:
    """Every method's scores for the network of one recorded run, none of them tuned by what is foretold."""
    targets = setting.asked(net)
    mean = mean_eigenvalue(GaussNewton(targets[0].objective(setting.train)))
    asked = {name: _explained(make(setting, run, mean), targets) for name, make in METHODS.items()}
    return {name: found() for name, found in asked.items()}


def mean_eigenvalue(A: GaussNewton) -> float:
    """``trace(A) / p``, by Hutchinson's estimate from random signs."""
    signs = torch.randint(0, 2, (A.size, PROBES), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    return float((signs * (A @ signs)).sum(0).mean()) / A.size


def _explained(explainer: Explainer, targets: Sequence[Target]) -> Callable[[], Scored]:
    def found() -> Scored:
        started = time.perf_counter()
        whys = explainer.explain_all(targets)  # type: ignore[attr-defined]  # of those that answer together
        return Scored(torch.stack([why.scores for why in whys]), time.perf_counter() - started)

    return found


Make = Callable[[Setting, Recording, float], Explainer]


def _fixed(share: float) -> Make:
    return lambda setting, run, mean: Influence(setting.train, curvature="ggn", damping=share * mean, seed=0)


METHODS: dict[str, Make] = {
    "through training": lambda setting, run, mean: Influence(setting.train, through=run, seed=0),
    "influence, damping auto": lambda setting, run, mean: Influence(setting.train, curvature="ggn", seed=0),
    **{f"influence, damping {share:g} of the mean eigenvalue": _fixed(share) for share in SHARES},
    "influence, EK-FAC, damping auto": lambda setting, run, mean: Influence(setting.train, solver=Ekfac(), seed=0),
    "TRAK": lambda setting, run, mean: Trak(train=setting.train, seed=0),
    "gradient dot product": lambda setting, run, mean: TracIn(train=setting.train, seed=0),
}
