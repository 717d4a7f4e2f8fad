"""Influence of what is removed from a graph, and what retraining without it does."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import explain
from explain import Explanation, Influence, Players, Target
from models.removal.minima import Training


def without(data: Data, kind: str, atoms: Tensor) -> Data:
    """The data without these nodes (their edges, features and labels) or these columns of ``edge_index``.

    >>> from models.datasets import karate_club
    >>> data = karate_club()
    >>> without(data, "nodes", torch.tensor([33])).num_edges, without(data, "edges", torch.tensor([0, 2])).num_edges
    (122, 154)
    """
    made = copy.copy(data)
    if kind == "edges":
        kept = torch.ones(data.edge_index.size(1), dtype=torch.bool).index_fill(0, atoms, False)
        made.edge_index = data.edge_index[:, kept]
        return made
    made.edge_index = data.edge_index[:, ~torch.isin(data.edge_index, atoms).any(0)]
    made.x = data.x.index_fill(0, atoms, 0.0)
    made.train_mask = data.train_mask.index_fill(0, atoms, False)
    return made


def with_edges(data: Data, ends: Tensor) -> Data:
    """The data with both directions of these edges, ``[2, k]``, besides."""
    made = copy.copy(data)
    made.edge_index = torch.cat([data.edge_index, ends, ends.flip(0)], 1)
    return made


def absent_pairs(data: Data, nodes: Sequence[int], count: int) -> Tensor:
    """So many pairs without an edge, ``[2, count]``: half of them at the explained nodes or next to these."""
    generator = torch.Generator().manual_seed(0)
    there = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.bool)
    there[data.edge_index[0], data.edge_index[1]] = True
    near = there[list(nodes)].any(0).index_fill(0, torch.tensor(nodes), True)
    free = (~(there | there.T)).triu(1)
    halves = [(free & (near[:, None] | near)).nonzero(), (free & ~(near[:, None] | near)).nonzero()]
    drawn = [half[torch.randperm(len(half), generator=generator)[: count // 2]] for half in halves]
    return torch.cat(drawn).T


@dataclass(frozen=True)
class Row:
    """One line of the table: Pearson correlations with retraining, over removals and explained nodes together.

    ``total``: score and fall of the number, or its rise where edges are added. ``learned``: the learned part and the
    fall of the number on the unedited graph. ``structural``, ``own``: these parts alone and the fall. ``newton``: after
    one Newton step.
    ``worst``: the least ``total`` of any explained node. ``slope``: of the fall over the score. ``fall``: its standard
    deviation. ``lambda_min``: of the trained loss. ``gradient``, ``retrained``: gradient norms of the trained loss, and
    the largest after a retraining. ``explaining``, ``retraining``: CPU seconds, the Newton steps not among them.
    """

    model: str
    kind: str
    removals: int
    targets: int
    total: float
    worst: float
    slope: float
    learned: float
    structural: float
    own: float
    newton: float
    fall: float
    lambda_min: float
    gradient: float
    retrained: float
    explaining: float
    retraining: float


Chosen = Callable[[Players, Players], Players]  # which of all players, given those that the number can see


def study(
    name: str,
    net: nn.Module,
    training: Training,
    nodes: Sequence[int],
    kind: str,
    *,
    choose: Chosen = lambda everyone, near: everyone,
    added: int = 0,
    newton: bool = True,
) -> Row:
    """Remove nodes or (undirected) edges, or add edges, one by one, retrain to the minimum each time, and compare.

    Args:
        name: of the model in the table.
        net: at the minimum.
        training: of it.
        nodes: the explained ones; the number is the logit of the predicted class.
        kind: what is removed, "nodes" or "edges", or "added" edges.
        choose: which of the players are removed.
        added: how many edges are added.
        newton: with a Newton step for each removal too.
    """
    model = explain.wrap(net, training.data, weight_decay=training.weight_decay)
    retraining, found, spent = Retraining(net, training, kind), Found([], [], [], []), {"explaining": 0.0}
    options = {"undirected": True} if kind == "edges" else {}
    for target in map(model.node, nodes):
        if kind == "added":
            ask = partial(Influence, add=absent_pairs(training.data, nodes, added), seed=0)
        else:
            players = choose(target.players(kind, all=True, **options), target.players(kind, **options))
            ask = partial(Influence, remove=players, seed=0)
        started = time.process_time()
        scored = ask().explain(target)
        spent["explaining"] += time.process_time() - started
        found.add(scored, *retraining.falls(scored, target))
        if newton:
            found.newton.append(ask(newton=True).explain(target).scores)
    return found.row(
        model=name,
        kind=kind,
        lambda_min=_lambda_min(found.scored[0].checks),
        gradient=training.gradient_norm(net),
        retrained=retraining.worst,
        retraining=retraining.seconds,
        **spent,
    )


class Retraining:
    """A network retrained without some nodes or edges, or with some more edges, each once for all explained nodes.

    ``worst``: the largest gradient norm it ended with; ``seconds``: of the CPU.
    """

    def __init__(self, net: nn.Module, training: Training, kind: str) -> None:
        self.net, self.training, self.kind = net, training, kind
        self.worst, self.seconds = 0.0, 0.0
        self._logits: dict[int, tuple[Tensor, Tensor]] = {}

    def falls(self, scored: Explanation, target: Target) -> tuple[Tensor, Tensor]:
        """By how much the number falls without each player, on the edited graph and on the unedited one, ``[P]``.

        With each player, where edges are added: by how much it rises.
        """
        node, label, players = int(target.describe()["node"]), target.describe()["label"], scored.players
        for player, atom in enumerate(players.index.tolist()):
            if atom not in self._logits:
                self._retrain(atom, self._edited(players, player))
        numbers = torch.tensor(
            [[float(logits[node, label]) for logits in self._logits[atom]] for atom in players.index.tolist()],
            dtype=torch.float64,
        )
        sign = -1 if self.kind == "added" else 1
        edited, unedited = (sign * (scored.value - numbers)).unbind(1)
        return edited, unedited

    def _edited(self, players: Players, player: int) -> Data:
        if self.kind == "added":
            return with_edges(self.training.data, players.geometry["ends"][:, [player]])
        atoms = players.groups[player] if players.groups else players.index[[player]]
        return without(self.training.data, self.kind, atoms)

    def _retrain(self, atom: int, data: Data) -> None:
        started = time.process_time()
        before = self.training.data
        training = self.training.on(data)
        made = training.to_minimum(self.net)
        with torch.no_grad():
            self._logits[atom] = made(data.x, data.edge_index), made(before.x, before.edge_index)
        self.worst = max(self.worst, training.gradient_norm(made))
        self.seconds += time.process_time() - started


@dataclass(frozen=True)
class Found:
    """Of each explained node: its answer, falls of its number, also on the unedited graph, scores of Newton steps."""

    scored: list[Explanation]
    falls: list[Tensor]
    unedited: list[Tensor]
    newton: list[Tensor]

    def add(self, scored: Explanation, fall: Tensor, unedited: Tensor) -> None:
        """Those of one more."""
        self.scored.append(scored)
        self.falls.append(fall)
        self.unedited.append(unedited)

    def row(self, **others: Any) -> Row:
        """The line of the table; ``others`` is what is not in here."""
        fall, total = torch.cat(self.falls), torch.cat([one.scores for one in self.scored])
        parts = {name: torch.cat([one.parts[name] for one in self.scored]) for name in self.scored[0].parts}
        return Row(
            removals=len(total),
            targets=len(self.scored),
            total=_pearson(total, fall),
            worst=min(_pearson(one.scores, its) for one, its in zip(self.scored, self.falls, strict=True)),
            slope=float(total @ fall / (total @ total)),
            learned=_pearson(parts["learned_unedited"], torch.cat(self.unedited)),
            structural=_pearson(parts["structural"], fall),
            own=_pearson(parts["own"], fall),
            newton=_pearson(torch.cat(self.newton), fall) if self.newton else float("nan"),
            fall=float(fall.std()),
            **others,
        )


def _lambda_min(checks: Mapping[str, Any]) -> float:
    return float(checks["lambda_min"]) if checks["curvature"] == "hessian" else float("nan")


def _pearson(one: Tensor, other: Tensor) -> float:
    """NaN where one of them does not vary."""
    pair = torch.stack([one, other]).double()
    return float(torch.corrcoef(pair)[0, 1]) if (pair.std(1) > 0).all() else float("nan")


def some(players: Players, chosen: Tensor) -> Players:
    """These players, int64 ``[k]``, of all."""
    numbers = chosen.tolist()
    groups = None if players.groups is None else tuple(players.groups[i] for i in numbers)
    by_player = {name: players.geometry[name] for name in ("node", "ends") if name in players.geometry}
    geometry = {**players.geometry, **{name: value[..., chosen] for name, value in by_player.items()}}
    return Players(players.kind, players.index[chosen], tuple(players.names[i] for i in numbers), groups, geometry)


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a study."""
    return pd.DataFrame([asdict(row) for row in rows])
