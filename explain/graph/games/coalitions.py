"""Coalitions on a graph: what the model itself answers, in copies of the place where the rest is absent."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from explain.graph.findings import Trimming
from explain.graph.games.condensed import Condensed, condensable, weighable
from explain.graph.games.singly import out_of_memory, singly, too_many
from explain.graph.games.trials import trials
from explain.graph.games.trimming import Relevant, distinct, parts, relevant
from explain.graph.hooks.edge_weights import edge_weights
from explain.graph.number import GraphNumber
from explain.graph.players import removals
from explain.graph.players.absent_features import absent_edge_features, absent_features, rows
from explain.graph.players.kinds import ATOMS, KINDS, owners
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import BESIDE, EDGE
from explain.spelling import came
from explain.types import Masks, NonFinite, Players, Unsupported, present_atoms

_TRIMMED = 2**22  # numbers held at once by the parts of a graph that matter: what the cache holds
_TRIED = (0.6, 0.2)  # chance of each player in coalitions that are evaluated together and alone


@dataclass(eq=False)
class Coalitions:
    """What the model answers for masks ``bool [coalitions, P]`` over nodes, edges or features of one number.

    Args:
        number: what is asked.
        place: where coalitions of these players are evaluated.
        players: who plays.

    Raises:
        Unsupported: players of another kind, or edges where ``removal="features"`` keeps them all.
    """

    number: GraphNumber
    place: Place
    players: Players
    _trim: tuple[Hashable, Trimming] | None = field(default=None, init=False, repr=False)
    _small: dict[Trimming, Condensed] = field(default_factory=dict, init=False, repr=False)
    _single: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        kind, removal = self.players.kind, self.number.removal
        if kind not in KINDS:
            raise Unsupported(f"a graph target plays with {', '.join(KINDS)}; {came(kind, KINDS)}")
        if self.atoms == "edges" and removal == "features":
            raise Unsupported(
                'removal="features" keeps every edge: ask it of nodes or features, or use "delete" or "message"'
            )

    @property
    def removal(self) -> str:
        """What absence means for these players: features are always replaced."""
        return "features" if self.atoms.endswith("features") else self.number.removal

    @property
    def atoms(self) -> str:
        """What players own: "edges", "nodes", or features of some sort."""
        return ATOMS.get(self.players.kind, self.players.kind)

    @cached_property
    def owner(self) -> Tensor:
        """The player of each edge, node or feature column of the place, ``P`` (always present) where it has none."""
        return owners(self.players, self.place, self.number.graph)

    @cached_property
    def absent(self) -> dict[Any, Tensor]:
        """Absent features by node type ``[draws, nodes, features]``, or by edge type ``[draws, edges, columns]``."""
        what = absent_edge_features if self.atoms == "edge_features" else absent_features
        return what(self.number.graph, self.place, self.number.baseline)

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
        return self.one_by_one(masks, draw)

    def one_by_one(self, masks: Masks, draw: int = 0) -> Tensor:
        """What the model itself answers, each coalition in a pass of its own; see `singly`."""
        pooled = self.drops and not self.place.focus
        return singly(partial(self.copied, draw=draw), masks, self.players, (self.atoms, self.removal), pooled)

    @property
    def single(self) -> bool:
        """Whether coalitions are evaluated one by one, as some of these answer otherwise when they are together."""
        if self._single is None:
            self._single = not self.place.together or not self._agrees()
        return self._single

    def _agrees(self) -> bool:
        """Whether a few coalitions of these players answer together as each does alone.

        A place that is no cut was tried itself, but not without some of its rows where a node is asked about; what is
        known of cuts was seen on another, which may have been smaller.
        """
        if "hops" not in self.place.checks and not (self.drops and self.place.focus):
            return True
        generator = torch.Generator().manual_seed(0)
        masks = torch.rand(len(_TRIED), len(self.players), generator=generator) < torch.tensor(_TRIED)[:, None]
        masks = masks[masks.any(1)].to(self.owner.device)
        if not len(masks):
            return True
        try:
            with torch.no_grad():
                together = self._together(masks, 0)
                alone = torch.cat([self.copied(one) for one in masks.split(1)])
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
        inputs = self.number.model.inputs
        whole = inputs.matrices or self.place.squares or inputs.recomputed
        if self.place.checks.get("direction") != "in" or whole:
            return "nothing"
        findings = self.number.model.findings
        if self._trim is None or self._trim[0] != findings.state:
            self._trim = (findings.state, self._found_trimming(findings.trims))
        return self._trim[1]

    def _found_trimming(self, trims: dict[str, Trimming]) -> Trimming:
        """How much may be left out before the model answers otherwise.

        Found once for each state; other numbers are held against complete copies in a few coalitions.
        """
        first = self.atoms not in trims
        masks = self.trials(few=not first)
        with torch.no_grad():
            complete = self.untrimmed(masks)
        allowed = tolerance(self.number.answer)

        def fits(how: Trimming) -> bool:
            with torch.no_grad():
                return relative(self.trimmed(masks, 0, how), complete) <= allowed

        if not first:
            how = trims[self.atoms]
            return next((each for each in (how, "unreached") if each == "nothing" or fits(each)), "nothing")
        tight: list[Trimming] = ["degrees", "weighted"] if self.weighable else ["degrees"]
        if not fits("unreached"):
            trims[self.atoms] = "nothing"
        elif self.has_border:  # else this number cannot tell whether degrees are looked at
            trims[self.atoms] = next((how for how in tight if fits(how)), "unreached")
        return trims.get(self.atoms, "unreached")

    def trials(self, few: bool = False) -> Masks:
        """Coalitions by which another way to evaluate is held against the model; see `trials`."""
        return trials(self.place, self.owner, len(self.players), self.atoms == "edges", few)

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
        groups = parts(kept.sizes(), _TRIMMED // (self._width + BESIDE))
        answers = [self._part(masks[group], kept.at(group), draw) for group in groups]
        order = torch.cat(groups)
        return torch.cat(answers)[order.argsort()][kind]

    @property
    def _width(self) -> int:
        """Numbers that one node holds."""
        return sum(x.numel() // max(len(x), 1) for fields in self.place.graph.nodes.values() for x in fields.values())

    def _part(self, masks: Masks, kept: Relevant, draw: int) -> Tensor:
        edited = {**self._edits(masks, draw), "edge_keep": kept.edge_keep, "node_keep": kept.node_keep}
        return self.number.outputs(self.place, len(masks), **edited)

    @property
    def weighable(self) -> bool:
        """Whether edges that only count in a degree can be summed into one."""
        return condensable(self.place) and weighable(self.place, self.number.module)

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
            with edge_weights(self.number.module, weights) if small.injected else nullcontext():
                answers.append(self.number.answers(self.place, made))
        return torch.cat(answers)[torch.cat(groups).argsort()][kind]

    def untrimmed(self, masks: Masks, draw: int = 0) -> Tensor:
        """What the model answers on copies of the whole place."""
        if self.drops:  # a last, complete copy: pooling counts graphs by the highest number it sees
            return self.copied(torch.cat([masks, torch.ones_like(masks[:1])]), draw)[:-1]
        return self.copied(masks, draw)

    def copied(self, masks: Masks, draw: int = 0) -> Tensor:
        """What the model answers on copies of the whole place, nothing beside them."""
        return self.number.outputs(self.place, len(masks), **self._edits(masks, draw))

    @property
    def _replaces(self) -> bool:
        """Whether absence puts other features in place."""
        return self.atoms != "edges" and not self.drops

    @property
    def drops(self) -> bool:
        """Whether an absent node leaves the graph with its row: it must not be pooled, or seen by norms."""
        return self.players.kind == "nodes" and self.place.smaller

    def _edits(self, masks: Masks, draw: int) -> dict[str, Any]:
        """What the coalitions change in their copies of the graph."""
        present = present_atoms(masks, self.owner)
        if self.atoms == "edges":
            return removals.edge_edits(self.removal, present)
        if self.drops:
            return {"node_keep": present}
        absent = {kind: draws[draw] for kind, draws in self.absent.items()}
        if self.atoms == "nodes":
            return removals.node_edits(self.removal, self.place, present, absent)
        if self.atoms == "edge_features":
            return removals.edge_column_edits(self.place, present, absent)
        replaced = removals.column_edits if self.atoms == "features" else removals.entry_edits
        return replaced(self.place, present, absent)
