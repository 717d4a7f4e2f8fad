"""Whether a fast path may answer for a model: it must agree with the model itself, once for each state of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explain.graph.absence import feature_matrix
from explain.graph.agreement import relative, tolerance
from explain.graph.apart import Apart
from explain.graph.batching import Batching
from explain.graph.computation import Reach, hop_distance
from explain.graph.fast.plan import Plan, planned
from explain.graph.fast.program import Program, Refused
from explain.graph.fast.scene import Scene
from explain.graph.fast.state import fingerprint, tensors
from explain.graph.fast.trace import program_of
from explain.graph.structure import EDGE, NODE
from explain.graph.trimming import Trimming
from explain.guard import evaluating
from explain.outputs import Meaning
from explain.types import Masks

if TYPE_CHECKING:
    from explain.graph.games import Coalitions
    from explain.graph.model import GraphModel
    from explain.graph.targets import GraphTarget

KINDS = ("edges", "nodes", "features")
_KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)  # chance of each player in the trial coalitions
_ALL = 6  # players of whom all coalitions are tried


class Programs:
    """The program of a model in its present state, and which questions it was admitted to."""

    def __init__(self) -> None:
        self.state: Hashable = None
        self.program: Program | str = "not looked at"
        self._forget()

    def _forget(self) -> None:
        self.apart = Apart()
        self.agreement: dict[Hashable, float] = {}
        self.answers: dict[str, list[Tensor]] = {}  # two answers for all nodes of a type
        self.depths: dict[tuple[str, ...], Reach | None] = {}  # by the types of the explained nodes
        self.proved: set[Reach] = set()  # receptive fields that were checked on the whole graph
        self.batching: Batching | None = None
        self.trims: dict[str, Trimming] = {}
        self.meanings: dict[str | None, Meaning] = {}  # of the outputs, by the type of node that is asked about

    def known(self, target: GraphTarget) -> bool:
        """Whether what is remembered was found on this target's graph, in the state it was made in."""
        return target.state == self.state and target.graph is target.model.whole_structure

    def current(self, model: GraphModel) -> Hashable:
        """The state of the model and its data; a new one is traced anew."""
        state = (*fingerprint(model.net), model.seen)
        if state != self.state:
            self.state = state
            self._forget()
            try:
                with evaluating(model.net):
                    self.program = program_of(model.net, model.inputs)
            except Refused as refusal:
                self.program = str(refusal)
        return state

    def trimming(self, game: Coalitions) -> Trimming:
        """How much may be left out before the model answers otherwise.

        Found once for each state; other targets are held against complete copies in a few coalitions.
        """
        first = game.atoms not in self.trims
        masks = trials(game, few=not first)
        with torch.no_grad():
            complete = game.untrimmed(masks)
        allowed = tolerance(game.target.answer)

        def fits(how: Trimming) -> bool:
            with torch.no_grad():
                return relative(game.trimmed(masks, 0, how), complete) <= allowed

        if not first:
            how = self.trims[game.atoms]
            return next((each for each in (how, "unreached") if each == "nothing" or fits(each)), "nothing")
        tight: list[Trimming] = ["degrees", "weighted"] if game.weighable else ["degrees"]
        if not fits("unreached"):
            self.trims[game.atoms] = "nothing"
        elif game.has_border:  # else this target cannot tell whether degrees are looked at
            self.trims[game.atoms] = next((how for how in tight if fits(how)), "unreached")
        return self.trims.get(game.atoms, "unreached")

    def moved(self, model: GraphModel) -> bool:
        """Whether a parameter lies elsewhere or was written since the state was taken."""
        return not isinstance(self.state, tuple) or tensors(model.net) != self.state[0]


@dataclass(frozen=True, eq=False)
class FastPath:
    """Plans, one for each draw of absent features, and what was found when they were admitted."""

    plans: tuple[Plan, ...]
    note: str

    def outputs(self, masks: Masks, draw: int = 0) -> Tensor:
        """The explained row in each coalition, ``[coalitions, outputs]``."""
        plan = self.plans[draw]
        present = masks.new_ones(masks.size(1) + 1, len(masks), dtype=plan.scene.x.dtype)
        present[:-1] = masks.t()
        return plan.outputs(present)


def admitted(game: Coalitions, programs: Programs) -> FastPath:
    """The fast path of a game, if the model agrees with it.

    A model state is admitted to a kind of question by random coalitions, on its first target; on others by the answer
    that the model gave for them.

    Raises:
        Refused: there is none; the message says why.
    """
    if isinstance(programs.program, str):
        raise Refused(programs.program)
    scenes = scenes_of(game)
    plans = tuple(planned(programs.program, scene) for scene in scenes)
    path = FastPath(plans, "")
    question = (game.atoms, game.removal, game.target.baseline)
    known = programs.agreement.get(question)
    allowed = tolerance(scenes[0].x)
    if known is None or game.target.state != programs.state:
        found = _disagreement(game, path)
        if found <= allowed:
            programs.agreement[question] = found
    else:
        everyone = torch.ones(1, len(game.players), dtype=torch.bool, device=game.owner.device)
        found = relative(path.outputs(everyone)[0], game.target.answer)
    if not found <= allowed:
        raise Refused(f"a stack of {programs.program.name} differs from the model by {found:.0e}")
    return FastPath(plans, f"{programs.program.name}, agreement {programs.agreement[question]:.0e}")


def _disagreement(game: Coalitions, path: FastPath) -> float:
    """Largest relative difference between the fast path and the model, on random coalitions."""
    masks = trials(game)
    with torch.no_grad():
        return relative(path.outputs(masks), game.outputs(masks, 0))


def trials(game: Coalitions, few: bool = False) -> Masks:
    """Coalitions of every size, the same each time: all there are where these are no more than 64.

    The last one holds only edges that lead away from the explained nodes: a model that reads its edges backwards, or
    both ways, answers it as no other does.
    """
    players = len(game.players)
    if players <= _ALL:
        masks = (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).bool().flip(0)
        return masks.to(game.owner.device)
    generator = torch.Generator().manual_seed(0)
    chance = torch.tensor(_KEPT)[:, None]
    masks = torch.rand(len(chance), players, generator=generator) < chance
    masks = (masks[:6:5] if few else masks).to(game.owner.device)
    return torch.cat([masks, _leading_away(game)[None]]) if game.atoms == "edges" and game.place.focus else masks


def _leading_away(game: Coalitions) -> Tensor:
    """Players of whose edges none comes nearer to the explained nodes, bool ``[P]``."""
    graph = game.place.graph
    source, target = hop_distance(graph, game.place.flat_focus().to(game.owner.device), "in")[graph.flat_edges]
    away = torch.ones(len(game.players) + 1, dtype=torch.bool, device=game.owner.device)
    away[game.owner[source > target]] = False
    return away[:-1]


def scenes_of(game: Coalitions) -> list[Scene]:
    """The game's place and players as plain tensors, one scene for each draw of absent features.

    Raises:
        Refused: a heterogeneous graph, one without floating-point features, or other players.
    """
    graph = game.place.graph
    if list(graph.counts) != [NODE] or list(graph.edges) != [EDGE]:
        raise Refused("a heterogeneous graph has no fast path")
    x = graph.nodes[NODE].get("x")
    if x is None or not x.is_floating_point() or x.dim() != 2:
        raise Refused("the fast path needs floating-point features [nodes, features]")
    if game.atoms not in KINDS:
        raise Refused(f"{game.atoms} have no fast path")
    fields = graph.edge_fields[EDGE].items()
    weights = {k: v.view(-1) for k, v in fields if v.is_floating_point() and v.numel() == graph.num_edges}
    source, target = graph.edges[EDGE]
    focus = game.place.flat_focus().to(source.device)
    absent = [torch.zeros_like(x)] if game.atoms == "edges" or game.drops else list(game.absent[NODE])
    players, kind = len(game.players), game.atoms
    x = feature_matrix(graph, NODE)
    return [Scene(x, gone, source, target, weights, game.owner, kind, game.removal, focus, players) for gone in absent]
