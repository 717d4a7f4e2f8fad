"""The games on a graph: coalitions into numbers, by a fast path where the model agrees with it, else by the model."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from explain.graph.games.all_coalitions import table
from explain.graph.games.coalitions import Coalitions
from explain.graph.games.condensed import condensable
from explain.graph.games.fast.admission import FastPath, admitted
from explain.graph.games.fast.program import Refused
from explain.graph.games.locality import neighbourhoods
from explain.graph.games.singly import too_many
from explain.threads import alone
from explain.types import Game, Masks, NonFinite, Values

BOUNDARY = {"nothing": "complete", "unreached": "complete", "weighted": "weighted", "degrees": "left out"}
_FAST = 2**14  # coalitions that a fast path is given at once; it parts them further
_BUDGET = 2**23  # numbers held at once by the copies of one forward pass
_MOST = 2**31  # numbers of a matrix that is refused


@dataclass(eq=False)
class GraphGame(Coalitions):
    """The number for masks ``bool [coalitions, P]``, on the fast path for the model's present state if there is one."""

    _found: tuple[Hashable, FastPath | str] | None = field(default=None, init=False, repr=False)

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        fast = self.fast()
        size = self.number.batch_size or (_FAST if isinstance(fast, FastPath) else self._affordable())
        self._check_affordable(min(size, 2 ** len(self.players)))
        checks = {"removal": self.removal, **self.number.model.checks, **self.place.checks}
        if self.left_out is not None:
            checks["degree_edges"], checks["degree_edges_worth"] = self.left_out
        if isinstance(fast, FastPath):
            checks["fast_path"] = fast.note
        else:
            batching = "one by one" if self.single else "together"
            checks |= {"fast_path": f"no: {fast}", "boundary": BOUNDARY[self.trimming], "batching": batching}
        game = Game(self.players, self, batch_size=size, checks=checks)
        hops = self._hops(fast)
        if hops is not None:
            game.table = partial(table, self, self, hops)
        if self.players.kind == "nodes" and not self.place.focus:  # a pooled prediction may be a sum of local parts
            game.neighbourhoods = partial(neighbourhoods, self.place.graph, self.owner, len(self.players))
        return game

    def _hops(self, fast: FastPath | str) -> int | None:
        """From how far an edge or a node can matter; None where what it reaches says nothing."""
        if self.atoms not in ("edges", "nodes") or self.removal == "features" or len(self.place.focus) != 1:
            return None
        if isinstance(fast, FastPath):
            return fast.plans[0].program.depth
        return None if self.trimming == "nothing" else self.place.checks["hops"]

    def fast(self) -> FastPath | str:
        """The fast path for the model's present state, or why there is none."""
        state = self.number.model.state()
        if self._found is None or self._found[0] != state:
            try:
                found: FastPath | str = admitted(self)
            except Refused as refusal:
                found = str(refusal)
            self._found = (state, found)
        return self._found[1]

    @cached_property
    def left_out(self) -> tuple[int, float] | None:
        """How many edges that only count in a degree do not play, and what they are worth together; None for none."""
        place = self.place
        if place.degrees is None or self.atoms != "edges":
            return None
        idle = place.degrees & (self.owner == len(self.players))
        if not bool(idle.any()):
            return None
        with torch.no_grad():
            without = self.number.numbers(place, 1, edge_keep=~idle[None])
            worth = self.number.read(self.number.answer[None].double()) - without
        return int(idle.sum()), float(worth)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions.

        Raises:
            NonFinite: NaN or infinity for the graph without nodes.
        """
        masks = masks.to(self.owner.device)
        path = self.fast() if self._found is None or self._moved() else self._found[1]
        with alone(), torch.no_grad():  # hooks of some answers are around the model's own guard
            total = sum(self.number.read(self._answers(masks, draw, path).double()) for draw in range(self._draws))
        values = torch.as_tensor(total) / self._draws
        if self.drops and not self.place.focus and not values[~masks.any(1)].isfinite().all():
            raise NonFinite(
                "the model answers NaN or infinity for a graph without nodes (a mean over none?): ask with "
                'removal="message" or "features", which keep every node'
            )
        return values

    def _moved(self) -> bool:
        """Whether the model changed since the fast path was looked for, as far as a glance tells."""
        return self.number.model.findings.moved(self.number.model.net)

    def _answers(self, masks: Masks, draw: int, path: FastPath | str) -> Tensor:
        return self.outputs(masks, draw) if isinstance(path, str) else path.outputs(masks, draw)

    @property
    def _draws(self) -> int:
        return next(iter(self.absent.values())).size(0) if self._replaces else 1

    @property
    def rows_stay(self) -> bool:
        """Whether an absent node is still seen, though it should be gone."""
        return (
            self.players.kind == "nodes"
            and self.removal == "delete"
            and not self.place.smaller
            and "hops" not in self.place.checks
        )

    def _check_affordable(self, count: int) -> None:
        """Check that so many coalitions in one pass make no matrix of all pairs of nodes that memory does not hold.

        Raises:
            ValueError: they do.
        """
        numbers = self.place.squares * count**2
        if numbers > _MOST:
            raise ValueError(too_many(count, f"a matrix of all pairs of their nodes of {numbers * 4 / 2**30:,.0f} GB"))

    def _affordable(self) -> int:
        graph = self.place.graph
        if self.trimming in ("weighted", "degrees") and condensable(self.place):  # made in parts
            return min(max(1, _BUDGET // (graph.num_nodes + graph.num_edges)), 4096)
        return self.place.copies_at_once(graph.num_nodes) or min(max(1, _BUDGET // (graph.footprint + 1)), 4096)
