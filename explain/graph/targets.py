"""One node's, edge's or graph's prediction, as a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from explain.classes import OfOutputs
from explain.doubts import doubt
from explain.graph.games.graph_game import GraphGame
from explain.graph.meanings import meaning_of_number
from explain.graph.network import GraphNetwork
from explain.graph.number import GraphNumber
from explain.graph.place.placing import is_large, placed, placed_nodes
from explain.graph.players.absent_edges import ABSENT_EDGES, EDGE_EDITS, absent_edges, edge_edits
from explain.graph.players.absent_features import Baseline
from explain.graph.players.kinds import KINDS, players_of
from explain.graph.players.naming import node_name, node_names
from explain.graph.reading.differentiable import differentiable
from explain.graph.reading.held import held_fields, said_of
from explain.graph.reading.module_copy import module_copy
from explain.graph.reading.one_pass import questions
from explain.graph.reading.typed_edges import typed_edges
from explain.graph.reading.variants import neighbourhood, randomised, with_noise
from explain.graph.state import glance
from explain.graph.tensors.apart import Apart
from explain.graph.tensors.cuts import Focus, Place, whole
from explain.graph.tensors.structure import Structure
from explain.graph.training.objective import check_removable, graph_removal, training_objective
from explain.guard import usual_modes
from explain.payoffs import Payoff, checked_label, payoff_function, payoff_name, probed
from explain.threads import alone, found_alone
from explain.types import (
    Call,
    Differentiable,
    Game,
    Neighbourhood,
    Objective,
    Players,
    Questions,
    Target,
    TypedEdges,
    Unsupported,
)

_NOTHING = "whatever edges are taken out of the graph, the model's answer stays as it is"
_ROW_STAYS = (
    "one that is removed stays as a row without features and edges: where the model sees it, in a norm or attention "
    "over all nodes, training on the smaller graph is another question"
)
_OWN_ROWS = "forward has rows of its own, or takes no fewer"
_NOBODY = dict.fromkeys(("features", "node_features", "edge_features"), "no entry differs from what its absence is")


class GraphTarget(GraphNumber, OfOutputs):
    """The number with its verbs: what explainers ask of it, each handed to the room that knows how."""

    found = (*OfOutputs.found, "label_given", "_games", "_assumed", "_stays", "_glanced", "state", "stage", "answer")

    def __init__(
        self,
        model: GraphNetwork,
        graph: Structure,
        focus: Focus,
        label: int | None,
        payoff: Payoff | None,
        removal: str,
        baseline: Baseline,
        batch_size: int | None,
        index: int | None = None,
    ) -> None:
        with alone(), usual_modes():
            super().__init__(model, graph, focus, removal, baseline, batch_size, index)
        self._games: dict[str, GraphGame] = {}
        self._assumed: dict[str, str] = {}  # of the question that is being answered
        self._stays: dict[str, str] = {}  # of removal="features"
        self._glanced = glance(model.data) if graph is model.whole_structure else None
        if removal == "features":
            self._check_replaced()
        with alone(), usual_modes(), torch.no_grad():
            if graph is not model.whole_structure:
                model.findings.apart = Apart()  # of another graph
            self._ask()
            self.meaning = meaning_of_number(self)
        self.label, self.label_given = checked_label(label, self.answer, self.meaning, payoff), label is not None
        self.class_names = model.names_of_classes(self.meaning)
        self.payoff = payoff or self.meaning.default_payoff
        self.read = payoff_function(self.payoff, self.label, self.meaning)
        if callable(payoff):
            probed(payoff, self.answer[None].double())

    def _look_again(self) -> None:
        """Read data that was edited since anew: the number, the cut and the games; the label stays as it was asked."""
        if self._glanced is None or (seen := glance(self.model.data)) == self._glanced:
            return
        with alone(), usual_modes(), torch.no_grad():
            self._glanced, self.graph = seen, self.model.reread()
            self._games.clear()
            self._assumed.clear()
            for found in ("place", "node_place", "answer"):
                vars(self).pop(found, None)
            self.state = self.model.state()
            self._ask()

    def _ask(self) -> None:
        """What the model says of the graph as it is, or of the part that answers as it does where it is too large."""
        self.stage = whole(self.graph, self.focus)
        if is_large(self.graph):
            self.stage = self.place
        self.answer = self.checked_outputs()

    def value(self) -> float:
        """The number on the whole graph."""
        self._look_again()
        with usual_modes(), torch.no_grad():
            return float(self.numbers(self.stage, 1))

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
            return placed_nodes(self, self.place)

    def place_of(self, kind: str) -> Place:
        """Where coalitions of players of this kind are evaluated."""
        return self.node_place if kind == "nodes" else self.place

    # --- questions ---

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of players on graphs; relations where edges have types, edge features where there are any."""
        return KINDS

    def players(self, kind: str, **options: Any) -> Players:
        """Players that can matter to the number; with ``all=True`` all of the graph's nodes, edges or features.

        "nodes"; "edges" (``undirected=True``: a pair is one); "features", columns of ``x``; "node_features", its
        entries (``size=`` adjacent columns are one player, such as a window of a series' lags); "edge_features",
        columns of ``edge_attr``; "relations"; "motifs", blocks of the graph, or the node sets in ``motifs=``.

        An edge is left out only where its removal changes nothing: ``checks["left_out_edges"]`` says how many were, and
        ``checks["left_out_change"]`` the most that the model's outputs moved when they were removed at random, in
        random coalitions. With ``removal="delete"`` an edge into a node at the end of the receptive field changes that
        node's degree, and so the number, though it carries no message: it plays too (``degrees=True``), as the values
        are otherwise not those of the user's own graph without it. Where that would make more than 256 players, more
        than the default budget serves, such edges stay by default, and the answer says how many they are and what they
        are worth together (``degrees=False``: always, which a budget of few samples may ask for: fewer players need
        fewer).

        "absent_edges": edges that are not there, ``ends= [2, k]`` or a list of such groups, see `absent_edges`;
        "edge_edits", ``add=`` such edges and ``remove=`` some that are, see `edge_edits`: for ``Influence(add=...)``
        only.
        """
        self._look_again()
        if kind == ABSENT_EDGES:
            return absent_edges(self.graph, **options)
        if kind == EDGE_EDITS:
            return edge_edits(self.graph, **options)
        if kind in ("features", "node_features"):
            self._check_reads_features()
            self._check_not_recomputed()
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

    def _check_not_recomputed(self) -> None:
        """Check that features can be replaced.

        Raises:
            Unsupported: they are computed again, over what replaced them.
        """
        again = self.model.inputs.recomputed
        if again is not None and "x" in again.functions:
            raise Unsupported("x is computed again in each coalition, over what would replace it: ask for edges")

    def _check_replaced(self) -> None:
        """Check that there are features to replace, and say which stay.

        Raises:
            ValueError: forward is given none.
        """
        self._check_not_recomputed()
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
            found = self._resolved(players)
            self._games[key] = GraphGame(self, self.place_of(found.kind), found)
        coalitions = self._games[key]
        if key and coalitions.left_out is not None:
            count, worth = coalitions.left_out
            self._assumed["edges"] = (
                f"{count} that carry no message but count in a degree do not play; together they are worth "
                f'{worth:.3g}: players("edges", degrees=True) lets them'
            )
        if coalitions.rows_stay:
            self._assumed["nodes"] = f"one that is absent stays, without features and edges: {_OWN_ROWS}"
        made = coalitions.game()
        if held := self._held(coalitions.players.kind):
            made.checks["held"] = held
        return made

    def _held(self, kind: str) -> str:
        """The fields that stay as on the whole graph while players of this kind are absent: said and warned of."""
        if held := held_fields(self, kind):
            self._assumed |= {each.field: f"held as on the whole graph: {each.equals}" for each in held}
            doubt(said_of(held))
        return ", ".join(each.field for each in held)

    def differentiable(self, players: str | Players) -> Differentiable:
        """Edges by the amount of their messages; nodes and features by their features."""
        self._look_again()
        found = self._resolved(players)
        self._held(found.kind)
        return differentiable(self, self.place_of(found.kind), found)

    @property
    def trained(self) -> nn.Module:
        """The user's module, and its decoder where that is a module of its own."""
        return self.model.net

    def module_copy(self) -> Call:
        """A deep copy of the module as ``(x, edge_index, ...) -> [rows, outputs]``."""
        self._look_again()
        return module_copy(self, self.node_place)

    def run(self) -> Tensor:
        """One forward pass of the user's module on the whole graph."""
        self._look_again()
        with torch.no_grad():
            return self.outputs(whole(self.graph, self.focus), 1)

    def typed_edges(self, players: Players) -> TypedEdges | None:
        """The edges of the whole graph where it has types, by their numbers through all types, and who owns them."""
        self._look_again()
        return typed_edges(self, players)

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the labelled training nodes or graphs."""
        self._look_again()
        check_removable(self.model, remove)
        made, told = training_objective(self, train)
        self.tell(told)
        if not isinstance(remove, Players) and remove == "labels":
            return made
        players = remove if isinstance(remove, Players) else self.players(remove, all=True)
        self._held(players.kind)
        removal = graph_removal(self, self.place, made, players, train)
        if players.kind in (ABSENT_EDGES, EDGE_EDITS):
            self.tell({**told, "added": "both directions" if "–" in players.names[0] else "one direction"})
        if removal.rows_stay:
            self.tell({**told, "assumed": {**told.get("assumed", {}), "nodes": _ROW_STAYS}})
        return removal

    def questions(self, targets: Sequence[Target]) -> Questions | None:
        """These numbers of nodes of one type on one graph, or of pairs of nodes, in one pass."""
        return questions(self, targets)

    def neighbourhood(self) -> Neighbourhood:
        """The nodes of the computation graph, of the explained node's type, and the model's answer for each."""
        return neighbourhood(self, self.place)

    def asking(self, payoff: Payoff) -> GraphTarget:
        """The same prediction, read as another number."""
        other = self._like(payoff=payoff)
        if "place" in vars(self):  # where coalitions are evaluated does not hang on what is read
            vars(other)["place"] = self.place
        return other

    def perturbed(self, generator: torch.Generator, scale: float = 0.05) -> GraphTarget:
        """The same question of features with normal noise."""
        return self._like(graph=with_noise(self.graph, generator, scale))

    def randomised(self, generator: torch.Generator) -> GraphTarget:
        """The same question of a copy of the network with shuffled parameters."""
        return self._like(model=randomised(self.model, generator))

    def _like(
        self, *, model: GraphNetwork | None = None, graph: Structure | None = None, payoff: Payoff | None = None
    ) -> GraphTarget:
        asked = (
            self.focus,
            self.label,
            payoff or self.payoff,
            self.removal,
            self.baseline,
            self.batch_size,
            self.index,
        )
        made = type(self)(model or self.model, graph or self.graph, *asked)
        made.label_given = self.label_given
        return made

    def forget(self) -> None:
        """What was said of the players of an earlier question is not said of the next."""
        super().forget()
        self._assumed.clear()

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
            **self.called,
            "payoff": payoff_name(self.payoff),
            "removal": self.removal,
            "baseline": self.baseline if isinstance(self.baseline, str) else self.baseline.tolist(),
            **({"node_types": dict(self.graph.counts)} if len(self.graph.counts) > 1 else {}),
            **({"node_names": node_names(self.graph)} if self.graph.names.nodes else {}),
            "outputs": self.meaning.kind,
            "arguments": self.model.inputs.said,
            **self.model.checks,
            **({"assumed": assumed} if assumed else {}),
        }
