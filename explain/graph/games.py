"""The games on a graph: a batch of coalitions is one forward pass over copies of the computation graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explain.graph.absence import absent_features, feature_matrix
from explain.graph.computation import Place
from explain.graph.players import KINDS, owners
from explain.graph.structure import Fields
from explain.types import Game, Masks, NonFinite, Players, Unsupported, Values

if TYPE_CHECKING:
    from explain.graph.targets import GraphTarget

REMOVALS = ("delete", "message", "features")
_BUDGET = 2**23  # numbers held at once by the copies of one forward pass


@dataclass(frozen=True, eq=False)
class Coalitions:
    """The number for masks ``bool [coalitions, P]`` over nodes, edges or features of one target."""

    target: GraphTarget
    players: Players

    def __post_init__(self) -> None:
        kind, removal = self.players.kind, self.target.removal
        if kind not in KINDS:
            raise Unsupported(f"a graph target plays with {', '.join(KINDS)}; got {kind!r}")
        if kind == "edges" and removal == "features":
            raise Unsupported(
                'removal="features" keeps every edge: ask it of nodes or features, or use "delete" or "message"'
            )

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        size = self.target.batch_size or self._affordable()
        _ = self.owner  # players that do not fit are refused now, not in the first call
        checks = {"removal": self.removal, **self.target.place.checks}
        return Game(self.players, self, batch_size=size, checks=checks)

    @property
    def removal(self) -> str:
        """What absence means for these players: feature players are always replaced."""
        return "features" if self.players.kind == "features" else self.target.removal

    @property
    def place(self) -> Place:
        """Where coalitions are evaluated."""
        return self.target.place

    @cached_property
    def owner(self) -> Tensor:
        """The player of each edge, node or feature column of the place, ``P`` (always present) where it has none."""
        return owners(self.players, self.place, self.target.graph)

    @cached_property
    def absent(self) -> Fields:
        """Absent features by node type, ``[draws, nodes, features]``."""
        return absent_features(self.target.graph, self.place, self.target.baseline)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        groups = [masks] if self.place.together else list(masks.split(1))
        with torch.no_grad():
            return torch.cat([self._values(group.to(self.owner.device)) for group in groups])

    def _values(self, masks: Masks) -> Values:
        draws = next(iter(self.absent.values())).size(0) if self._replaces else 1
        dropped = self._drops and self.place.together
        if dropped:  # a last, complete copy: pooling counts graphs by the highest number it sees
            masks = torch.cat([masks, torch.ones_like(masks[:1])])
        total = sum(self.target.numbers(self.place, len(masks), **self._edits(masks, draw)) for draw in range(draws))
        values = torch.as_tensor(total) / draws
        values = values[:-1] if dropped else values
        if self._drops and not values[~masks[: len(values)].any(1)].isfinite().all():
            raise NonFinite(
                "the model answers NaN or infinity for a graph without nodes (a mean over none?): ask with "
                'removal="message" or "features", which keep every node'
            )
        return values

    @property
    def _replaces(self) -> bool:
        """Whether absence puts other features in place."""
        return self.players.kind != "edges" and not self._drops

    @property
    def _drops(self) -> bool:
        """Whether an absent node leaves the graph with its row: it must not be pooled."""
        return self.players.kind == "nodes" and self.removal == "delete" and not self.place.focus

    def _edits(self, masks: Masks, draw: int) -> dict[str, Any]:
        """What the coalitions change in their copies of the graph."""
        present = torch.cat([masks, masks.new_ones(len(masks), 1)], 1)[:, self.owner]
        if self.players.kind == "features":
            return {"features": self._features(present, draw)}
        if self.players.kind == "edges":
            return {"edge_keep": present} if self.removal == "delete" else {"amounts": present}
        if self._drops:
            return {"node_keep": present}
        edits: dict[str, Any] = {"features": self._features(present, draw)}
        source, target = self.place.graph.flat_edges
        if self.removal != "features":
            edits["edge_keep" if self.removal == "delete" else "amounts"] = present[:, source] & present[:, target]
        return edits

    def _features(self, present: Tensor, draw: int) -> Fields:
        """Features of each copy: ``present`` says which nodes, or which columns, keep theirs."""
        graph, made, column = self.place.graph, {}, 0
        for kind in graph.counts:
            x = feature_matrix(graph, kind)
            if self.players.kind == "nodes":
                start = graph.node_starts[kind]
                here = present[:, start : start + len(x), None]
            else:
                here = present[:, None, column : column + x.size(1)]
                column += x.size(1)
            if "x" in graph.nodes[kind]:
                chosen = torch.where(here, x, self.absent[kind][draw])
                made[kind] = chosen.reshape(len(present), *graph.nodes[kind]["x"].shape)
        return made

    def _affordable(self) -> int:
        graph = self.place.graph
        numbers = sum(x.numel() for fields in graph.nodes.values() for x in fields.values())
        each = numbers + 32 * (graph.num_nodes + graph.num_edges) + 1
        if self.target.model.inputs.dense:  # a block-diagonal matrix grows with the square of the copies
            return max(1, int(_BUDGET**0.5) // max(graph.num_nodes, 1))
        return min(max(1, _BUDGET // each), 4096)
