"""The number itself: what a graph network says of a node, a pair or a graph, in any edited copies, read as one number.

Games, gradients, training objectives and copies of the module compute with it; the verbs are above, see `targets`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from explain.draws import seeded_by_input, seeded_remedy
from explain.graph.hooks.messages import scaled_in_copies
from explain.graph.network import GraphNetwork
from explain.graph.players.absent_features import Baseline, checked_baseline
from explain.graph.players.removals import REMOVALS
from explain.graph.tensors.cuts import Focus, Place, whole
from explain.graph.tensors.structure import NODE, Copies, EdgeType, Fields, Structure, copies
from explain.guard import evaluating, other_random_states
from explain.outputs import Meaning
from explain.parts import NoRows, WrongRows
from explain.payoffs import Payoff
from explain.spelling import came
from explain.types import NonFinite, Parameters, Unsupported


class GraphNumber:
    """The number that a graph network says for a node (one explained node), a pair (two) or a graph (none).

    Args:
        model: the network and its data.
        graph: the whole graph that is asked about.
        focus: the explained nodes.
        removal: what becomes of an absent node or edge: "delete", "message" or "features".
        baseline: what absent features become: "zeros", "mean", "marginal" or ``[features]`` values.
        batch_size: coalitions in one forward; None: from a memory budget.
        index: the graph's place in the data; None where that is one graph.

    Raises:
        ValueError: an unknown removal or baseline, or a batch size below 1.
    """

    stage: Place  # where the number itself is asked for: the whole graph, unless that is too large to be run
    answer: Tensor  # ``[outputs]``, what the model says of the graph as it is
    meaning: Meaning
    label: int | None
    payoff: Payoff
    read: Callable[[Tensor], Tensor]  # ``[rows, outputs]`` to ``[rows]``

    def __init__(
        self,
        model: GraphNetwork,
        graph: Structure,
        focus: Focus,
        removal: str,
        baseline: Baseline,
        batch_size: int | None,
        index: int | None = None,
    ) -> None:
        if removal not in REMOVALS:
            raise ValueError(f"removal must be one of {', '.join(REMOVALS)}, {came(removal, REMOVALS)}")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, or None, got {batch_size!r}")
        self.model, self.module, self.graph, self.focus = model, model.module, graph, focus
        self.removal, self.batch_size, self.index = removal, batch_size, index
        self.baseline = checked_baseline(baseline, graph)
        self.state = model.state()

    def numbers(self, place: Place, count: int, **edits: Any) -> Tensor:
        """The number for each of ``count`` edited copies of a place, float64 ``[count]``."""
        return self.read(self.outputs(place, count, **edits).double())

    def outputs(
        self,
        place: Place,
        count: int,
        *,
        edge_keep: Tensor | None = None,
        node_keep: Tensor | None = None,
        features: Fields | None = None,
        edge_features: dict[EdgeType, Tensor] | None = None,
        amounts: Tensor | None = None,
        params: Parameters | None = None,
    ) -> Tensor:
        """The explained row of each copy, ``[count, outputs]``; see `copies` and `scaled_in_copies` for the edits."""
        made = copies(
            place.graph,
            count,
            edge_keep=edge_keep,
            node_keep=node_keep,
            features=features,
            edge_features=edge_features,
        )
        return self.answers(place, made, amounts, params)

    def answers(
        self, place: Place, made: Copies, amounts: Tensor | None = None, params: Parameters | None = None
    ) -> Tensor:
        """The explained row of each of the copies that were made of a place, ``[count, outputs]``."""
        rows = self._rows(place, made, made.count, amounts, params)
        if len(self.focus) == 1:
            kind, node = place.focus[0]
            return rows[made.rows(kind, node, place.graph.counts[kind])]
        return rows

    def everyone(self, params: Parameters | None = None) -> Tensor:
        """What the model answers for all nodes of the explained one's type; else for this pair or graph."""
        known = self.model.findings.answers.get(self.focus[0][0]) if len(self.focus) == 1 else None
        if params is None and known and self.is_known and self._stands_whole:
            return known[0]
        return self._rows(self.stage, copies(self.stage.graph, 1), 1, params=params)

    def rows(self) -> Tensor:
        """The explained nodes; every node for a graph."""
        place = whole(self.graph, self.focus)
        return place.flat_focus() if self.focus else place.nodes.cpu()

    def pairs(self, place: Place, made: Copies) -> Tensor | None:
        """The explained nodes of each copy, ``[2, count]``; None where no pair is explained."""
        if len(self.focus) != 2:
            return None
        return torch.stack([made.rows(kind, node, place.graph.counts[kind]) for kind, node in place.focus])

    @property
    def is_known(self) -> bool:
        """Whether what is remembered of the model was found on this graph, in the state this number was made in."""
        return self.state == self.model.findings.state and self.graph is self.model.whole_structure

    @property
    def _stands_whole(self) -> bool:
        return self.stage.graph is self.graph

    def _rows(
        self,
        place: Place,
        made: Copies,
        count: int,
        amounts: Tensor | None = None,
        params: Parameters | None = None,
    ) -> Tensor:
        """All that the model answers for copies of a place, of the explained node's type.

        Raises:
            WrongRows: not one row a node, pair or graph.
        """
        kind = self.focus[0][0] if self.focus else None
        with evaluating(self.module), scaled_in_copies(self.module, place.graph, made, amounts):
            rows = self.model.outputs(made, self.pairs(place, made), kind, params)
        if not rows.dim():
            raise WrongRows(
                "the model gave one number without a row, as squeeze() leaves of a single one: show the call that "
                "keeps rows, call=lambda net, data: net(data.x, data.edge_index, data.batch).view(-1, 1)"
            )
        if len(self.focus) == 1:
            if len(rows) != (expected := made.structure.counts[self.focus[0][0]]):
                remedy = self._picked(len(rows)) or (
                    'of a model that answers for pairs or graphs say explain.wrap(..., task="edge") or task="graph"'
                )
                raise WrongRows(f"the model must give one row a node, {expected}; it gave {len(rows)}: {remedy}")
        elif len(rows) != count:
            remedy = (
                "show the call that does, such as call=lambda net, data: net(data.x, data.edge_index)[None] where a "
                "row is all it gives"
            )
            if self.model.task == "edge" and len(rows) == made.structure.num_nodes:
                remedy = (
                    "of rows of nodes say how a pair is scored, "
                    "explain.wrap(..., decoder=lambda z, pairs: (z[pairs[0]] * z[pairs[1]]).sum(-1))"
                )
            what = {"edge": "a pair"}.get(self.model.task, f"a {self.model.task}")
            raise WrongRows(f"the model must give one row {what}, {count}; it gave {len(rows)}: {remedy}")
        return rows

    def _picked(self, rows: int) -> str:
        """What to do where so many rows are those that a mask picks; empty where none does."""
        fields, given = self.graph.nodes[self.focus[0][0]], self.model.inputs.sources.items()
        masks = [(name, source) for name, source in given if source in fields and fields[source].dtype == torch.bool]
        for name, source in masks:
            if source is not None and int(fields[source].sum()) == rows:
                return (
                    f"as many as data.{source} picks: show the call that answers for all, such as call=lambda net, "
                    f"data: net(data.x, data.edge_index, {name}=torch.ones_like(data.{source}))"
                )
        for parameter, plain in given:
            if plain is not None and self.graph.plain.get(plain) == rows:
                return (
                    f"as many as data.{plain} says: inputs={{{parameter!r}: 'num_nodes'}} asks for all of them, or "
                    "show such a call, call=lambda net, data: net(...)"
                )
        return ""

    # --- what the model says of the graph as it is ---

    def checked_outputs(self) -> Tensor:
        """The model's answer ``[outputs]``, asked for twice.

        Raises:
            NonFinite: NaN or infinity in it.
            ValueError: the forward fails, two calls differ, or what it draws is seeded by its input: the model is not
                one function of its input.
        """
        first, again = self._said()
        if not first.isfinite().all():
            raise NonFinite("the model answers NaN or infinity for this target: check its weights and the data")
        if not torch.allclose(first, again, rtol=1e-4, atol=1e-6):
            gap = float((first - again).abs().max())
            raise ValueError(
                f"the model is not deterministic: two calls in eval mode differ by {gap:.2g}; freeze its randomness "
                "(dropout called as a function, resampled projections) before explaining"
            )
        findings = self.model.findings
        if findings.seeded is None:
            findings.seeded = seeded_by_input(self._asked_of(1.0), self._asked_of(1.01))
        if findings.seeded:
            raise ValueError(seeded_remedy("each coalition"))
        return first

    def _asked_of(self, scale: float) -> Callable[[], Tensor]:
        """The question of the graph with its features, those of floating point, scaled."""
        nodes = self.stage.graph.nodes
        features = {kind: fields["x"][None] for kind, fields in nodes.items() if "x" in fields}
        scaled = {kind: scale * x for kind, x in features.items() if x.is_floating_point()}
        return partial(self.outputs, self.stage, 1, features=scaled)

    def _said(self) -> list[Tensor]:
        """Two answers of the model with other random states; shared by all numbers of one model state."""
        place = self.stage
        if len(self.focus) != 1 or not self._stands_whole or not self.is_known:
            return [self._first_outputs(partial(self.outputs, place, 1), seed)[0] for seed in range(2)]
        (kind, node), answers = self.focus[0], self.model.findings.answers
        if kind not in answers:
            ask = partial(self._rows, place, copies(self.graph, 1), 1)
            answers[kind] = [self._first_outputs(ask, seed) for seed in range(2)]
        return [rows[node] for rows in answers[kind]]

    def _first_outputs(self, ask: Callable[[], Tensor], seed: int) -> Tensor:
        try:
            with other_random_states(seed):
                return ask()
        except (NoRows, WrongRows, Unsupported, torch.OutOfMemoryError):  # said already
            raise
        except Exception as error:  # whatever a user's forward raises: shapes, types, devices, assertions
            features = {f"{kind} x".strip(): fields["x"] for kind, fields in self.graph.nodes.items() if "x" in fields}
            shapes = ", ".join(f"{name} {list(x.shape)} of {x.dtype}" for name, x in features.items())
            given = self.model.inputs.said.items()
            passed = ", ".join(name if name == source else f"{name}={source}" for name, source in given)
            raise ValueError(
                f"{self._asked}: the model's forward fails on this graph ({shapes}): {type(error).__name__}: {error}; "
                f"it is given {passed}: if you call it otherwise, say so, explain.wrap(..., call=lambda net, data: "
                "net(...))"
            ) from error

    @property
    def _asked(self) -> str:
        """The question, as it was written."""
        data = type(self.model.data).__name__
        what: list[Any] = [node if kind == NODE else (kind, node) for kind, node in self.focus] or [self.index]
        where = [f"graph={self.index}"] if self.focus and self.index is not None else []
        asked = ", ".join([*map(repr, what), *where])
        return f"explain.wrap({type(self.module).__name__}, {data}).{self.model.task}({asked})"
