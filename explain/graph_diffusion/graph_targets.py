"""A step and a run of a denoiser of graphs, as targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from explain.diffusion.sweep import Sweep, checked_weights, swept
from explain.graph_diffusion.commit import settled_from
from explain.graph_diffusion.graph_games import GraphCoalitions, graph_players, kinds_of
from explain.graph_diffusion.graph_number import GraphNumber, GraphRunNumber, GraphStepNumber
from explain.graph_diffusion.graph_objective import training_objective
from explain.graph_diffusion.graph_states import Stand, State
from explain.guard import usual_modes
from explain.payoffs import payoff_name
from explain.types import Game, NonFinite, Objective, Players, Target


class Edits(NamedTuple):
    """What each step of each run changes, int64 ``[steps, draws]``: how many edges it adds, removes, and gives another
    class, and how many nodes another type.
    """

    added: Tensor
    removed: Tensor
    retyped: Tensor
    nodes: Tensor


class Settled(NamedTuple):
    """The step from which on each type ``[draws, n]`` and pair ``[draws, n, n]`` stays as its run ends, int64."""

    nodes: Tensor
    pairs: Tensor


_GAME = "ask the game, with pairs, nodes, edges or steps: Shapley, Lime or Occlusion"


class _GraphTarget(GraphNumber, Target):
    """What steps and runs share."""

    instead = MappingProxyType(
        {
            "objective": f"no derivative follows graphs that are drawn: ask a step, or {_GAME[4:]}",
            "differentiable": f"classes that are drawn have no derivative; {_GAME}",
            "rows": f"at each step it attends to another graph, that was drawn: ask a step, or {_GAME[4:]}",
        }
    )

    @property
    def module(self) -> nn.Module:  # type: ignore[override]  # read only here
        """The user's network."""
        return self.model.module

    def _value(self) -> Tensor:
        raise NotImplementedError

    def value(self) -> float:
        """The number itself.

        Raises:
            NonFinite: NaN or infinity.
        """
        with usual_modes(), torch.no_grad():
            found = float(self._value())
        if not math.isfinite(found):
            raise NonFinite(f"the number is {found}: the network is sure of another class, or the payoff is not finite")
        return found

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of a run, or of a step."""
        return kinds_of(self)

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "pairs", "nodes" (each with its pairs), of a step "edges" of the clean graph, of a run "steps".

        Where nodes have types "types", these alone; where edges have classes "edge_types", which one an edge has. With
        a condition "conditions", its entries, and of a run "guidance", at which steps it is guided.
        """
        return graph_players(self, kind, options)

    def game(self, players: str | Players) -> Game:
        """See `GraphCoalitions`."""
        return GraphCoalitions(self, self.players(players) if isinstance(players, str) else players).game()

    def _described(self) -> dict[str, Any]:
        found = self.model.assumed | self.assumed
        return {
            "family": "graph_diffusion",
            "model": type(self.model.net).__name__,
            "payoff": payoff_name(self.payoff),
            "nodes": self.size,
            "draws": self.draws,
            "noise_seed": self.seed,
            **self.conditioning.described(),
            **({"assumed": found} if found else {}),
        }


class GraphStepTarget(GraphStepNumber, _GraphTarget):
    """What a step says of an entry of the clean graph, as a question; see `GraphDiffusionModel.step`."""

    def _value(self) -> Tensor:
        return self.numbers(self.everybody())

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training graphs; see `training_objective`."""
        made = training_objective(self, train, remove)
        self.tell(made.told)
        return made

    def rows(self) -> Tensor:
        """The nodes of the entry that is asked about; all of them for a function of what is foreseen."""
        if self.conditioning.guidance != 1:
            self.tell({"assumed": {"attention": "of the network with its condition, without guidance"}})
        return torch.tensor(self.entry, dtype=torch.long) if self.entry else torch.arange(self.size)

    def draw_by_draw(self) -> tuple[Callable[[], Any], ...]:
        """What the network is asked with its condition, once of each draw."""
        return tuple(partial(self._of_draw, draw) for draw in range(self.draws))

    def run(self) -> Tensor:
        """What the network foresees of the pairs of the first draw, ``[n, n, b]``."""
        with usual_modes(), torch.no_grad():
            return self.foreseen(self.everybody()).pairs[0]

    def _of_draw(self, draw: int) -> None:
        asked = copy.copy(self)
        asked.draws, asked.conditioning = 1, self.conditioning.at(1)
        asked.noised = State(*(part[draw : draw + 1] for part in self.noised))
        asked.absent = Stand(State(*(part[:1] for part in self.absent.entries)), self.absent.edges[:1])
        with usual_modes(), torch.no_grad():
            asked.foreseen(asked.everybody())

    def bound_terms(self) -> tuple[Tensor, Tensor]:
        """The step's term of the bound on ``log p(G_0)`` in nats, of each node ``[n]`` and pair ``[n, n]``.

        A mean over the draws; of all pairs ``i < j`` and nodes together this is ``L_{t-1}``.
        """
        with usual_modes(), torch.no_grad():
            p = self.foreseen(self.everybody())
            found = self.model.process.divergence(self.noised, self.clean.repeated(self.draws), p, self.t)
        nodes, pairs = (part.mean(0) for part in found)
        return nodes, pairs

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        entry = {"entry": list(self.entry), "label": self.label} if self.entry else {}
        return {**self._described(), "question": "step", "t": [self.t], **entry}


class GraphRunTarget(GraphRunNumber, _GraphTarget):
    """What a function says of the graphs that runs end in, as a question; see `GraphDiffusionModel.trajectory`."""

    def _value(self) -> Tensor:
        return self.numbers(self.everybody())

    def run(self) -> Tensor:
        """The classes of pairs that the runs end in, int64 ``[draws, n, n]``."""
        return self.graphs()

    def graphs(self) -> Tensor:
        """The classes of pairs that the runs end in, int64 ``[draws, n, n]``."""
        return self._states().pairs[-1]

    @torch.no_grad()
    def sweep(self, weights: Sequence[float]) -> Sweep:
        """The number, and as a picture ``[1, n, n]`` the pairs that the first draw ends with, under other weights.

        Raises:
            ValueError: weights that are no numbers, no condition, or no null for weights other than 1.
        """
        found, values, ends = checked_weights(weights), [], []
        for weight in found:
            asked = copy.copy(self)
            asked.conditioning = self.conditioning.at(weight)
            with usual_modes():
                state = asked.ends(asked.everybody())
            values.append(asked._read(state))
            ends.append(state.pairs[:1].argmax(-1).to(state.pairs))
        return swept(found, torch.stack(values), torch.stack(ends))

    def types(self) -> Tensor:
        """The types of nodes that the runs end in, int64 ``[draws, n]``; 0 where all are alike."""
        return self._states().nodes[-1]

    def edits(self) -> Edits:
        """What each step changes; see `Edits`."""
        states = self._states()
        i, j = torch.triu_indices(self.size, self.size, 1)
        before, after = states.pairs[:-1, :, i, j], states.pairs[1:, :, i, j]
        changes = (
            (before == 0) & (after > 0),
            (before > 0) & (after == 0),
            (before > 0) & (after > 0) & (before != after),
            states.nodes[:-1] != states.nodes[1:],
        )
        return Edits(*(change.sum(-1) for change in changes))

    def commit_times(self) -> Settled:
        """When each type and each pair is settled; see `Settled`."""
        return Settled(*(settled_from(classes[1:], classes[-1]) for classes in self._states()))

    def _states(self) -> State:
        """The classes at the start and after each step, int64 ``[1 + steps, draws, ...]``."""
        with usual_modes(), torch.no_grad():
            states = [self.start, *(turn.after for turn in self.turns(self.everybody()))]
        return State(*(torch.stack([part.argmax(-1) for part in parts]).cpu() for parts in zip(*states, strict=True)))

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        return {**self._described(), "question": "trajectory", "steps": self.steps}
