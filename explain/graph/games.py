"""The games on a graph: a batch of coalitions is one forward pass over copies of the computation graph."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explain.graph import edits
from explain.graph.absence import absent_edge_features, absent_features, rows
from explain.graph.agreement import relative, tolerance
from explain.graph.computation import Place
from explain.graph.condensed import Condensed, condensable, edge_weights, weighable
from explain.graph.fast.admission import FastPath, admitted
from explain.graph.fast.program import Refused
from explain.graph.players import ATOMS, KINDS, owners
from explain.graph.singly import out_of_memory, singly, too_many
from explain.graph.structure import EDGE
from explain.graph.table import table
from explain.graph.trimming import Relevant, Trimming, distinct, parts, relevant
from explain.threads import alone
from explain.types import Game, Masks, NonFinite, Players, Unsupported, Values

if TYPE_CHECKING:
    from explain.graph.targets import GraphTarget

BOUNDARY = {"nothing": "complete", "unreached": "complete", "weighted": "weighted", "degrees": "left out"}
REMOVALS = ("delete", "message", "features")
_FAST = 2**14  # coalitions that a fast path is given at once; it parts them further
_TRIMMED = 2**22  # the same for the parts of a graph that matter: what the cache holds
_BUDGET = 2**23  # numbers held at once by the copies of one forward pass
_MOST = 2**31  # numbers of a matrix that is refused
_TRIED = (0.6, 0.2)  # chance of each player in coalitions that are evaluated together and alone


@dataclass(eq=False)
class Coalitions:
    """The number for masks ``bool [coalitions, P]`` over nodes, edges or features of one target."""

    target: GraphTarget
    players: Players
    _found: tuple[Hashable, FastPath | str] | None = field(default=None, init=False, repr=False)
    _trim: tuple[Hashable, Trimming] | None = field(default=None, init=False, repr=False)
    _small: dict[Trimming, Condensed] = field(default_factory=dict, init=False, repr=False)
    _single: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        kind, removal = self.players.kind, self.target.removal
        if kind not in KINDS:
            raise Unsupported(f"a graph target plays with {', '.join(KINDS)}; got {kind!r}")
        if self.atoms == "edges" and removal == "features":
            raise Unsupported(
                'removal="features" keeps every edge: ask it of nodes or features, or use "delete" or "message"'
            )

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        fast = self.fast()
        size = self.target.batch_size or (_FAST if isinstance(fast, FastPath) else self._affordable())
        self._check_affordable(min(size, 2 ** len(self.players)))
        checks = {"removal": self.removal, **self.target.model.checks, **self.place.checks}
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
            game.table = partial(table, self, hops)
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
        programs = self.target.model.programs
        state = programs.current(self.target.model)
        if self._found is None or self._found[0] != state:
            try:
                found: FastPath | str = admitted(self, programs)
            except Refused as refusal:
                found = str(refusal)
            self._found = (state, found)
        return self._found[1]

    @property
    def removal(self) -> str:
        """What absence means for these players: features are always replaced."""
        return "features" if self.atoms.endswith("features") else self.target.removal

    @property
    def atoms(self) -> str:
        """What players own: "edges", "nodes", or features of some sort."""
        return ATOMS.get(self.players.kind, self.players.kind)

    @property
    def place(self) -> Place:
        """Where coalitions are evaluated."""
        return self.target.place_of(self.players.kind)

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
            without = self.target.numbers(place, 1, edge_keep=~idle[None])
            worth = self.target.number(self.target.answer[None].double()) - without
        return int(idle.sum()), float(worth)

    @cached_property
    def owner(self) -> Tensor:
        """The player of each edge, node or feature column of the place, ``P`` (always present) where it has none."""
        return owners(self.players, self.place, self.target.graph)

    @cached_property
    def absent(self) -> dict[Any, Tensor]:
        """Absent features by node type ``[draws, nodes, features]``, or by edge type ``[draws, edges, columns]``."""
        what = absent_edge_features if self.atoms == "edge_features" else absent_features
        return what(self.target.graph, self.place, self.target.baseline)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions.

        Raises:
            NonFinite: NaN or infinity for the graph without nodes.
        """
        masks = masks.to(self.owner.device)
        path = self.fast() if self._found is None or self._moved() else self._found[1]
        with alone(), torch.no_grad():  # hooks of some answers are around the model's own guard
            total = sum(self.target.number(self._answers(masks, draw, path).double()) for draw in range(self._draws))
        values = torch.as_tensor(total) / self._draws
        if self.drops and not self.place.focus and not values[~masks.any(1)].isfinite().all():
            raise NonFinite(
                "the model answers NaN or infinity for a graph without nodes (a mean over none?): ask with "
                'removal="message" or "features", which keep every node'
            )
        return values

    def _moved(self) -> bool:
        """Whether the model changed since the fast path was looked for, as far as a glance tells."""
        return self.target.model.programs.moved(self.target.model)

    def _answers(self, masks: Masks, draw: int, path: FastPath | str) -> Tensor:
        return self.outputs(masks, draw) if isinstance(path, str) else path.outputs(masks, draw)

    def outputs(self, masks: Masks, draw: int = 0) -> Tensor:
        """What the model itself answers in each coalition, ``[coalitions, outputs]``.

        Raises:
            ValueError: memory does not hold what the model makes of so many at once.
        """
        if not self.single:
            try:
                return self._together(masks, draw)
            except Exception as error:  # whatever a user's forward raises of so many, or of one of them
                if isinstance(error, (Unsupported, NonFinite)):
                    raise
                if out_of_memory(error):
                    raise ValueError(too_many(len(masks), str(error))) from error
                self._single = True
        return singly(self, masks, draw)

    @property
    def single(self) -> bool:
        """Whether coalitions are evaluated one by one, as some of these answer otherwise when they are together."""
        if self._single is None:
            self._single = not self.place.together or not self._agrees()
        return self._single

    def _agrees(self) -> bool:
        """Whether a few coalitions of these players answer together as each does alone.

        A place that is no cut was tried itself; what is known of cuts was seen on another, which may have been smaller.
        """
        if "hops" not in self.place.checks:
            return True
        generator = torch.Generator().manual_seed(0)
        masks = torch.rand(len(_TRIED), len(self.players), generator=generator) < torch.tensor(_TRIED)[:, None]
        masks = masks[masks.any(1)].to(self.owner.device)
        if not len(masks):
            return True
        try:
            with torch.no_grad():
                together = self._together(masks, 0)
                alone = torch.cat([self.copied(one, 0) for one in masks.split(1)])
        except Exception:  # whatever a user's forward raises: one by one says on which
            return False
        return relative(together, alone) <= tolerance(alone)

    def _together(self, masks: Masks, draw: int) -> Tensor:
        trimming = self._trimming
        return self.untrimmed(masks, draw) if trimming == "nothing" else self.trimmed(masks, draw, trimming)

    @property
    def trimming(self) -> Trimming:
        """What of a coalition's graph is left out because it cannot reach the explained node."""
        return "nothing" if self.single else self._trimming

    @property
    def _trimming(self) -> Trimming:
        if self.atoms not in ("edges", "nodes") or self.removal != "delete" or not self.place.together:
            return "nothing"
        whole = self.target.model.inputs.matrices or self.place.squares
        if self.place.checks.get("direction") != "in" or whole:
            return "nothing"
        programs = self.target.model.programs
        if self._trim is None or self._trim[0] != programs.state:
            self._trim = (programs.state, programs.trimming(self))
        return self._trim[1]

    @property
    def has_border(self) -> bool:
        """Whether there are edges that only count in a degree, and do: no loops, none of weight zero."""
        graph = self.place.graph
        source, target = graph.flat_edges
        border = ~self.place.reachable & (source != target)
        if condensable(self.place):
            for value in graph.edge_fields[EDGE].values():
                border &= rows(value).any(1)
        return bool(border.any())

    def trimmed(self, masks: Masks, draw: int, trimming: Trimming) -> Tensor:
        """What the model answers on the parts that matter, asked once for coalitions that agree in them."""
        if trimming != "unreached" and condensable(self.place):
            return self._condensed_answers(masks, trimming)
        edge_keep = self._edits(masks, draw)["edge_keep"]
        kept = relevant(self.place, edge_keep, degrees=trimming == "unreached")
        first, kind = distinct(kept)
        kept, masks = kept.at(first), masks[first]
        groups = parts(kept.sizes(), _TRIMMED // (self._width + 32))
        answers = [self._part(masks[group], kept.at(group), draw) for group in groups]
        order = torch.cat(groups)
        return torch.cat(answers)[order.argsort()][kind]

    @property
    def _width(self) -> int:
        """Numbers that one node holds."""
        return sum(x.numel() // max(len(x), 1) for fields in self.place.graph.nodes.values() for x in fields.values())

    def _part(self, masks: Masks, kept: Relevant, draw: int) -> Tensor:
        edited = {**self._edits(masks, draw), "edge_keep": kept.edge_keep, "node_keep": kept.node_keep}
        return self.target.outputs(self.place, len(masks), **edited)

    @property
    def weighable(self) -> bool:
        """Whether edges that only count in a degree can be summed into one."""
        return condensable(self.place) and weighable(self.place, self.target.module)

    def _condensed_answers(self, masks: Masks, trimming: Trimming) -> Tensor:
        """What the model answers where copies share the farthest nodes."""
        if trimming not in self._small:
            owner = self.owner if self.atoms == "edges" else self.owner[self.place.graph.flat_edges[0]]
            self._small[trimming] = Condensed(self.place, owner, len(self.players), trimming == "weighted")
        small = self._small[trimming]
        kept, kind = small.kept(masks)
        groups = parts(kept.sizes(self._width), _TRIMMED)
        answers = []
        for group in groups:
            made, weights = small.made(kept.at(group))
            with edge_weights(self.target.module, weights) if small.injected else nullcontext():
                answers.append(self.target.answers(self.place, made))
        return torch.cat(answers)[torch.cat(groups).argsort()][kind]

    def untrimmed(self, masks: Masks, draw: int = 0) -> Tensor:
        """What the model answers on copies of the whole place."""
        if self.drops:  # a last, complete copy: pooling counts graphs by the highest number it sees
            return self.copied(torch.cat([masks, torch.ones_like(masks[:1])]), draw)[:-1]
        return self.copied(masks, draw)

    def copied(self, masks: Masks, draw: int) -> Tensor:
        """What the model answers on copies of the whole place, nothing beside them."""
        return self.target.outputs(self.place, len(masks), **self._edits(masks, draw))

    @property
    def _draws(self) -> int:
        return next(iter(self.absent.values())).size(0) if self._replaces else 1

    @property
    def _replaces(self) -> bool:
        """Whether absence puts other features in place."""
        return self.atoms != "edges" and not self.drops

    @property
    def drops(self) -> bool:
        """Whether an absent node leaves the graph with its row: it must not be pooled, or seen by norms."""
        return self.players.kind == "nodes" and self.place.smaller

    @property
    def rows_stay(self) -> bool:
        """Whether an absent node is still seen, though it should be gone."""
        return (
            self.players.kind == "nodes"
            and self.removal == "delete"
            and not self.place.smaller
            and "hops" not in self.place.checks
        )

    def _edits(self, masks: Masks, draw: int) -> dict[str, Any]:
        """What the coalitions change in their copies of the graph."""
        present = torch.cat([masks, masks.new_ones(len(masks), 1)], 1)[:, self.owner]
        if self.atoms == "edges":
            return edits.edge_edits(self.removal, present)
        if self.drops:
            return {"node_keep": present}
        absent = {kind: draws[draw] for kind, draws in self.absent.items()}
        if self.atoms == "nodes":
            return edits.node_edits(self.removal, self.place, present, absent)
        if self.atoms == "edge_features":
            return edits.edge_column_edits(self.place, present, absent)
        replaced = edits.column_edits if self.atoms == "features" else edits.entry_edits
        return replaced(self.place, present, absent)

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
        numbers = sum(x.numel() for fields in graph.nodes.values() for x in fields.values())
        each = numbers + 32 * (graph.num_nodes + graph.num_edges) + 1
        return self.place.copies_at_once(graph.num_nodes) or min(max(1, _BUDGET // each), 4096)
