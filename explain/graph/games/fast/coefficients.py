"""The non-zeros of an aggregation's matrix in each coalition: who is present, and degrees in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from explain.graph.games.fast.program import Rule
from explain.graph.games.fast.scene import Entries, Scene, entries_into


@dataclass(frozen=True, eq=False)
class Coefficients:
    """``c [E, B]`` of a rule, for the entries into some rows, and for every coalition.

    A degree is a sum over the edges into a node, so that one sum over the players' presence gives it for all
    coalitions: no graph is built for any of them.
    """

    scene: Scene
    rule: Rule
    rows: Tensor

    @cached_property
    def entries(self) -> Entries:
        """The non-zeros."""
        return entries_into(self.scene, self.rule, self.rows)

    @property
    def vary(self) -> bool:
        """Whether they differ between coalitions."""
        return self.scene.edges_vary

    @cached_property
    def fixed(self) -> Tensor:
        """The coefficients ``[E, 1]`` with every player present."""
        everyone = torch.ones(self.scene.players + 1, 1, dtype=self.scene.x.dtype, device=self.rows.device)
        return self._of(everyone, degrees=everyone)

    def __call__(self, present: Tensor) -> Tensor:
        """``c [E, B]`` for the presence of each player, ``[P + 1, B]``, the last row ones."""
        if not self.vary:
            return self.fixed
        if self.scene.degrees_vary:
            return self._of(present, degrees=present)
        return self._presence(present) * self.fixed

    def _of(self, present: Tensor, degrees: Tensor) -> Tensor:
        made = self._presence(present)
        if self.rule.weights is not None or self.rule.loop not in (None, 1.0) or self.rule.own:
            made = made * self.entries.weight[:, None]
        if self.rule.kind == "sum":
            return made
        nodes, source, target = self._degree_rows
        degree = self._degrees(degrees, len(nodes))
        if self.rule.kind == "gcn":
            scale = degree.rsqrt_()
            if self.rule.loop is None or self.rule.weights is not None:  # else a node's own loop counts
                scale.masked_fill_(scale == torch.inf, 0)
            return made.mul_(scale.index_select(0, source)).mul_(scale.index_select(0, target))
        scale = degree.clamp(min=1).reciprocal().index_select(0, target)
        return made.mul_(scale.masked_fill_(self.entries.own[:, None], 1) if self.rule.own else scale)

    def _presence(self, present: Tensor) -> Tensor:
        made = present.index_select(0, self.entries.first)
        return made.mul_(present.index_select(0, self.entries.second)) if self.scene.kind == "nodes" else made

    @cached_property
    def _degree_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """The nodes whose degree is asked for, and where those of the two ends of each entry are among them."""
        ends = self.entries.target if self.rule.kind == "mean" else torch.stack(self.entries[:2])
        number, where = torch.unique(ends, return_inverse=True)
        return (number, where, where) if self.rule.kind == "mean" else (number, where[0], where[1])

    @cached_property
    def _degree_entries(self) -> tuple[Entries, Tensor]:
        """The entries that a degree sums, and the row of each."""
        nodes = self._degree_rows[0]
        counted = Rule(self.rule.kind, self.rule.loop, self.rule.weights if self.rule.kind == "gcn" else None)
        entries = entries_into(self.scene, counted, nodes)
        return entries, torch.searchsorted(nodes, entries.target)

    def _degrees(self, present: Tensor, nodes: int) -> Tensor:
        entries, row = self._degree_entries
        made = present.index_select(0, entries.first)
        if self.scene.kind == "nodes":
            made.mul_(present.index_select(0, entries.second))
        if self.rule.kind == "gcn" and (self.rule.weights is not None or self.rule.loop not in (None, 1.0)):
            made.mul_(entries.weight[:, None])
        return torch.zeros(nodes, made.size(1), dtype=made.dtype, device=made.device).index_add_(0, row, made)
