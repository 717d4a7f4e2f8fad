"""One node's, edge's or graph's prediction, as a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explain.classes import OfOutputs
from explain.graph import variants
from explain.graph.absence import BASELINES
from explain.graph.apart import Apart
from explain.graph.computation import Focus, Place, whole
from explain.graph.differentiable import differentiable
from explain.graph.fast.state import glance
from explain.graph.games import REMOVALS, Coalitions
from explain.graph.locality import neighbourhoods
from explain.graph.messages import by_type, scaled_messages
from explain.graph.module_copy import module_copy
from explain.graph.objective import objective
from explain.graph.placing import is_large, placed, placed_nodes
from explain.graph.players import node_name, players_of
from explain.graph.questions import questions
from explain.graph.structure import NODE, Copies, EdgeType, Fields, Structure, copies
from explain.guard import evaluating, other_random_states, usual_modes
from explain.parts import NoRows, WrongRows
from explain.payoffs import Payoff, checked_label, payoff_function, payoff_name, probed
from explain.threads import alone, found_alone
from explain.types import (
    Call,
    Differentiable,
    Game,
    Neighbourhood,
    NonFinite,
    Objective,
    Parameters,
    Players,
    Questions,
    Target,
    Unsupported,
)

if TYPE_CHECKING:
    from explain.graph.model import GraphModel

_NOTHING = "whatever edges are taken out of the graph, the model's answer stays as it is"
_NOBODY = dict.fromkeys(("features", "node_features", "edge_features"), "no entry differs from what its absence is")


class GraphTarget(OfOutputs):
    """The number that a graph network says for a node (one explained node), a pair (two) or a graph (none)."""

    found = (*OfOutputs.found, "label_given", "_games", "_assumed", "_stays", "_glanced", "state", "answer")

    def __init__(
        self,
        model: GraphModel,
        graph: Structure,
        focus: Focus,
        label: int | None,
        payoff: Payoff | None,
        removal: str,
        baseline: str,
        batch_size: int | None,
        index: int | None = None,
    ) -> None:
        for what, given, known in (("removal", removal, REMOVALS), ("baseline", baseline, BASELINES)):
            if given not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, got {given!r}")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, or None, got {batch_size!r}")
        self.model, self.module, self.graph, self.focus = model, model.module, graph, focus
        self.removal, self.baseline, self.batch_size, self.index = removal, baseline, batch_size, index
        self._games: dict[str, Coalitions] = {}
        self._assumed: dict[str, str] = {}  # of the question that is being answered
        self._stays: dict[str, str] = {}  # of removal="features"
        self._glanced = glance(model.data) if graph is model.whole_structure else None
        if removal == "features":
            self._check_replaced()
        with alone(), usual_modes(), torch.no_grad():
            self.state = model.programs.current(model)
            if graph is not model.whole_structure:
                model.programs.apart = Apart()  # of another graph
            self.answer = self._checked_outputs()
            self.meaning = model.meaning(self)
        self.label, self.label_given = checked_label(label, self.answer, self.meaning, payoff), label is not None
        self.payoff = payoff or self.meaning.default_payoff
        self.number = payoff_function(self.payoff, self.label, self.meaning)
        if callable(payoff):
            probed(payoff, self.answer[None].double())

    def _checked_outputs(self) -> Tensor:
        """The model's answer ``[outputs]``, asked for twice.

        Raises:
            NonFinite: NaN or infinity in it.
            ValueError: the forward fails, or two calls differ: the model is not a function of its input.
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
        return first

    def _said(self) -> list[Tensor]:
        """Two answers of the model with other random states; shared by all targets of one model state."""
        programs, place = self.model.programs, self._stage
        if len(self.focus) != 1 or is_large(self.graph) or not programs.known(self):
            return [self._first_outputs(partial(self.outputs, place, 1), seed)[0] for seed in range(2)]
        kind, number = self.focus[0]
        if kind not in programs.answers:
            made = copies(self.graph, 1)
            ask = partial(self._rows, place, made, 1)
            programs.answers[kind] = [self._first_outputs(ask, seed) for seed in range(2)]
        return [rows[number] for rows in programs.answers[kind]]

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
        what: list[Any] = [number if kind == NODE else (kind, number) for kind, number in self.focus] or [self.index]
        where = [f"graph={self.index}"] if self.focus and self.index is not None else []
        asked = ", ".join([*map(repr, what), *where])
        return f"explain.wrap({type(self.module).__name__}, {data}).{self.model.task}({asked})"

    def _look_again(self) -> None:
        """Read data that was edited since anew: the number, the cut and the games; the label stays as it was asked."""
        if self._glanced is None or (seen := glance(self.model.data)) == self._glanced:
            return
        with alone(), usual_modes(), torch.no_grad():
            self._glanced, self.graph = seen, self.model.reread()
            self._games.clear()
            self._assumed.clear()
            for found in ("place", "node_place"):
                vars(self).pop(found, None)
            self.state = self.model.programs.current(self.model)
            self.answer = self._checked_outputs()

    def value(self) -> float:
        """The number on the whole graph."""
        self._look_again()
        with usual_modes(), torch.no_grad():
            return float(self.numbers(self._stage, 1))

    def numbers(self, place: Place, count: int, **edits: Any) -> Tensor:
        """The number for each of ``count`` edited copies of a place, float64 ``[count]``."""
        return self.number(self.outputs(place, count, **edits).double())

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
        """The explained row of each copy, ``[count, outputs]``; see `copies` and `scaled_messages` for the edits."""
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
            kind, number = place.focus[0]
            return rows[made.rows(kind, number, place.graph.counts[kind])]
        return rows

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
        with evaluating(self.module):
            if amounts is None:
                rows = self.model.outputs(made, self._pairs(place, made), kind, params)
            else:
                parameter = next(self.module.parameters(), torch.zeros(()))
                flat = by_type(place.graph, amounts.to(parameter.dtype))
                with scaled_messages(self.module, made.structure, flat):
                    rows = self.model.outputs(made, self._pairs(place, made), kind, params)
        if len(self.focus) == 1:
            if len(rows) != (expected := made.structure.counts[self.focus[0][0]]):
                remedy = self._picked(len(rows)) or (
                    'of a model that answers for pairs or graphs say explain.wrap(..., task="edge") or task="graph"'
                )
                raise WrongRows(f"the model must give one row a node, {expected}; it gave {len(rows)}: {remedy}")
        elif len(rows) != count:
            raise WrongRows(
                f"the model must give one row a {self.model.task}, {count}; it gave {len(rows)}: show the call that "
                "does, such as call=lambda net, data: net(data.x, data.edge_index)[None] where a row is all it gives"
            )
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
        return ""

    def everyone(self, params: Parameters | None = None) -> Tensor:
        """What the model answers for all nodes of the explained one's type; else for this pair or graph."""
        known = self.model.programs.answers.get(self.focus[0][0]) if len(self.focus) == 1 else None
        if params is None and known and self.model.programs.known(self) and not is_large(self.graph):
            return known[0]
        place = self._stage
        return self._rows(place, copies(place.graph, 1), 1, params=params)

    def _pairs(self, place: Place, made: Copies) -> Tensor | None:
        if len(self.focus) != 2:
            return None
        return torch.stack([made.rows(kind, number, place.graph.counts[kind]) for kind, number in place.focus])

    # --- where coalitions are evaluated ---

    @found_alone
    def place(self) -> Place:
        """The computation graph where the cut answers as the whole graph does, else the whole graph."""
        with usual_modes():
            return placed(self)

    @found_alone
    def node_place(self) -> Place:
        """Where coalitions of nodes are evaluated: with those that count in a degree, and on smaller graphs."""
        with usual_modes():
            return placed_nodes(self)

    def place_of(self, kind: str) -> Place:
        """Where coalitions of players of this kind are evaluated."""
        return self.node_place if kind == "nodes" else self.place

    @property
    def _stage(self) -> Place:
        """Where the number itself is asked for: the whole graph, unless it is too large to be run."""
        return self.place if is_large(self.graph) else whole(self.graph, self.focus)

    # --- questions ---

    def players(self, kind: str, **options: Any) -> Players:
        """Players that can matter to the number; with ``all=True`` all of the graph's nodes, edges or features.

        "nodes"; "edges" (``undirected=True``: a pair is one); "features", columns of ``x``; "node_features", its
        entries; "edge_features", columns of ``edge_attr``; "relations"; "motifs", blocks of the graph, or the node sets
        in ``motifs=``.

        An edge is left out only where its removal changes nothing: ``checks["left_out_edges"]`` says how many were, and
        ``checks["left_out_change"]`` the most that the model's outputs moved when they were removed at random, in
        random coalitions. With ``removal="delete"`` an edge into a node at the end of the receptive field changes that
        node's degree, and so the number, though it carries no message: it plays too (``degrees=True``), as the values
        are otherwise not those of the user's own graph without it. Where that would make more than 256 players, more
        than the default budget serves, such edges stay by default, and the answer says how many they are and what they
        are worth together (``degrees=False``: always, which a budget of few samples may ask for: fewer players need
        fewer).
        """
        self._look_again()
        if kind in ("features", "node_features"):
            self._check_reads_features()
        beyond = options.get("all", False) and kind != "features"
        place = whole(self.graph, self.focus) if beyond else self.place_of(kind)
        return self._counted(players_of(place, self.graph, kind, options, self.baseline))

    def _counted(self, players: Players) -> Players:
        """The players; where nobody plays, why is said."""
        if not len(players):
            self._assumed[players.kind] = f"none: {_NOBODY.get(players.kind, _NOTHING)}"
        return players

    def _check_reads_features(self) -> None:
        """Check that there are features and that the model is given them.

        Raises:
            ValueError: there are none, or it is not.
        """
        sources = self.model.inputs.sources
        if not any("x" in fields for fields in self.graph.nodes.values()):
            raise ValueError("the nodes have no features x: ask for credit of nodes or edges")
        if not self.model.inputs.whole and "x" not in sources.values():
            given = ", ".join(str(source) for source in sources.values())
            raise ValueError(f"the model does not read the features x, it is given {given}: ask for nodes or edges")

    def _check_replaced(self) -> None:
        """Check that there are features to replace, and say which stay.

        Raises:
            ValueError: forward is given none.
        """
        inputs = self.model.inputs
        given = {name for fields in self.graph.nodes.values() for name, x in fields.items() if x.is_floating_point()}
        given = given if inputs.whole else given & {*inputs.sources.values()}
        if "x" not in given:
            raise ValueError(
                'removal="features" replaces the features x, and forward is given none: use removal="delete" or '
                '"message"'
            )
        if beside := sorted(given - {"x", "y"}):
            self._stays["features"] = f"x of an absent node is replaced, {', '.join(beside)} stays"

    def _resolved(self, players: str | Players) -> Players:
        return self.players(players) if isinstance(players, str) else self._counted(players)

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of nodes, edges or features.

        A coalition is the model on the graph without the rest, its nodes in order. Several share a forward pass only
        where they answer together as each does alone, which is tried; ``checks["batching"]`` says "one by one" where
        not: top-k pooling and sorted readouts, recurrent ones over nodes, embeddings of node numbers, norms over all.
        A coalition that the model has no answer for raises a ValueError that names it.
        """
        self._look_again()
        key = players if isinstance(players, str) else ""  # of players of the user's own the last ones asked for
        if key not in self._games or (not key and self._games[key].players is not players):
            self._games[key] = Coalitions(self, self._resolved(players))
        coalitions = self._games[key]
        if key and coalitions.left_out is not None:
            count, worth = coalitions.left_out
            self._assumed["edges"] = (
                f"{count} that carry no message but count in a degree do not play; together they are worth "
                f'{worth:.3g}: players("edges", degrees=True) lets them'
            )
        if coalitions.rows_stay:
            self._assumed["nodes"] = "one that is absent stays, without features and edges: forward takes no fewer rows"
        game = coalitions.game()
        if coalitions.players.kind == "nodes" and not self.focus:  # a pooled prediction may be a sum of local parts
            game.neighbourhoods = partial(
                neighbourhoods, coalitions.place.graph, coalitions.owner, len(coalitions.players)
            )
        return game

    def forget(self) -> None:
        """What was said of the players of an earlier question is not said of the next."""
        super().forget()
        self._assumed.clear()

    def differentiable(self, players: str | Players) -> Differentiable:
        """Edges by the amount of their messages; nodes and features by their features."""
        self._look_again()
        return differentiable(self, self._resolved(players))

    def module_copy(self) -> Call:
        """A deep copy of the module as ``(x, edge_index, ...) -> [rows, outputs]``."""
        self._look_again()
        return module_copy(self)

    def run(self) -> Tensor:
        """One forward pass of the user's module on the whole graph."""
        self._look_again()
        with torch.no_grad():
            return self.outputs(whole(self.graph, self.focus), 1)

    def rows(self) -> Tensor:
        """The explained nodes; every node for a graph."""
        place = whole(self.graph, self.focus)
        return place.flat_focus() if self.focus else place.nodes.cpu()

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the labelled training nodes or graphs."""
        self._look_again()
        return objective(self, train, remove)

    def questions(self, targets: Sequence[Target]) -> Questions | None:
        """These numbers of nodes of one type on one graph, or of pairs of nodes, in one pass."""
        return questions(self, targets)

    def neighbourhood(self) -> Neighbourhood:
        """The nodes of the computation graph, of the explained node's type, and the model's answer for each."""
        return variants.neighbourhood(self)

    def asking(self, payoff: Payoff) -> GraphTarget:
        """The same prediction, read as another number."""
        return variants.asking(self, payoff)

    def perturbed(self, generator: torch.Generator, scale: float = 0.05) -> GraphTarget:
        """The same question of features with normal noise."""
        return variants.perturbed(self, generator, scale)

    def randomised(self, generator: torch.Generator) -> GraphTarget:
        """The same question of a copy of the network with shuffled parameters."""
        return variants.randomised(self, generator)

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        asked = [node_name(self.graph, self.graph.node_starts[kind] + number) for kind, number in self.focus]
        what: Any = {0: self.index, 1: asked[0] if asked else None, 2: asked}[len(self.focus)]
        assumed = {**self.model.assumed, **self.meaning.told(self.payoff, self.model.part.assumed)}
        assumed |= self._stays | self._assumed
        if not self.label_given and (turned := self.meaning.turned(self.label, self.payoff)):
            assumed["label"] = turned
        return {
            "family": "graph",
            "model": type(self.module).__name__,
            "task": self.model.task,
            self.model.task: what,
            **({"graph": self.index} if self.focus and self.index is not None else {}),
            "label": self.label,
            "payoff": payoff_name(self.payoff),
            "removal": self.removal,
            "baseline": self.baseline,
            **({"node_types": dict(self.graph.counts)} if len(self.graph.counts) > 1 else {}),
            "outputs": self.meaning.kind,
            "arguments": self.model.inputs.said,
            **self.model.checks,
            **({"assumed": assumed} if assumed else {}),
        }
