"""A run that labels a graph, and one of its steps, as targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.categorical import Categorical
from explain.graph_diffusion.commit import Together, settled_from, together
from explain.graph_diffusion.games import LabelCoalitions, differentiable
from explain.graph_diffusion.label_objective import training_objective
from explain.graph_diffusion.number import LabelNumber, RunNumber, StepNumber
from explain.graph_diffusion.players import RUN_KINDS, STEP_KINDS, players_of
from explain.graph_diffusion.processes import CategoricalLabels
from explain.guard import usual_modes
from explain.payoffs import payoff_name
from explain.types import Differentiable, Game, NonFinite, Objective, Players, Target, Unsupported

_NO_TRAINING = (
    "what was trained is followed to what a step foresees, and not through a run whose steps draw: ask model.step(t=, "
    "node=), or which labels, nodes and edges the run hangs on, Shapley, Lime or Occlusion"
)


class _LabelTarget(LabelNumber, Target):
    """What runs and steps share."""

    instead = MappingProxyType({"objective": _NO_TRAINING})

    @property
    def module(self) -> nn.Module:  # type: ignore[override]  # read only here
        """The user's network."""
        return self.model.module

    def value(self) -> float:
        """The number of the graph as it is.

        Raises:
            NonFinite: NaN or infinity.
        """
        with usual_modes(), torch.no_grad():
            found = float(self.numbers(self.whole))
        if not math.isfinite(found):
            raise NonFinite(f"the number is {found}: check the payoff, and the network's half precision")
        return found

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of a run, or of a step."""
        return RUN_KINDS if isinstance(self, RunNumber) else STEP_KINDS

    def players(self, kind: str, **options: Any) -> Players:
        """Players of a run: "known_labels", "nodes", "edges" (``undirected=True``: pairs), each ``hops=`` near,
        "features", "steps" and "guidance" (``size=``); of a step "labels" in place of the known ones and no steps.
        """
        return players_of(self, kind, options)

    def game(self, players: str | Players) -> Game:
        """See `LabelCoalitions`."""
        return LabelCoalitions(self, self._resolved(players)).game()

    def differentiable(self, players: str | Players) -> Differentiable:
        """See `games.differentiable`."""
        return differentiable(self, self._resolved(players))

    def rows(self) -> Tensor:
        """The node that is asked about; all of them for a function of all labels."""
        return torch.arange(self.model.nodes) if self.node is None else torch.tensor([self.node])

    def _resolved(self, players: str | Players) -> Players:
        return self.players(players) if isinstance(players, str) else players

    def _described(self, question: str) -> dict[str, Any]:
        found = self.model.assumed | self.assumed
        return {
            "family": "graph_diffusion",
            "model": type(self.model.net).__name__,
            "question": question,
            "node": self.node,
            "label": self.label,
            "payoff": payoff_name(self.payoff),
            "draws": self.draws,
            "noise_seed": self.seed,
            "baseline": self.baseline,
            **({"assumed": found} if found else {}),
        }


class RunTarget(RunNumber, _LabelTarget):
    """The number that runs end in, as a question; see `LabelDiffusionModel.trajectory`."""

    def draw_by_draw(self) -> tuple[Callable[[], Any], ...]:
        """Each run by itself."""
        own = [copy.copy(self) for _ in range(self.draws)]
        for draw, each in enumerate(own):
            each.seed = self.seed + draw
        return tuple(each.run for each in own)

    def run(self) -> Tensor:
        """The first run, to its labels ``[n, C]``."""
        with usual_modes(), torch.no_grad():
            return self.samples(self.whole, 1)[0, 0]

    def labels(self) -> Tensor:
        """The class of each node at the end of each run, int64 ``[draws, n]``."""
        with usual_modes(), torch.no_grad():
            return self.samples(self.whole)[0].argmax(-1)

    def foreseen(self) -> Tensor:
        """The share of runs that foresee each class of each node at each step, ``[steps, n, C]``."""
        return torch.nn.functional.one_hot(self._foreseen_classes(), self.model.classes).double().mean(1)

    def commit_times(self) -> Tensor:
        """The step from which on each label of each run keeps to what it ends as, int64 ``[draws, n]``."""
        return settled_from(self._foreseen_classes(), self.labels()).cpu()

    def corrections(self) -> Tensor:
        """How far known labels move each run at each step, ``|grad log D|``, ``[steps, draws]``; 0 without."""
        with usual_modes(), torch.no_grad():
            moved = [moment.correction for moment in self.moments(self.whole)]
        none = torch.zeros(self.draws)
        return torch.stack([none if part is None else part.flatten(1).norm(dim=1).cpu() for part in moved])

    def together(self, judged: Tensor | None = None) -> Together:
        """How right the runs are, label by label and together with their neighbours; see `Together`.

        Args:
            judged: bool ``[n]``, over which nodes; those whose label is not known when None.
        """
        own = ~self.model.known if judged is None else judged
        return together(self.labels(), self.model.truth, self.graph.edge_index, own)

    def _foreseen_classes(self) -> Tensor:
        """What each run foresees at each step, int64 ``[steps, draws, n]``."""
        with usual_modes(), torch.no_grad():
            return torch.stack([moment.foreseen.argmax(-1) for moment in self.moments(self.whole)])

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        own: dict[str, Any] = {"sampler": "your own"}
        if self.process is not None:
            own = {"steps": self.steps, "temperature": self.process.temperature, "constrained": self.constrained}
        return {**self._described("trajectory"), **own}


class StepTarget(StepNumber, _LabelTarget):
    """The number that a step foresees, as a question; see `LabelDiffusionModel.step`."""

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training labels; see `training_objective`."""
        made = training_objective(self, train, remove)
        self.tell(made.told)
        return made

    def draw_by_draw(self) -> tuple[Callable[[], Any], ...]:
        """`run` of each draw."""
        return tuple(partial(self._of_draw, draw) for draw in range(self.draws))

    def run(self) -> Tensor:
        """The labels that the network foresees of the first draw, ``[n, C]``."""
        return self._of_draw(0)

    def _of_draw(self, draw: int) -> Tensor:
        with usual_modes(), torch.no_grad():
            return self._answered(self.whole, self.noised[draw : draw + 1])[0]

    def bound_terms(self) -> Tensor:
        """The step's term of the bound for each node in nats, a mean over the draws, ``[n]``; see `Categorical`.

        Raises:
            Unsupported: a Gaussian process.
        """
        if not isinstance(self.process, CategoricalLabels):
            raise Unsupported("the divergence of a step is of classes that are drawn: process=Categorical(...)")
        process: Categorical = self.process.process
        Y = torch.nn.functional.one_hot(self.state, self.model.classes).to(self.noised)
        with usual_modes(), torch.no_grad():
            p = self.foreseen(self.whole, None)
        return process.divergence(self.noised, Y.expand_as(p), p, self.t, self.process.rule).mean(0)

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        return {**self._described("step"), "t": [self.t]}
