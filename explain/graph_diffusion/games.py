"""Coalitions of known labels, nodes, edges, features and steps into numbers, and derivatives by labels and features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from explain.graph_diffusion.copies import Copies
from explain.graph_diffusion.number import LabelNumber, RunNumber, StepNumber
from explain.graph_diffusion.players import RUN_KINDS, STEP_KINDS
from explain.graph_diffusion.processes import CategoricalLabels
from explain.spelling import came
from explain.types import Differentiable, Game, Masks, Players, Unsupported, Values, present_atoms

_STEPS = "the labels foreseen before are held to, all classes alike at first"


@dataclass(frozen=True, eq=False)
class LabelCoalitions:
    """The number for masks over players of one kind; every coalition meets the same noise, node by node."""

    number: LabelNumber
    players: Players

    def __post_init__(self) -> None:
        kinds = RUN_KINDS if isinstance(self.number, RunNumber) else STEP_KINDS
        if self.players.kind not in kinds:
            raise Unsupported(f"labels on a graph play with {', '.join(kinds)}; {came(self.players.kind, kinds)}")

    @property
    def removal(self) -> str:
        """What absent players are replaced by."""
        number = self.number
        if self.players.kind == "labels":
            assert isinstance(number, StepNumber)
            limit = isinstance(number.process, CategoricalLabels)
            return "a draw of the limit distribution" if limit else "all classes alike, with the same noise"
        return {
            "known_labels": "unknown, and sampled with the others",
            "nodes": f"no edges, features at {number.baseline}, label unknown",
            "edges": "deleted",
            "features": number.baseline,
            "steps": _STEPS,
            "guidance": "no correction towards the known labels; they stay in their place",
        }[self.players.kind]

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        checks = {"removal": self.removal, "draws": self.number.draws, "noise": "the same in every coalition"}
        return Game(self.players, self, batch_size=self.number.batch, checks=checks)

    @cached_property
    def owner(self) -> Tensor:
        """The player of each atom, int64; ``P`` for those that nobody owns.

        Raises:
            ValueError: atoms that are not there, or that two players own.
        """
        number, kind = self.number, self.players.kind
        size = {
            "edges": number.graph.edge_index.size(1),
            "features": 0 if number.graph.get("x") is None else number.graph.x.size(1),
            **dict.fromkeys(("steps", "guidance"), getattr(number, "steps", 0)),
        }.get(kind, number.model.nodes)
        found = torch.full((size,), len(self.players))
        for player, own in enumerate(self.players.groups or self.players.index.split(1)):
            outside = len(own) and (int(own.min()) < 0 or int(own.max()) >= size)
            if outside or bool((found[own] < len(self.players)).any()):
                raise ValueError(f"{kind} must be from 0 to {size - 1}, each of one player, got {own.tolist()[:5]}")
            found[own] = player
        return found.to(number.model.device)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        present = present_atoms(masks.to(self.number.model.device), self.owner)
        with torch.no_grad():
            if self.players.kind == "labels":
                assert isinstance(self.number, StepNumber)
                return self.number.numbers(_copies(self.number, len(masks)), present=present)
            return self.number.numbers(self._edited(present))

    def _edited(self, present: Tensor) -> Copies:
        """The copies of the graph, ``present [B, *atoms]``."""
        number, kind = self.number, self.players.kind
        copies = _copies(number, len(present))
        if kind == "known_labels":
            return replace(copies, known=copies.known & present)
        if kind == "edges":
            return replace(copies, edges=present)
        if kind == "nodes":
            x = number.graph.get("x")
            return replace(
                copies,
                known=copies.known & present,
                edges=present[:, number.graph.edge_index].all(1),
                x=None if x is None else torch.where(present[..., None], x, number.absent_features),
            )
        if kind == "features":
            return replace(copies, x=torch.where(present[:, None], number.graph.x, number.absent_features))
        return replace(copies, **{"looks" if kind == "steps" else "corrected": present})


def _copies(number: LabelNumber, count: int) -> Copies:
    return Copies(number.model.known.expand(count, -1))


def differentiable(number: LabelNumber, players: Players) -> Differentiable:
    """The number as a function of the known labels ``[1, n, C]`` of a run, or of the features ``[1, n, F]``.

    The baseline of a known label is all classes alike: it stays in its place, and says nothing.

    Raises:
        Unsupported: other players, or a number that has no derivative.
    """
    kind = players.kind
    if kind not in ("known_labels", "features") or (kind == "known_labels" and isinstance(number, StepNumber)):
        raise Unsupported(
            "gradients are over the features, and of a run over its known labels; with "
            f"{kind!r} use Shapley, Lime or Occlusion"
        )
    if isinstance(number, RunNumber):
        if number.process is None:
            raise Unsupported("no derivative follows your own sampler: use Shapley, Lime or Occlusion")
        if isinstance(number.process, CategoricalLabels) or number.payoff == "probability":
            raise Unsupported(
                "a drawn class, or the share of runs that end in it, has no derivative: use Shapley, Lime or "
                "Occlusion, or ask a Gaussian run with payoff='state' (its y_0 of the label)"
            )
    model = number.model
    if kind == "features":
        columns = torch.full((number.graph.x.size(1),), -1)
        for player, own in enumerate(players.groups or players.index.split(1)):
            columns[own] = player
        x = number.graph.x
        baseline = number.absent_features.expand_as(x)
        return Differentiable(
            x[None],
            baseline[None],
            lambda rows: number.numbers(replace(_copies(number, len(rows)), x=rows), differentiable=True),
            columns.expand(x.shape).to(x.device),
            number.baseline,
        )
    owner = torch.full((model.nodes,), -1)
    for player, own in enumerate(players.groups or players.index.split(1)):
        owner[own] = player
    uniform = torch.full_like(model.labels, 1 / model.classes)
    return Differentiable(
        model.labels[None],
        torch.where(owner.to(model.device)[:, None] >= 0, uniform, model.labels)[None],
        lambda rows: number.numbers(replace(_copies(number, len(rows)), labels=rows), differentiable=True),
        owner[:, None].expand(model.labels.shape).to(model.device),
        "a label that says nothing, all classes alike",
    )
