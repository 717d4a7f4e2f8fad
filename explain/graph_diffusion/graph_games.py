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
}


def kinds_of(number: GraphNumber) -> tuple[str, ...]:
    """Who may play, the usual ones first."""
    process = number.model.process
    return (
        *(("steps", "pairs") if isinstance(number, GraphRunNumber) else ("pairs", "edges")),
        "nodes",
        *(["types"] if process.nodes is not None else []),
        *(["edge_types"] if process.tells_edges_apart else []),
    )


def graph_players(number: GraphNumber, kind: str, options: dict[str, Any]) -> Players:
    """Pairs, those of them that are edges of the clean graph, nodes with all their pairs, types, or steps.

    Raises:
        ValueError: an unknown kind or option.
    """
    kinds = kinds_of(number)
    if kind not in kinds:
        raise ValueError(_refusal(kind, kinds))
    if unknown := set(options) - ({"size"} if kind == "steps" else set()):
        raise ValueError(f"players({kind!r}) takes {['size'] if kind == 'steps' else 'no options'}, got {unknown}")
    if kind == "steps":
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


def _refusal(kind: str, kinds: tuple[str, ...]) -> str:
    """Which players there are, and why there are none of a kind that other denoisers have."""
    why = f": {_INSTEAD[kind]}" if kind in _INSTEAD else ""
    return f"a denoised graph plays with {', '.join(kinds)}; {came(kind, kinds)}{why}"


@dataclass(frozen=True, eq=False)
class GraphCoalitions:
    """The number for masks over players of one kind; every coalition meets the same noise, entry by entry.

    An absent pair is a draw of the limit distribution in its place, an absent type one in its node's, whose pairs stay;
    an absent node is both. Of an absent class of an edge the edge stays, and its class is drawn among those of edges.
    At an absent step of a run the network is not asked.
    """

    number: GraphNumber
    players: Players

    def __post_init__(self) -> None:
        kinds = kinds_of(self.number)
        if self.players.kind not in kinds:
            raise Unsupported(_refusal(self.players.kind, kinds))

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        removal = {
            "steps": "the graph foreseen before is held to, the limit at first",
            "edge_types": "another class of edge where there is one, drawn of the limit distribution",
        }.get(self.players.kind, "a draw of the limit distribution")
        checks = {"removal": removal, "draws": self.number.draws, "noise": "the same in every coalition"}
        return Game(self.players, self, batch_size=self.number.batch, checks=checks)

    @cached_property
    def owner(self) -> Tensor:
        """The player of each step, node ``[n]`` or pair ``[n, n]``, int64; ``P`` for those that nobody owns.

        Raises:
            ValueError: atoms that are not there.
        """
        kind, n = self.players.kind, self.number.size
        shape = {"steps": (getattr(self.number, "steps", 0),), "nodes": (n,), "types": (n,)}.get(kind, (n, n))
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
        everybody = number.everybody(len(masks))
        if kind in ("nodes", "types"):
            everybody = everybody._replace(nodes=present)
        if kind == "nodes":
            everybody = everybody._replace(pairs=present[:, :, None] & present[:, None])
        elif kind == "edge_types":
            everybody = everybody._replace(edge_types=present)
        elif kind in ("pairs", "edges"):
            everybody = everybody._replace(pairs=present)
        with torch.no_grad():
            if isinstance(number, GraphRunNumber):
                looks = present if kind == "steps" else number.all_looks.expand(len(masks), -1)
                return number.numbers(everybody, looks)
            assert isinstance(number, GraphStepNumber)
            return number.numbers(everybody)
