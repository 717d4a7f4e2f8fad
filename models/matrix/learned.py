"""The columns of what is learned or looked at: masks, attention, lassos and trees, beside the same by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

import explain
from explain import Explanation, GlobalSurrogate, GraphLime, Mask
from models.matrix import oracles
from models.matrix.calculus import slopes
from models.matrix.case import Case, Smooth, coalitions
from models.matrix.trials import Trial, apart

_SIZE = {"edges": 0.005, "features": 1.0}  # the penalties of GNNExplainer's own defaults
_ENTROPY = {"edges": 1.0, "features": 0.1}
_FLAT = 0.02  # slope of the objective along a logit of the mask, where it counts as a minimum
_TOP = 2
_Method: TypeAlias = Literal["gnn_explainer", "pg_explainer", "graph_mask"]
_DRAWS = 64  # of random masks


def mask(case: Case) -> Iterator[Trial]:
    """GNNExplainer's objective by hand, at a random mask and at the learned one; the number with the best only."""
    for kind in ("edges", "features"):
        yield Trial(kind, "the objective at a random mask", partial(_objective_gap, case, kind), loose=100)
        yield Trial(kind, "a minimum, below the mean of random masks", partial(_minimum_gap, case, kind))
    for kind in ("edges", "nodes", "features"):
        yield Trial(kind, "the number with the best alone", partial(_kept_gap, case, _short(kind)))
    methods: tuple[_Method, ...] = ("graph_mask", "pg_explainer")
    for method in methods:
        yield Trial("edges", f"{method}, the number with the best alone", partial(_method_gap, case, method))


def _short(kind: str, method: _Method = "gnn_explainer") -> Mask:
    return Mask(kind, method, epochs=5, repeats=1, top_k=_TOP, seed=0)


def _objective(case: Case, kind: str, why: Explanation, amounts: Tensor) -> float:
    """``-log p(label) + size sum(m) + entropy mean(H(m))``; "features" have the mean in both.

    Raises:
        AssertionError: it is not known by hand.
    """
    if kind not in case.masked:
        raise AssertionError("an answer, and nothing to hold it against")
    read = case.masked[kind](why.players, amounts).detach().double().reshape(1, -1)
    if case.label is None:
        said = (read - case.target.value()).square().sum()
    elif read.size(1) == 1:
        said = F.binary_cross_entropy_with_logits(read[:, 0], torch.tensor([float(case.label)]).double())
    else:
        said = F.cross_entropy(read, torch.tensor([case.label]))
    learned = amounts[why.scores > 0]  # those that no gradient reaches are not learned, and have none
    kept = learned.clamp(1e-15, 1 - 1e-15)
    entropy = -(kept * kept.log() + (1 - kept) * (1 - kept).log())
    size = learned.sum() if kind == "edges" else learned.mean()
    return float(said + _SIZE[kind] * size + _ENTROPY[kind] * entropy.mean())


def _objective_gap(case: Case, kind: str) -> float:
    why = Mask(kind, epochs=2, lr=1e-12, repeats=1, seed=0).explain(case.target)
    by_hand = torch.tensor([_objective(case, kind, why, why.scores)])
    return apart(torch.tensor([why.checks["final_loss"]]), by_hand) if len(why.players) else 0.0


def _minimum_gap(case: Case, kind: str) -> float:
    why = Mask(kind, epochs=300, lr=0.05, repeats=1, seed=0).explain(case.target)
    if not len(why.players):
        return 0.0
    found = _objective(case, kind, why, why.scores)
    draws = torch.rand(_DRAWS, len(why.players), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = [_objective(case, kind, why, each) for each in draws]
    if not found < sum(drawn) / len(drawn):
        raise AssertionError(f"the objective is {found:.3g}, of random masks {sum(drawn) / len(drawn):.3g} on average")
    smooth = Smooth(why.scores, why.scores, why.scores, lambda m: torch.tensor(_objective(case, kind, why, m)))
    slope = slopes(smooth) * why.scores * (1 - why.scores)
    return max(0.0, float(slope.abs().max()) - _FLAT)


def _kept_gap(case: Case, explainer: explain.Explainer) -> float:
    why = explainer.explain(case.target)
    kind, count = why.players.kind, len(why.players)
    values = case.numbers(kind)[1]
    best = why.scores.argsort(descending=True, stable=True)[:_TOP].tolist()
    rest = [i for i in range(count) if i not in best]
    found = torch.tensor([why.checks["fidelity_top_k"], why.checks["fidelity_rest"]]).double()
    expected = torch.stack([values[oracles.position(gone, count)] for gone in (rest, best)])
    return apart(found, expected)


def _method_gap(case: Case, method: _Method) -> float:
    explainer = _short("edges", method)
    return _kept_gap(case, explainer.fit([case.target]) if method == "pg_explainer" else explainer)


def attention(case: Case) -> Iterator[Trial]:
    """Each aggregate, from the layers' own weights."""
    for aggregate in case.looked or ("auto",):

        def gap(aggregate: Any = aggregate) -> float:
            why = explain.Attention(aggregate=cast("Any", aggregate), attention=case.told).explain(case.target)
            if aggregate not in case.looked:
                raise AssertionError("an answer, and nothing to hold it against")
            return apart(why.scores, case.looked[aggregate](why.players))

        yield Trial("attention", aggregate, gap)


def graph_lime(case: Case) -> Iterator[Trial]:
    """The lasso over the kernels of features, by its optimality conditions on every set of features."""

    def gap() -> float:
        why = GraphLime(penalty=0.05, seed=0).explain(case.target)
        if case.around is None:
            raise AssertionError("an answer, and nothing to hold it against")
        x, outputs = case.around
        predicted = outputs if case.label is None else outputs.softmax(1)
        return apart(why.scores, _hsic(x[:, why.players.index].double(), predicted.double(), 0.05))

    yield Trial("features", "the lasso, every set of features", gap, loose=1e4)


def _hsic(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    unit = (x - x.mean(0)) / x.std(0, correction=0)
    kernels = torch.stack([_kernel(column[:, None], 1.0) for column in unit.T]).flatten(1)
    likeness = _kernel(y, float(y.var(0, correction=0).sum().sqrt())).flatten()
    gram, products = kernels @ kernels.T, kernels @ likeness - penalty
    best, value = torch.zeros(len(gram)).double(), 0.0
    for count in range(1, len(gram) + 1):
        for inside in itertools.combinations(range(len(gram)), count):
            beta = torch.zeros(len(gram)).double()
            rows = list(inside)
            beta[rows] = torch.linalg.solve(gram[rows][:, rows], products[rows])
            loss = float(beta @ gram @ beta / 2 - beta @ products)
            if bool((beta >= 0).all()) and loss < value:
                best, value = beta, loss
    return best


def _kernel(rows: Tensor, width: float) -> Tensor:
    """``H K H`` of the Gaussian kernel, of norm 1."""
    found = torch.exp(-(rows[:, None] - rows[None]).square().sum(-1) / (2 * width**2))
    H = torch.eye(len(rows)).double() - 1 / len(rows)
    found = H @ found @ H
    return found / found.norm()


def surrogate(case: Case) -> Iterator[Trial]:
    """TreeSHAP by all coalitions of the tree's expectations, at credit by hand."""

    def gap() -> float:
        targets = [other.target for other in case.others] or [case.target] * 8
        fitted = GlobalSurrogate(explain.Occlusion("features"), depth=2, seed=0).fit(targets)
        why = fitted.explain(case.target)
        players, values = case.numbers("features")
        own = dict(zip(players.names, oracles.left_out(values).tolist(), strict=True))
        row = torch.tensor([own.get(name, 0.0) for name in why.players.names]).double()
        tree = fitted.tree.tree_
        column = fitted.tree.classes_.tolist().index(case.target.predicted())

        def expected(node: int, there: Tensor) -> float:
            left, right = tree.children_left[node], tree.children_right[node]
            if left < 0:
                counts = tree.value[node][0]
                return float(counts[column] / counts.sum())
            feature = tree.feature[node]
            if there[feature]:
                return expected(left if float(row[feature]) <= tree.threshold[node] else right, there)
            share = tree.weighted_n_node_samples[left] / tree.weighted_n_node_samples[node]
            return float(share * expected(left, there) + (1 - share) * expected(right, there))

        game = torch.tensor([expected(0, there) for there in coalitions(len(row))]).double()
        return apart(why.scores, oracles.shapley(game))

    yield Trial("features", "all coalitions of the tree", gap, loose=1e4)  # trees are float32
