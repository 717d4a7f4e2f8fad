"""A program on a scene: each operation only on the rows still needed, what no coalition changes done beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from explain.graph.games.fast import steps
from explain.graph.games.fast.attention import Attention, rule_of
from explain.graph.games.fast.coefficients import Coefficients
from explain.graph.games.fast.linear_parts import Known, Part
from explain.graph.games.fast.program import (
    Affine,
    Aggregate,
    Attend,
    Combine,
    Concat,
    Input,
    Largest,
    Linear,
    Op,
    Pool,
    Program,
    Refused,
    Rowwise,
    Rule,
)
from explain.graph.games.fast.scene import Entries, Scene

_NUMBERS = 2**20  # numbers of one batch at a time: what stays in the cache
_PRODUCT = 8  # multiply-adds of a matrix product take the time of one alone

Value: TypeAlias = Known | int  # known beforehand, or the slot it is computed into


@dataclass(eq=False)
class Plan:
    """The steps of a program on a scene, and the rows ``[focus, outputs]`` they lead to."""

    program: Program
    scene: Scene
    steps: list[tuple[int, steps.Step, tuple[int, ...]]] = field(default_factory=list)
    width: int = 1

    def outputs(self, present: Tensor) -> Tensor:
        """The explained row in each coalition, ``[B, outputs]``, for ``present [P + 1, B]``."""
        size = max(64, _NUMBERS // self.width)
        return torch.cat([self._outputs(part) for part in present.split(size, 1)])

    def _outputs(self, present: Tensor) -> Tensor:
        batch = steps.Batch(present.contiguous())
        for slot, step, done in self.steps:
            batch.values[slot] = step(batch)
            for past in done:
                del batch.values[past]
        return batch.values[self.steps[-1][0]][0].t()


def planned(program: Program, scene: Scene) -> Plan:
    """Lay out a program.

    Raises:
        Refused: the scene holds something the fast path does not do.
    """
    return _Planner(program, scene).plan()


class _Planner:
    def __init__(self, program: Program, scene: Scene) -> None:
        self.program, self.scene = program, scene
        self.rows = self._needed()
        self.rules = self._rules()
        self.values: list[Value] = []
        self.steps: list[tuple[int, steps.Step]] = []
        self.width = 0

    def plan(self) -> Plan:
        for position, op in enumerate(self.program.ops):
            self.values.append(self._value(position, op))
        last = self.values[-1]
        if isinstance(last, Known):
            self._step(steps.Materialise(last), *last.parts[0].value.shape[:2])
        return Plan(self.program, self.scene, _with_ends(self.steps), self.width + 1)

    # --- rows ---

    def _needed(self) -> list[Tensor]:
        """The rows, sorted, of each operation that later ones still read.

        Raises:
            Refused: the answer is neither one node's nor a pooled graph's.
        """
        ops, device = self.program.ops, self.scene.x.device
        needed = [torch.zeros(self.scene.nodes, dtype=torch.bool, device=device) for _ in ops]
        if len(self.scene.focus) == 1:
            needed[-1][self.scene.focus] = True
        elif len(self.scene.focus) or not any(isinstance(op, Pool) for op in ops):
            raise Refused("the answer is neither one node's nor the whole graph's")
        pooled = False
        for position in reversed(range(len(ops))):
            op, rows = ops[position], needed[position]
            if isinstance(op, Pool):
                if len(self.scene.focus):
                    raise Refused("a pooled graph in the answer for a node")
                rows, pooled = torch.ones_like(rows), True
            if isinstance(op, (Aggregate, Attend)):
                rows = self._around(op, rows)
            for source in op.sources:
                needed[source] |= rows
        if not len(self.scene.focus) and not pooled:
            raise Refused("no pooled graph in the answer")
        return [rows.nonzero().view(-1) for rows in needed]

    def _around(self, op: Aggregate | Attend, rows: Tensor) -> Tensor:
        near = torch.zeros_like(rows)
        near[self.scene.source[rows[self.scene.target]]] = True
        itself = op.rule.looks_at_itself if isinstance(op, Aggregate) else True
        return near | rows if itself else near

    def _rules(self) -> dict[Rule, Coefficients]:
        """Coefficients for every row that a rule is asked for."""
        rows: dict[Rule, list[Tensor]] = {}
        for op, needed in zip(self.program.ops, self.rows, strict=True):
            if isinstance(op, (Aggregate, Attend)):
                rows.setdefault(op.rule if isinstance(op, Aggregate) else rule_of(op), []).append(needed)
        return {rule: Coefficients(self.scene, rule, torch.cat(found).unique()) for rule, found in rows.items()}

    def _where(self, position: int, rows: Tensor) -> Tensor:
        """The places of these nodes among the rows of an operation."""
        return torch.searchsorted(self.rows[position], rows)

    # --- values ---

    def _step(self, step: steps.Step, rows: int, channels: int) -> int:
        slot = len(self.steps)
        self.steps.append((slot, step))
        self.width += rows * channels
        return slot

    def _read(self, source: int, position: int) -> Value:
        """The value of a source on the rows of an operation."""
        value, rows = self.values[source], self.rows[position]
        if len(rows) == len(self.rows[source]) or isinstance(self.program.ops[source], Pool):
            return value
        where = self._where(source, rows)
        if isinstance(value, Known):
            return value.at(where)
        return self._step(steps.Select(value, where), len(rows), 0)

    def _slot(self, value: Value) -> int:
        if isinstance(value, int):
            return value
        return self._step(steps.Materialise(value), *value.parts[0].value.shape[:2])

    def _value(self, position: int, op: Op) -> Value:
        if isinstance(op, Input):
            return self._input(self.rows[position])
        if isinstance(op, Aggregate):
            return self._aggregate(position, op)
        if isinstance(op, Attend):
            return self._attend(position, op)
        if isinstance(op, Pool):
            return self._pool(op)
        read = [self._read(source, position) for source in op.sources]
        rows = max(len(self.rows[position]), 1)
        if isinstance(op, Linear):
            return self._linear(read[0], op, rows)
        if isinstance(op, Affine):
            return self._affine(read[0], op, rows)
        if isinstance(op, Rowwise):
            return self._rowwise(read[0], op, rows)
        return self._join(read, op, rows)

    def _input(self, rows: Tensor) -> Known:
        scene, x, absent = self.scene, self.scene.x[rows], self.scene.absent[rows]
        if scene.kind == "edges":
            return Known((Part(x),))
        by = "rows" if scene.kind == "nodes" else "columns"
        moved = Part(x - absent, by, scene.owner[rows] if by == "rows" else scene.owner)
        return Known((moved, Part(absent))) if bool((absent != 0).any()) else Known((moved,))

    def _linear(self, value: Value, op: Linear, rows: int) -> Value:
        if isinstance(value, Known):
            return value.linear(op.weight, op.bias, self.scene.players)
        return self._step(steps.Weigh(value, op.weight, op.bias), rows, len(op.weight))

    def _affine(self, value: Value, op: Affine, rows: int) -> Value:
        scale, shift = (None if part is None else part.to(self.scene.x) for part in (op.scale, op.shift))
        if isinstance(value, int):
            return self._step(steps.Scale(value, scale, shift), rows, 0 if scale is None else 1)
        value = value if scale is None else value.scaled(scale)
        return value if shift is None else value.shifted(shift)

    def _rowwise(self, value: Value, op: Rowwise, rows: int) -> Value:
        if isinstance(value, Known) and value.constant is not None:
            return Known((Part(op.function(value.constant)),))
        return self._step(steps.Map(self._slot(value), op.function), rows, 1)

    def _join(self, read: list[Value], op: Combine | Concat | Largest, rows: int) -> Value:
        if isinstance(op, Combine):
            factors = op.factors
            known = [value for value in read if isinstance(value, Known)]
            if len(known) == len(read):
                one = self.scene.x.new_ones(1)
                made = known[0].scaled(one * factors[0])
                for value, factor in zip(known[1:], factors[1:], strict=True):
                    made = made.plus(value.scaled(one * factor))
                return made

            def function(values: list[Tensor]) -> Tensor:
                made = values[0] if factors[0] == 1 else values[0] * factors[0]
                for value, factor in zip(values[1:], factors[1:], strict=True):
                    made = torch.add(made, value, alpha=factor)
                return made

        elif isinstance(op, Concat):

            def function(values: list[Tensor]) -> Tensor:
                return torch.cat(values, 1)

        else:

            def function(values: list[Tensor]) -> Tensor:
                return torch.stack(values).amax(0)

        return self._step(steps.Join(tuple(self._slot(value) for value in read), function), rows, 16)

    def _pool(self, op: Pool) -> Value:
        slot = self._slot(self.values[op.sources[0]])
        gone = self.scene.kind == "nodes" and self.scene.removal == "delete"
        return self._step(steps.Total(slot, op.mean, self.scene.owner if gone else None), 1, 16)

    # --- aggregation ---

    def _aggregate(self, position: int, op: Aggregate) -> Value:
        coefficients, rows, source = self.rules[op.rule], self.rows[position], op.sources[0]
        value = self.values[source]
        entry, entries = self._entry(coefficients, rows)
        near, which = self._where(source, entries.source), entry.which
        if isinstance(value, int):
            return self._gather(value, op, entry, near, len(self.rows[source]))
        fixed = not coefficients.vary and all(part.by != "rows" for part in value.parts)
        value, weight, bias = self._weighed_first(value, op, len(near), len(rows), fixed)
        if fixed:
            matrix = self.scene.x.new_zeros(len(rows), len(self.rows[source]))
            own = coefficients.fixed if which is None else coefficients.fixed[which]
            place = torch.searchsorted(rows, entries.target), near
            matrix.index_put_(place, own.view(-1), accumulate=True)
            value = Known(tuple(part.mixed(matrix) for part in value.parts))
            if weight is not None:
                return value.linear(weight, bias, self.scene.players)
            return value if bias is None else value.shifted(bias)
        return self._gather_known(value, entry, near, weight, bias)

    def _entry(self, coefficients: Coefficients, rows: Tensor) -> tuple[steps.Entry, Entries]:
        """The entries of a rule in these rows."""
        entries, which = coefficients.entries, None
        if len(rows) < len(coefficients.rows):
            which = torch.isin(entries.target, rows).nonzero().view(-1)
            entries = entries.chosen(which)
        sizes = torch.bincount(torch.searchsorted(rows, entries.target), minlength=len(rows)).tolist()
        return steps.Entry(coefficients, which, sizes), entries

    def _attend(self, position: int, op: Attend) -> int:
        rows, source = self.rows[position], op.sources[0]
        inside, channels = len(self.rows[source]), len(op.weight)
        entry, entries = self._entry(self.rules[rule_of(op)], rows)
        near, own = self._where(source, entries.source), self._where(source, rows)
        value = self._linear(self.values[source], Linear(op.sources, op.weight), inside)
        constant = value.constant if isinstance(value, Known) else None
        slot, shared = (self._slot(value), None) if constant is None else (None, constant[:, :, None])
        self.width += max(entry.sizes, default=0) * op.source.size(0) * 4 + 2 * inside * op.source.size(0)
        after = self.scene.edges_vary and not self.scene.degrees_vary
        return self._step(Attention(slot, shared, op, entry, near, own, after), len(rows), channels)

    def _weighed_first(
        self, value: Known, op: Aggregate, entries: int, rows: int, fixed: bool
    ) -> tuple[Known, Tensor | None, Tensor | None]:
        """Multiply by the weights once for all coalitions, unless the features are fewer than the channels."""
        weight = op.weight
        if weight is None:
            return value, None, op.bias
        into, out = weight.size(1), weight.size(0)
        columns = any(part.by == "columns" for part in value.parts)
        if not (fixed and columns) and entries * out <= entries * into + rows * into * out:
            return value.linear(weight, None, self.scene.players), None, op.bias
        return value, weight, op.bias

    def _gather_known(
        self, value: Known, entry: steps.Entry, near: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> int:
        parts = [part.at(near) for part in value.parts]
        split = [[rows.t().contiguous() for rows in part.value.split(entry.sizes)] for part in parts]
        owners = [part.owner if part.by == "rows" else None for part in parts]
        into = parts[0].value.size(1)
        channels = max(into, 0 if weight is None else len(weight))
        self.width += len(near) * (1 + sum(owner is not None for owner in owners))
        return self._step(steps.GatherKnown(entry, split, owners, into, weight, bias), len(entry.sizes), channels)

    def _gather(self, value: int, op: Aggregate, entry: steps.Entry, near: Tensor, inside: int) -> int:
        sources = [part.tolist() for part in near.split(entry.sizes)]
        first, channels = False, 0
        if op.weight is not None:
            out, into = op.weight.shape
            weighing = into * out / _PRODUCT
            first = len(near) * out + inside * weighing < len(near) * into + len(sources) * weighing
            channels = out
        made = steps.Gather(value, entry, sources, op.weight, op.bias, first)
        return self._step(made, len(sources), max(channels, 1))


def _with_ends(made: list[tuple[int, steps.Step]]) -> list[tuple[int, steps.Step, tuple[int, ...]]]:
    """Each step with the slots that no later step reads."""
    last: dict[int, int] = {}
    for slot, step in made:
        for source in getattr(step, "sources", (getattr(step, "source", None),)):
            if source is not None:
                last[source] = slot
    ends: dict[int, list[int]] = {}
    for slot, reader in last.items():
        ends.setdefault(reader, []).append(slot)
    fresh = {slot for slot, step in made if not isinstance(step, (steps.Materialise, steps.Select))}
    found = []
    for slot, step in made:
        done = tuple(ends.get(slot, ()))
        if isinstance(step, steps.Map) and step.source in done and step.source in fresh:
            step = replace(step, last=True)
        found.append((slot, step, done))
    return found
