"""The training loss of a graph network once edges are there that were not, and some are not that were."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.players.absent_edges import with_absent_edges
from explain.graph.players.removals import edge_edits
from explain.graph.tensors.cuts import Focus, Place
from explain.graph.training.edited_loss import GraphRemoval
from explain.training import TrainingObjective
from explain.types import Parameters, Players, Unsupported


@dataclass(frozen=True, eq=False)
class EdgeEdits:
    """What each player's edit does to a place of the graph that has, beside its own edges, those that all players add.

    Raises:
        Unsupported: removal "features", which keeps every edge.
    """

    number: GraphNumber
    players: Players

    def __post_init__(self) -> None:
        if self.number.removal == "features":
            raise Unsupported('removal="features" keeps every edge and so adds none: ask with "delete" or "message"')

    @cached_property
    def flips(self) -> Tensor:
        """Player and edge, for each edge that is there with a player and not without or the other way, ``[2, m]``."""
        geometry, total = self.players.geometry, self.number.graph.num_edges
        added = geometry["owner"]
        new = torch.arange(total - len(added), total)
        return torch.stack([torch.cat([added, geometry["gone_owner"]]), torch.cat([new, geometry["gone"]])])

    @cached_property
    def owner(self) -> Tensor:
        """The player of each edge that is added, ``P`` for those that are there."""
        own = self.number.graph.num_edges - len(self.players.geometry["owner"])
        return torch.cat([torch.full((own,), len(self.players)), self.players.geometry["owner"]])

    def touching(self, place: Place) -> Tensor:
        """Players that flip an edge of this place, int64, sorted."""
        player, edge = self.flips
        return player[self._positions(place)[edge] >= 0].unique()

    def edits(self, place: Place, players: Tensor) -> dict[str, Any]:
        """What changes in the copies of a place, one with each of these players, -1 for nobody."""
        player, edge = self.flips
        copy_of = torch.full((len(self.players) + 1,), -1)  # the last is nobody
        copy_of[players.cpu()] = torch.arange(len(players))
        row, column = copy_of[player], self._positions(place)[edge]
        here = (row >= 0) & (column >= 0)
        there = self.owner[place.edges.cpu()] == len(self.players)
        present = there.repeat(len(players), 1)
        present[row[here], column[here]] ^= True
        return edge_edits(self.number.removal, present.to(place.edges.device))

    def _positions(self, place: Place) -> Tensor:
        """Where each edge of the graph is in the place, -1 where it is not."""
        found = torch.full((self.number.graph.num_edges,), -1)
        found[place.edges.cpu()] = torch.arange(len(place.edges))
        return found


@dataclass(frozen=True, eq=False)
class GraphInsertion(GraphRemoval):
    """``J(theta; G')`` where ``G'`` is a player's edit; ``number`` has the graph with all that are added."""

    @cached_property
    def left_out(self) -> EdgeEdits:  # type: ignore[override]  # read alike, by `touching`, `edits` and `owner`
        """What each player does."""
        return EdgeEdits(self.number, self.players)

    @cached_property
    def _near(self) -> TrainingObjective:
        if self.sites.hops is None:
            return self.base
        together, nobody = self.sites.together, torch.tensor([-1])
        edits = self.left_out.edits(together.place, nobody)

        def predict(params: Parameters, batch: Tensor) -> Tensor:
            return together.outputs(self.number.model, params, 1, edits)[0, batch]

        return replace(self.base, predict=predict)


def graph_insertion(
    number: GraphNumber, place: Place, base: TrainingObjective, players: Players, foci: list[Focus], positions: Tensor
) -> GraphInsertion:
    """The objective whose players add edges that the graph does not have, or take out some, see `GraphInsertion`."""
    fuller = copy.copy(number)
    fuller.graph = with_absent_edges(number.graph, players)
    return GraphInsertion(base, fuller, place, players, foci, positions)
