"""The training loss of a graph network once an edge is there that was not, or several."""

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
class OneMore:
    """What the presence of each player's edges does to a place of the graph that has those of all players.

    Raises:
        Unsupported: removal "features", which keeps every edge.
    """

    number: GraphNumber
    players: Players

    def __post_init__(self) -> None:
        if self.number.removal == "features":
            raise Unsupported('removal="features" keeps every edge and so adds none: ask with "delete" or "message"')

    @cached_property
    def owner(self) -> Tensor:
        """The player of each edge of the graph, ``P`` for those that are there."""
        added = self.players.geometry["owner"]
        there = added.new_full((self.number.graph.num_edges - len(added),), len(self.players))
        return torch.cat([there, added]).to(self.number.graph.flat_edges.device)

    def touching(self, place: Place) -> Tensor:
        """Players of which an edge is in this place, int64, sorted."""
        found = self.owner[place.edges].unique()
        return found[found < len(self.players)].cpu()

    def edits(self, place: Place, players: Tensor) -> dict[str, Any]:
        """What changes in the copies of a place, one with each of these players, -1 for nobody."""
        here = self.owner[place.edges]
        present = (here == len(self.players)) | (here == players.to(here.device)[:, None])
        return edge_edits(self.number.removal, present)


@dataclass(frozen=True, eq=False)
class GraphInsertion(GraphRemoval):
    """``J(theta; G')`` where ``G'`` has a player's edges besides; ``number`` is that of the graph with all of them."""

    @cached_property
    def left_out(self) -> OneMore:  # type: ignore[override]  # read alike, by `touching`, `edits` and `owner`
        """What the presence of each player does."""
        return OneMore(self.number, self.players)

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
    """The objective whose players are edges that the graph does not have, see `GraphInsertion`."""
    fuller = copy.copy(number)
    fuller.graph = with_absent_edges(number.graph, players)
    return GraphInsertion(base, fuller, place, players, foci, positions)
