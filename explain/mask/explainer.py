"""Mask: masks learned by gradient descent, so that the masked model still says what it said."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch_geometric.nn import MessagePassing

from explain.doubts import doubt
from explain.explainer import Answer, Explainer, seeded
from explain.guard import random_states_kept, usual_modes
from explain.mask.algorithms import COEFFICIENTS, GNN, NODE_MASKS, PG, among, in_dtype_of, masked
from explain.mask.graph_mask import GraphMask, gated
from explain.progress import in_sight
from explain.spelling import came
from explain.types import Call, Players, Target, Unsupported, expect_graph

_MOVED = 0.05  # of a probability, by what should have left it alone


@dataclass(frozen=True)
class Mask(Explainer):
    """A mask ``m`` in [0, 1] over the players, learned so that the masked model still says the explained class.

    ``min_m  -log p(label | masked input) + size * sum(m) + entropy(m)`` (GNNExplainer, Ying et al. 2019); PGExplainer
    (Luo et al. 2020) learns one network that gives the edge masks of many targets: call `fit` first. GraphMask
    (Schlichtkrull et al. 2021) learns gates on the messages of each layer, here for one target. All are
    torch_geometric's, run on copies. Edge masks multiply messages, node and feature masks multiply features, so this
    answers what a *message* (a feature) is worth to the class, not what deleting the edge would do. Where messages
    cannot be told apart, GNNExplainer's edge masks multiply the weights of the edges' entries, if the model answers
    with weights of 0 as it does without the edges. Scores are mask values: without a sign, and not in the number's
    units.

    Not for: signs, amounts in the number's units, or the one run whose start happened to look well: see how far
    runs agree.

    Args:
        players: "edges", "nodes", "features" (one mask for all nodes), or `Players` of one of these kinds. A player of
            several atoms has the mean of their masks. On heterogeneous graphs all types are masked at once, by
            "gnn_explainer".
        method: "gnn_explainer", "pg_explainer" (edges only, node and graph tasks) or "graph_mask" (edges only; layers
            with ``in_channels`` and ``out_channels``).
        epochs: steps of the optimiser.
        lr: its learning rate.
        repeats: independent runs; scores are their mean, errors their standard error (None for one run). A learned mask
            hangs on its random start, and ``checks["run_to_run"]`` says how much.
        coefficients: torch_geometric's names, such as ``{"edge_size": 0.005, "edge_ent": 1.0}``.
        top_k: players kept for the fidelity check.
        progress: a bar where it takes more than five seconds.
        seed: of the random starts.

    Checks: ``fidelity_top_k`` (the number with only the ``top_k`` best players, in the target's own game, whose removal
    is ``fidelity_removal``) and ``fidelity_rest`` (with all but these), ``final_loss`` (mean over runs), ``run_to_run``
    (mean Spearman correlation between runs), ``unmasked`` (edges that the model made itself and no mask reached),
    ``removal``; of masks of weights ``entries``, ``entries_gap``, ``entries_jump`` and ``derivative_gap``, see
    `Gradient`; of GraphMask ``moved``, by how much its normalised messages alone move the class's probability.

    Raises:
        ValueError: unknown settings; "pg_explainer" asked before `fit`.
        Unsupported: a model without messages or weights of edges that can be told apart, or a task that PGExplainer
            does not have.

    Warns:
        UserWarning: the model sends messages over edges that no mask reaches, it jumps where weights of edges leave
            zero, torch's derivative by these is not its own, or GraphMask explains another prediction than the model's.

    >>> Mask("edges", epochs=50, seed=0).method
    'gnn_explainer'
    """

    players: str | Players = "edges"
    method: Literal["gnn_explainer", "pg_explainer", "graph_mask"] = "gnn_explainer"
    epochs: int = 200
    lr: float = 0.01
    repeats: int = 3
    coefficients: Mapping[str, Any] = field(default_factory=dict)
    top_k: int = 10
    progress: bool = True
    seed: int | torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.method not in COEFFICIENTS:
            raise ValueError(f"method must be one of {', '.join(COEFFICIENTS)}, {came(self.method, COEFFICIENTS)}")
        allowed = tuple(NODE_MASKS) if self.method == "gnn_explainer" else ("edges",)
        if self.kind not in allowed:
            raise ValueError(f"players must be {' or '.join(allowed)} for {self.method}, {came(self.kind, allowed)}")
        for name in ("epochs", "repeats", "top_k"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if unknown := set(self.coefficients) - set(COEFFICIENTS[self.method]):
            known = ", ".join(COEFFICIENTS[self.method])
            raise ValueError(f"coefficients of {self.method} are {known}; got {', '.join(sorted(unknown))}")

    @property
    def kind(self) -> str:
        """The kind of its players."""
        return self.players.kind if isinstance(self.players, Players) else self.players

    def fit(self, targets: Sequence[Target]) -> FittedMask:
        """Train PGExplainer's network on these targets of one model; what comes back explains any target of it.

        Raises:
            ValueError: not "pg_explainer", no targets, or targets of different models.
        """
        if self.method != "pg_explainer":
            raise ValueError(f"fit is for method='pg_explainer'; {self.method} learns each mask when it explains")
        targets = list(targets)
        if not targets or any(target.module is not targets[0].module for target in targets):
            raise ValueError(f"fit needs at least one target, all of one model, got {len(targets)} targets")
        seed, generator = seeded(self.seed)
        with usual_modes():
            examples = [(self._call(target), players) for target in targets if len(players := self._players(target))]
        if not examples:
            raise ValueError("fit needs a target with at least one edge: none of these is reached by any")
        with random_states_kept(), usual_modes(), in_dtype_of(examples[0][0]):
            runs = [self._fitted(examples, generator) for _ in range(self.repeats)]
        algorithms, losses = tuple(run[0] for run in runs), [run[1] for run in runs]
        return FittedMask(replace(self, seed=seed), algorithms, len(examples), float(np.mean(losses)), seed)

    def _fitted(self, examples: Sequence[tuple[Call, Players]], generator: torch.Generator) -> tuple[PG, float]:
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        algorithm = PG(self.epochs, self.lr, self.coefficients)
        lessons = [algorithm.lesson(call, players) for call, players in examples]
        losses: list[float] = []
        for epoch in in_sight(range(self.epochs), desc="PGExplainer", progress=self.progress):
            losses = [algorithm.learn(epoch, lesson) for lesson in lessons]
        return algorithm, float(np.mean(losses))

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        if self.method == "pg_explainer":
            raise ValueError(
                "PGExplainer learns over many targets first: fitted = Mask(method='pg_explainer').fit(targets), then "
                "fitted.explain(target)"
            )
        players = self._players(target)
        if not len(players):
            return _empty(target, players)
        call = self._call(target)
        layers = sum(isinstance(part, MessagePassing) for part in call.module.modules())
        steps = self.repeats * self.epochs * (layers if self.method == "graph_mask" else 1)
        runs = []
        with in_sight(total=steps, desc=self.method, progress=self.progress) as bar:
            for _ in range(self.repeats):
                torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
                with in_dtype_of(call):
                    runs.append(self._once(call, players, layers, bar))
        found: dict[str, Any] = {
            "final_loss": float(np.mean([run.loss for run in runs])),
            "unmasked": runs[-1].unmasked,
        }
        if self.method == "graph_mask":
            found["moved"] = max(run.moved for run in runs)
            _warn_if_moved(found["moved"])
        found |= _asked(call, players)
        return _agreed(target, players, torch.stack([run.mask for run in runs]), found, self.top_k, calls=steps)

    def _once(self, call: Call, players: Players, layers: int, bar: Any) -> _Run:
        if self.method == "graph_mask":
            gates = GraphMask(self.epochs, self.lr, self.coefficients, layers, bar)
            return _Run(gated(call, gates, players), gates.loss, 0, gates.moved)
        algorithm = GNN(self.epochs, self.lr, self.coefficients, bar)
        mask, unmasked = masked(call, algorithm, players)
        return _Run(mask, algorithm.loss, unmasked, 0.0)

    def _players(self, target: Target) -> Players:
        expect_graph(target, "module_copy", "learned masks are of the edges, nodes and features of a graph")
        return target.players(self.players) if isinstance(self.players, str) else self.players

    def _call(self, target: Target) -> Call:
        call = target.module_copy()
        if self.kind == "edges":
            self._check_edges(call)
        if self.method == "pg_explainer" and call.task not in ("node", "graph"):
            raise Unsupported(f"PGExplainer explains node and graph tasks, got {call.task!r}: use gnn_explainer")
        if self.method == "pg_explainer" and call.atoms is not None:
            raise Unsupported("PGExplainer reads one embedding a node of one type: use gnn_explainer on typed graphs")
        if self.method == "graph_mask" and call.columns is not None:
            raise Unsupported("GraphMask gates the messages of one relation: use gnn_explainer where edges have types")
        return call

    def _check_edges(self, call: Call) -> None:
        """Check that masks of edges can be learned by this method.

        Raises:
            Unsupported: they cannot.
        """
        if call.refused:
            raise Unsupported(f"no mask of edges can be learned: {call.refused}")
        if not any(isinstance(part, MessagePassing) for part in call.module.modules()):
            raise Unsupported("edge masks need torch_geometric message-passing layers: use Shapley or Lime here")
        if call.removal != "message" and self.method != "gnn_explainer":
            raise Unsupported(
                f"{self.method} reads the layers of torch_geometric, and here edges are masked by their weights: use "
                "method='gnn_explainer', Shapley or Lime"
            )
        if call.doubt:
            doubt(call.doubt)


class _Run(NamedTuple):
    """The mask of one run, its last loss, edges that no mask reached, and how far the method moved the prediction."""

    mask: Tensor
    loss: float
    unmasked: int
    moved: float


@dataclass(frozen=True)
class FittedMask(Explainer):
    """PGExplainer after `Mask.fit`: its networks, one a repeat, give the edge mask of any target of the model."""

    mask: Mask
    algorithms: tuple[PG, ...] = field(repr=False)
    fitted_on: int
    final_loss: float
    seed: int

    def settings(self) -> dict[str, Any]:
        """The settings of the `Mask` that was fitted, and on how many targets."""
        return self.mask.settings() | {"fitted_on": self.fitted_on}

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        players = self.mask._players(target)
        if not len(players):
            return _empty(target, players)
        call = self.mask._call(target)
        runs, unmasked = [], 0
        for trained in self.algorithms:
            algorithm = copy.deepcopy(trained)
            algorithm.reachable = among(players, call)
            mask, unmasked = masked(call, algorithm, players)
            runs.append(mask)
        found = {"final_loss": self.final_loss, "unmasked": unmasked, **_asked(call, players)}
        return _agreed(target, players, torch.stack(runs), found, self.mask.top_k, calls=len(runs))


def _agreed(target: Target, players: Players, runs: Tensor, found: dict[str, Any], top_k: int, *, calls: int) -> Answer:
    """The mean of the runs ``[repeats, P]``, how far they agree, and what the number says to it."""
    scores = runs.mean(0)
    checks = found | {
        "scores": "mask values in [0, 1]: without a sign, not in units of the number",
        "run_to_run": _run_to_run(runs),
        **_fidelity(target, players, scores, top_k),
    }
    if checks["unmasked"]:
        doubt(f"the model sends messages over {checks['unmasked']} edges that are not in edge_index: unmasked")
    return Answer(
        scores=scores,
        players=players,
        value=target.value(),
        base=None,
        error=runs.std(0) / len(runs) ** 0.5 if len(runs) > 1 else None,
        checks=checks,
        calls=calls,
    )


def _asked(call: Call, players: Players) -> dict[str, Any]:
    """What masks of these players stand for, and what was measured of it."""
    return {"removal": call.removal, **call.checks} if players.kind == "edges" else {"removal": "features"}


def _fidelity(target: Target, players: Players, scores: Tensor, top_k: int) -> dict[str, Any]:
    """The number with only the best players and with only the others, in the target's own game."""
    best = torch.zeros(1, len(players), dtype=torch.bool)
    best[0, scores.argsort(descending=True, stable=True)[:top_k]] = True
    try:
        game = target.game(players)
    except Unsupported:  # a target may have no game over these players
        return {"fidelity_top_k": None, "fidelity_rest": None, "fidelity_removal": None}
    only, rest = game(torch.cat([best, ~best])).tolist()
    removal = game.checks.get("removal", target.describe().get("removal"))
    return {"fidelity_top_k": only, "fidelity_rest": rest, "fidelity_removal": removal}


def _warn_if_moved(moved: float) -> None:
    if moved > _MOVED:
        doubt(
            f"torch_geometric's GraphMask normalises messages, which alone moves the explained probability by "
            f"{moved:.2g}: its mask is about another prediction than the model's. Use gnn_explainer, Shapley or Lime"
        )


def _run_to_run(runs: Tensor) -> float | None:
    """Mean Spearman correlation between the runs; None for one run or a constant mask."""
    ranks = np.stack([rankdata(run) for run in runs.numpy()])
    if len(runs) < 2 or (np.ptp(ranks, axis=1) == 0).any():
        return None
    return float(np.corrcoef(ranks)[np.triu_indices(len(runs), 1)].mean())


def _empty(target: Target, players: Players) -> Answer:
    checks = {"removal": "message" if players.kind == "edges" else "features"}
    return Answer(scores=torch.zeros(0), players=players, value=target.value(), base=None, checks=checks, calls=1)
