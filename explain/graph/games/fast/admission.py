"""Whether a fast path may answer for a model: it must agree with the model itself, once for each state of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explain.graph.games.coalitions import Coalitions
from explain.graph.games.fast.plan import Plan, planned
from explain.graph.games.fast.program import Program, Refused
from explain.graph.games.fast.scene import Scene
from explain.graph.games.fast.trace import program_of
from explain.graph.network import GraphNetwork
from explain.graph.players.absent_features import feature_matrix
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.structure import EDGE, NODE
from explain.guard import evaluating
from explain.types import Masks

KINDS = ("edges", "nodes", "features")


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


def admitted(game: Coalitions) -> FastPath:
    """The fast path of a game, if the model agrees with it.

    A model state is admitted to a kind of question by random coalitions of the first number asked for, and then by
    the answers that the model gave for the others.

    Raises:
        Refused: there is none; the message says why.
    """
    if game.number.model.inputs.recomputed is not None:
        raise Refused("fields are computed again from each coalition's graph")
    findings, program = game.number.model.findings, program_of_model(game.number.model)
    scenes = scenes_of(game)
    plans = tuple(planned(program, scene) for scene in scenes)
    path = FastPath(plans, "")
    question = (game.atoms, game.removal, game.number.baseline)
    known = findings.agreement.get(question)
    allowed = tolerance(scenes[0].x)
    if known is None or game.number.state != findings.state:
        found = _disagreement(game, path)
        if found <= allowed:
            findings.agreement[question] = found
    else:
        everyone = torch.ones(1, len(game.players), dtype=torch.bool, device=game.owner.device)
        found = relative(path.outputs(everyone)[0], game.number.answer)
    if not found <= allowed:
        raise Refused(f"a stack of {program.name} differs from the model by {found:.0e}")
    return FastPath(plans, f"{program.name}, agreement {findings.agreement[question]:.0e}")


def program_of_model(model: GraphNetwork) -> Program:
    """What the network's forward computes, traced once for each state of it.

    Raises:
        Refused: there is no program; the message says why.
    """
    findings = model.findings
    if findings.program is None:
        try:
            with evaluating(model.net):
                findings.program = program_of(model.net, model.inputs)
        except Refused as refusal:
            findings.program = str(refusal)
    if not isinstance(findings.program, Program):
        raise Refused(str(findings.program))
    return findings.program


def _disagreement(game: Coalitions, path: FastPath) -> float:
    """Largest relative difference between the fast path and the model, on random coalitions."""
    masks = game.trials()
    with torch.no_grad():
        return relative(path.outputs(masks), game.outputs(masks, 0))


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
