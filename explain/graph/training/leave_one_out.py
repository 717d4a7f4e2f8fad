"""The graph without one player, a node, an edge, a feature or several of them, in many copies of it side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.players.absent_features import absent_features
from explain.graph.players.kinds import ATOMS, known_entries, owners
from explain.graph.players.removals import column_edits, edge_edits, entry_edits, node_edits
from explain.graph.tensors.cuts import Place, whole
from explain.types import Players, Unsupported

REMOVABLE = ("nodes", "edges", "features", "node_features", "relations", "motifs")


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """What the absence of each player does to a place.

    An edge, or those of a relation or motif: taken out ("delete"), or the message is multiplied by zero ("message"). A
    node: so are all edges at it, unless removal is "features", and its features become the baseline's; from a graph
    that is pooled its row goes too. A feature: its column becomes the baseline's in every node, or in one
    ("node_features").

    Raises:
        Unsupported: players of another kind, or edges with removal "features".
        ValueError: marginal draws as a baseline: a model is trained on one graph.
    """

    number: GraphNumber
    players: Players

    def __post_init__(self) -> None:
        if self.players.kind not in REMOVABLE:
            raise Unsupported(
                f"what can be removed from a graph: labels, {', '.join(REMOVABLE)}; got {self.players.kind}"
            )
        if self._atoms == "edges" and self.number.removal == "features":
            raise Unsupported('removal="features" keeps every edge: remove nodes or features, or ask with "delete"')
        if self.number.baseline == "marginal" and self._replaces:
            raise ValueError('baseline="marginal" is an average over graphs, training needs one: use "zeros" or "mean"')

    @property
    def _atoms(self) -> str:
        return ATOMS.get(self.players.kind, self.players.kind)

    @property
    def _drops(self) -> bool:
        return self.players.kind == "nodes" and self.number.removal == "delete" and not self.number.focus

    @property
    def _replaces(self) -> bool:
        return self._atoms != "edges" and not self._drops

    @cached_property
    def owner(self) -> Tensor:
        """The player of each edge, node, feature column or entry of the whole graph, ``P`` for none."""
        return owners(self.players, whole(self.number.graph, self.number.focus), self.number.graph)

    def touching(self, place: Place) -> Tensor:
        """Players whose absence changes anything at all in this place, int64, sorted."""
        if self.players.kind == "features":
            return torch.arange(len(self.players))
        found = self._owned(place)
        seen = torch.cat([found, *self._ends(place)]) if self.players.kind == "nodes" else found
        seen = seen.unique()
        return seen[seen < len(self.players)].cpu()

    def edits(self, place: Place, players: Tensor) -> dict[str, Any]:
        """What changes in the copies of a place, one without each of these players, -1 for nobody."""
        players = players.to(self.owner.device)[:, None]
        present = self._owned(place) != players
        if self._atoms == "edges":
            return edge_edits(self.number.removal, present)
        if self._drops:
            return {"node_keep": present}
        absent = {kind: x[0] for kind, x in absent_features(self.number.graph, place, self.number.baseline).items()}
        if self._atoms == "nodes":
            source, end = self._ends(place)
            edges = (source != players) & (end != players)
            return node_edits(self.number.removal, place, present, absent, edges)
        return (column_edits if self._atoms == "features" else entry_edits)(place, present, absent)

    def _owned(self, place: Place) -> Tensor:
        """The player of each edge, node, column or entry of a place; stand-ins have none."""
        if self._atoms == "features":
            return self.owner
        if self._atoms == "edges":
            return self.owner[place.edges]
        if self._atoms == "node_features":
            entries = known_entries(place, self.number.graph).to(self.owner.device)
            return torch.where(entries >= 0, self.owner[entries.clamp_min(0)], len(self.players))
        return torch.where(place.nodes >= 0, self.owner[place.nodes.clamp_min(0)], len(self.players))

    def _ends(self, place: Place) -> tuple[Tensor, Tensor]:
        """The players at both ends of each edge, also where a stand-in is drawn for one."""
        source, end = self.owner[self.number.graph.flat_edges[:, place.edges]]
        return source, end
