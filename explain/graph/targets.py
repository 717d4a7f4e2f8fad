"""One node's, edge's or graph's prediction, as a target."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explain.graph import variants
from explain.graph.absence import BASELINES
from explain.graph.computation import Focus, Place, cut, receptive_field, whole
from explain.graph.differentiable import differentiable
from explain.graph.games import REMOVALS, Coalitions
from explain.graph.locality import neighbourhoods
from explain.graph.messages import by_type, scaled_messages
from explain.graph.module_copy import module_copy
from explain.graph.objective import objective
from explain.graph.players import node_name, players_of
from explain.graph.structure import EdgeType, Fields, Structure, copies
from explain.guard import evaluating, other_random_states
from explain.payoffs import Payoff, checked_label, payoff_function
from explain.types import (
    Call,
    Differentiable,
    Game,
    Neighbourhood,
    NonFinite,
    Objective,
    Parameters,
    Players,
    Target,
)

if TYPE_CHECKING:
    from explain.graph.model import GraphModel


class GraphTarget(Target):
    """The number that a graph network says for a node (one explained node), a pair (two) or a graph (none)."""

    def __init__(
        self,
        model: GraphModel,
        graph: Structure,
        focus: Focus,
        label: int | None,
        payoff: Payoff,
        removal: str,
        baseline: str,
        batch_size: int | None,
        index: int | None = None,
    ) -> None:
        for what, given, known in (("removal", removal, REMOVALS), ("baseline", baseline, BASELINES)):
            if given not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, got {given!r}")
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, or None, got {batch_size!r}")
        self.model, self.module, self.graph, self.focus = model, model.module, graph, focus
        self.removal, self.baseline, self.batch_size, self.index = removal, baseline, batch_size, index
        self.payoff = payoff
        self._games: dict[str | int, Coalitions] = {}
        with torch.no_grad():
            self.state = model.programs.current(model)
            self.answer = self._checked_outputs()
        self.label = checked_label(label, self.answer)
        self.number = payoff_function(payoff, self.label)

    def _checked_outputs(self) -> Tensor:
        """The model's answer ``[outputs]``, asked for twice.

        Raises:
            NonFinite: NaN or infinity in it.
            ValueError: the forward fails, or two calls differ: the model is not a function of its input.
        """
        place = whole(self.graph, self.focus)
        answers = []
        for seed in range(2):
            with other_random_states(seed):
                answers.append(self._first_outputs(place)[0])
        first, again = answers
        if not first.isfinite().all():
            raise NonFinite("the model answers NaN or infinity for this target: check its weights and the data")
        if not torch.allclose(first, again, rtol=1e-4, atol=1e-6):
            gap = float((first - again).abs().max())
            raise ValueError(
                f"the model is not deterministic: two calls in eval mode differ by {gap:.2g}; freeze its randomness "
                "(dropout called as a function, resampled projections) before explaining"
            )
        return first

    def _first_outputs(self, place: Place) -> Tensor:
        try:
            return self.outputs(place, 1)
        except (RuntimeError, IndexError) as error:  # what torch raises for shapes, types and devices
            given = {f"{kind} x".strip(): fields["x"] for kind, fields in self.graph.nodes.items() if "x" in fields}
            shapes = ", ".join(f"{name} {list(x.shape)} of {x.dtype}" for name, x in given.items())
            raise ValueError(f"the model's forward fails on this graph ({shapes}): {error}") from error

    def value(self) -> float:
        """The number on the whole graph."""
        with torch.no_grad():
            return float(self.numbers(whole(self.graph, self.focus), 1))

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
        edits = {"edge_keep": edge_keep, "node_keep": node_keep, "features": features, "edge_features": edge_features}
        made = copies(place.graph, count, **edits)  # type: ignore[arg-type]
        kind = self.focus[0][0] if self.focus else None
        with evaluating(self.module):
            if amounts is None:
                rows = self.model.outputs(made, self._pairs(place, count), kind, params)
            else:
                parameter = next(self.module.parameters(), torch.zeros(()))
                flat = by_type(place.graph, amounts.to(parameter.dtype))
                with scaled_messages(self.module, made.structure, flat):
                    rows = self.model.outputs(made, self._pairs(place, count), kind, params)
        if len(self.focus) == 1:
            size = place.graph.counts[self.focus[0][0]]
            if len(rows) != count * size:
                raise ValueError(f"the model must give one row a node, {count * size}; it gave {len(rows)}")
            return rows[place.focus[0][1] :: size]
        if len(rows) != count:
            raise ValueError(f"the model must give one row a {self.model.task}, {count}; it gave {len(rows)}")
        return rows

    def _pairs(self, place: Place, count: int) -> Tensor | None:
        if len(self.focus) != 2:
            return None
        device = place.nodes.device
        sizes = torch.tensor([place.graph.counts[kind] for kind, _ in place.focus], device=device)
        first = torch.tensor([number for _, number in place.focus], device=device)
        return first[:, None] + sizes[:, None] * torch.arange(count, device=device)

    # --- where coalitions are evaluated ---

    @cached_property
    def place(self) -> Place:
        """The computation graph where the cut answers as the whole graph does, else the whole graph."""
        with torch.no_grad():
            chosen = self._cut() if self.focus else whole(self.graph, self.focus)
            together = self._together(chosen)
        where = "cut" if "hops" in chosen.checks else "whole graph"
        checks = {"computation": where, "batching": "together" if together else "one by one", **chosen.checks}
        return replace(chosen, together=together, checks=checks)

    def _cut(self) -> Place:
        full = whole(self.graph, self.focus)
        found = receptive_field(
            lambda features: self.outputs(full, 1, features={kind: x[None] for kind, x in features.items()}),
            self.graph,
            full.flat_focus(),
            self.model.reach,
        )
        if found is None:
            return full
        self.model.reach = found
        small = cut(self.graph, self.focus, *found)
        if int((small.nodes >= 0).sum()) == self.graph.num_nodes:  # nothing is saved
            return replace(full, reachable=full.reachable & torch.isin(full.edges, small.edges[small.reachable]))
        error, tolerance = self._cut_error(small, full), _tolerance(self.graph)
        if not error <= tolerance:
            return full
        small.checks.update(hops=found[0], direction=found[1], cut_error=error)
        return small

    def _cut_error(self, small: Place, full: Place) -> float:
        """Largest relative difference between the cut and the whole graph, on everything and on random coalitions."""
        generator = torch.Generator().manual_seed(0)
        worst = 0.0
        for kept in (1.0, 0.8, 0.5, 0.2):
            here = ~small.reachable | (torch.rand(len(small.edges), generator=generator).to(small.edges.device) < kept)
            there = torch.ones(len(full.edges), dtype=torch.bool, device=here.device)
            there[small.edges] = here
            expected = self.outputs(full, 1, edge_keep=there[None])
            found = self.outputs(small, 1, edge_keep=here[None])
            worst = max(worst, _relative(found, expected))
        return worst

    def _together(self, place: Place) -> bool:
        """Whether two different coalitions evaluated together answer as each does alone."""
        generator = torch.Generator().manual_seed(0)
        device = place.nodes.device
        edge_keep = torch.rand(2, place.graph.num_edges, generator=generator).to(device) < 0.7
        edge_keep[0] = True
        features = {}
        for kind, fields in place.graph.nodes.items():
            if "x" in fields and fields["x"].is_floating_point():
                x = fields["x"]
                halved = x * torch.rand(x.shape, generator=generator, dtype=x.dtype).to(device)
                features[kind] = torch.stack([x, halved])
        try:
            both = self.outputs(place, 2, edge_keep=edge_keep, features=features)
        except Exception:  # whatever a user's forward raises on two graphs: it can still be asked one by one
            return False
        alone = [
            self.outputs(
                place, 1, edge_keep=edge_keep[i : i + 1], features={k: x[i : i + 1] for k, x in features.items()}
            )
            for i in range(2)
        ]
        return _relative(both, torch.cat(alone)) <= _tolerance(self.graph)

    # --- questions ---

    def players(self, kind: str, **options: Any) -> Players:
        """Players that can matter to the number; with ``all=True`` all of the graph's nodes, edges or features.

        "nodes"; "edges" (``undirected=True``: a pair is one); "features", columns of ``x``; "node_features", its
        entries; "edge_features", columns of ``edge_attr``; "relations"; "motifs", blocks of the graph, or the node sets
        in ``motifs=``.
        """
        beyond = options.get("all", False) and kind != "features"
        place = whole(self.graph, self.focus) if beyond else self.place
        return players_of(place, self.graph, kind, options, self.baseline)

    def _resolved(self, players: str | Players) -> Players:
        return self.players(players) if isinstance(players, str) else players

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of nodes, edges or features."""
        key = players if isinstance(players, str) else id(players)
        if key not in self._games:  # holds the players, so that their id stays theirs
            self._games[key] = Coalitions(self, self._resolved(players))
        coalitions = self._games[key]
        game = coalitions.game()
        if coalitions.players.kind == "nodes" and not self.focus:  # a pooled prediction may be a sum of local parts
            game.neighbourhoods = partial(neighbourhoods, self.place.graph, coalitions.owner, len(coalitions.players))
        return game

    def differentiable(self, players: str | Players) -> Differentiable:
        """Edges by the amount of their messages; nodes and features by their features."""
        return differentiable(self, self._resolved(players))

    def module_copy(self) -> Call:
        """A deep copy of the module as ``(x, edge_index, ...) -> [rows, outputs]``."""
        return module_copy(self)

    def run(self) -> Tensor:
        """One forward pass of the user's module on the whole graph."""
        with torch.no_grad():
            return self.outputs(whole(self.graph, self.focus), 1)

    def rows(self) -> Tensor:
        """The explained nodes; every node for a graph."""
        place = whole(self.graph, self.focus)
        return place.flat_focus() if self.focus else place.nodes.cpu()

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the labelled training nodes or graphs."""
        return objective(self, train, remove)

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
        return {
            "family": "graph",
            "model": type(self.module).__name__,
            "task": self.model.task,
            self.model.task: what,
            "label": self.label,
            "payoff": self.payoff if isinstance(self.payoff, str) else getattr(self.payoff, "__name__", "callable"),
            "removal": self.removal,
            "baseline": self.baseline,
        }


def _relative(found: Tensor, expected: Tensor) -> float:
    scale = float(expected.abs().max().clamp_min(1e-12))
    return float((found - expected).abs().max()) / scale


def _tolerance(graph: Structure) -> float:
    double = any(fields["x"].dtype == torch.float64 for fields in graph.nodes.values() if "x" in fields)
    return 1e-9 if double else 1e-5
