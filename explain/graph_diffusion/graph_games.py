"""Coalitions of nodes, pairs and steps of a denoised graph into numbers: what is absent is drawn from the limit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.graph_diffusion.graph_number import GraphNumber, GraphRunNumber, GraphStepNumber
from explain.spelling import came
from explain.types import Game, Masks, Players, Unsupported, Values, present_atoms

_INSTEAD = {
    "features": "nodes of a graph that is drawn have a type, which is drawn too, and no features: ask 'types', 'nodes'",
    "types": "its nodes are all alike, GraphNoise(nodes=None): ask 'nodes', each with its pairs",
    "edge_types": "its edges are all alike, the limit has one class of them: ask 'pairs'",
    "guidance": "its network is asked without a condition, so that no guidance is there: ask a run's 'steps'",
    "conditions": "its network is asked without a condition: give condition=, and what stands for none, wrap(null=)",
}
_OWNS = {  # which part of what is present each kind owns
    "steps": "looks",
    "pairs": "pairs",
    "edges": "pairs",
    "nodes": "nodes",
    "types": "nodes",
    "edge_types": "edge_types",
    "guidance": "guided",
    "conditions": "conditions",
}


def kinds_of(number: GraphNumber) -> tuple[str, ...]:
    """Who may play, the usual ones first."""
    process, run, asked = number.model.process, isinstance(number, GraphRunNumber), number.conditioning
    there = {
        "steps": run,
        "pairs": True,
        "edges": not run,
        "nodes": True,
        "types": process.nodes is not None,
        "edge_types": process.tells_edges_apart,
        "guidance": run and asked.guidance != 1,
        "conditions": asked.entries > 0 and asked.null is not None,
    }
    return tuple(kind for kind, plays in there.items() if plays)


def graph_players(number: GraphNumber, kind: str, options: dict[str, Any]) -> Players:
    """Pairs, those of them that are edges of the clean graph, nodes with all their pairs, types, steps, the condition.

    Raises:
        ValueError: an unknown kind or option.
    """
    kinds = kinds_of(number)
    if kind not in kinds:
        raise ValueError(_refusal(number, kind))
    stepwise = kind in ("steps", "guidance")
    if unknown := set(options) - ({"size"} if stepwise else set()):
        raise ValueError(f"players({kind!r}) takes {['size'] if stepwise else 'no options'}, got {unknown}")
    if kind == "conditions":
        name, entries = str(number.model.condition), number.conditioning.entries
        names = (name,) if entries == 1 else tuple(f"{name} {entry}" for entry in range(entries))
        return Players(kind, torch.arange(entries), names)
    if stepwise:
        assert isinstance(number, GraphRunNumber)
        size = options.get("size", 1)
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= number.steps:
            raise ValueError(f"size must be whole, from 1 to {number.steps} steps, got {size!r}")
        groups = tuple(torch.arange(number.steps).split(size))
        t = number.steps - torch.stack([group[0] for group in groups])
        return Players(kind, number.steps - t, tuple(f"t={each}" for each in t.tolist()), groups, {"t": t})
    n = number.size
    pairs = torch.triu_indices(n, n, 1).T
    there = torch.ones(len(pairs), dtype=torch.bool)
    geometry = {}
    if isinstance(number, GraphStepNumber):
        there = (number.clean.pairs[0].argmax(-1) > 0)[pairs[:, 0], pairs[:, 1]].cpu()
        geometry = {"edge_index": pairs[there].T, "focus": torch.tensor(number.entry, dtype=torch.long)}
    if kind in ("nodes", "types"):
        geometry = {**geometry, "node": torch.arange(n)} if geometry else {}
        return Players(kind, torch.arange(n), tuple(str(node) for node in range(n)), geometry=geometry)
    own = pairs[there] if kind == "edges" else pairs
    names = tuple(f"{i}–{j}" for i, j in own.tolist())
    return Players(kind, own, names, geometry={**geometry, "ends": own.T} if geometry else {})


def _refusal(number: GraphNumber, kind: str) -> str:
    """Which players there are, and why there are none of a kind that other denoisers have."""
    kinds = kinds_of(number)
    why = f": {_INSTEAD[kind]}" if kind in _INSTEAD else ""
    if kind == "guidance" and number.conditioning.entries:
        why = ": guidance=1 is no guidance, and a step has one: ask 'guidance' of a run with guidance above 1"
    elif kind == "conditions" and number.conditioning.entries:
        why = ": what stands for no condition? Say how it was trained, explain.wrap(..., null=)"
    return f"a denoised graph plays with {', '.join(kinds)}; {came(kind, kinds)}{why}"


@dataclass(frozen=True, eq=False)
class GraphCoalitions:
    """The number for masks over players of one kind; every coalition meets the same noise, entry by entry.

    An absent pair is a draw of the limit distribution in its place, an absent type one in its node's, whose pairs stay;
    an absent node is both. Of an absent class of an edge the edge stays, and its class is drawn among those of edges.
    At an absent step of a run the network is not asked. Absent *guidance* of a step is a weight of 1, the condition
    alone; an absent entry of the condition is that of the null, so that without any the run has none.
    """

    number: GraphNumber
    players: Players

    def __post_init__(self) -> None:
        if self.players.kind not in kinds_of(self.number):
            raise Unsupported(_refusal(self.number, self.players.kind))

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        removal = {
            "steps": "the graph foreseen before is held to, the limit at first",
            "edge_types": "another class of edge where there is one, drawn of the limit distribution",
            "guidance": "no guidance, the condition alone",
            "conditions": "null condition",
        }.get(self.players.kind, "a draw of the limit distribution")
        checks = {"removal": removal, "draws": self.number.draws, "noise": "the same in every coalition"}
        return Game(self.players, self, batch_size=self.number.batch, checks=checks)

    @cached_property
    def owner(self) -> Tensor:
        """The player of each step, entry of the condition, node ``[n]`` or pair ``[n, n]``, int64; ``P`` for nobody's.

        Raises:
            ValueError: atoms that are not there.
        """
        kind, whole = self.players.kind, self.number.everybody()
        shape = getattr(whole, _OWNS[kind]).shape[1:]
        found = torch.full(shape, len(self.players))
        for player, own in enumerate(self.players.groups or self.players.index.split(1)):
            if len(own) and (int(own.min()) < 0 or int(own.max()) >= shape[0]):
                raise ValueError(f"{kind} must be from 0 to {shape[0] - 1}, got {own.tolist()[:5]}")
            if len(shape) == 1:
                found[own] = player
            else:
                i, j = own.view(-1, 2).T
                found[i, j] = found[j, i] = player
        return found

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        number, kind = self.number, self.players.kind
        present = present_atoms(masks, self.owner).to(number.model.like.device)
        there = number.everybody(len(masks))._replace(**{_OWNS[kind]: present})
        if kind == "nodes":
            there = there._replace(pairs=present[:, :, None] & present[:, None])
        with torch.no_grad():
            return number.numbers(there)
