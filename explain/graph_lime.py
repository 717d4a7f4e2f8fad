"""GraphLIME: which features of the nodes around go with what the model says about them."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from explain.doubts import doubt
from explain.explainer import Answer, Explainer
from explain.types import Players, Target, expect_graph

_NUMBERS = 2**25  # entries of all kernel matrices together
_SAME = 1 - 1e-9  # cosine of two kernels that are one
_OPTIMAL = 1e-6  # of the lasso's conditions
_STEPS = 100_000  # of the descent, each over all features


@dataclass(frozen=True)
class GraphLime(Explainer):
    """HSIC lasso over the features of the computation graph's nodes (Huang et al. 2020; Yamada et al. 2014).

    ``min over beta >= 0 of  1/2 |L - sum_k beta_k K_k|_F^2 + penalty |beta|_1``, where ``K_k [nodes, nodes]`` is the
    Gaussian kernel of feature ``k`` (scaled to unit variance, width 1) and ``L`` that of the predicted probabilities
    (width: their own spread), both centred and of norm 1. Scores are ``beta``: how much of the likeness of predictions
    goes with the likeness of a feature. They have no sign and are not in the number's units. Features of one kernel
    share their credit equally. Without classes ``L`` is that of the outputs.

    Not for: what the model does with a feature: it says what goes with the predictions nearby, not what moves them.

    Args:
        penalty: of the lasso; 1 leaves nothing, 0 selects most.
        nodes: the most nodes compared; of more, the explained one and others at random. Fewer where the kernels of all
            features would not fit the memory budget.
        seed: of the choice of nodes.

    ``checks``: ``explained`` (share of ``|L|^2`` that the features reproduce), ``selected`` (features with credit),
    ``nodes`` (compared), ``kkt`` (largest violation of the lasso's optimality conditions).

    Raises:
        ValueError: a setting out of range.
        Unsupported: the target is not one node with features.

    Warns:
        UserWarning: no two nodes differ in a feature or in what is predicted, so that there is nothing to fit; or the
            lasso did not converge.

    >>> GraphLime(penalty=0.2).nodes
    200
    """

    penalty: float = 0.1
    nodes: int = 200
    seed: int | torch.Generator | None = None

    def __post_init__(self) -> None:
        if isinstance(self.penalty, (str, Players)):
            raise TypeError("GraphLime's players are always the features: its first setting is penalty, a number")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty must be 0 or more, got {self.penalty}")
        if isinstance(self.nodes, bool) or not isinstance(self.nodes, int) or self.nodes < 2:
            raise ValueError(f"nodes must be a whole number of at least 2, got {self.nodes!r}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        expect_graph(target, "neighbourhood", "GraphLime is fitted to the nodes around one of a graph")
        x, outputs, row, players = target.neighbourhood()
        rows = _chosen(len(x), row, self.nodes, len(players), generator)
        features = x[rows][:, players.index.to(x.device)].double().cpu()
        predicted = outputs[rows].double().cpu()
        if target.has_classes:
            found = target.log_probabilities(predicted).exp()
            predicted = found[:, 1:] if predicted.size(1) == 1 else found
        beta, explained, kkt = hsic_lasso(features, predicted, self.penalty)
        if not beta.numel() or explained is None:
            doubt("the nodes around do not differ: no feature can be told from another")
        elif kkt > _OPTIMAL:
            doubt(
                f"the lasso over {len(players)} features has not converged (its optimality conditions are missed by "
                f"{kkt:.1g}): raise penalty, or take fewer nodes"
            )
        return Answer(
            scores=beta,
            players=players,
            value=target.value(),
            base=None,
            checks={
                "scores": "likeness of predictions that goes with a feature, without a sign",
                "explained": explained,
                "selected": int((beta > 0).sum()),
                "nodes": len(rows),
                "kkt": kkt,
            },
            calls=1,
        )


def hsic_lasso(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, float | None, float]:
    """``beta [features]``, the share of ``|L|^2`` explained (None where ``y`` is constant), and the KKT violation."""
    kernels = _normalised(torch.stack([_gaussian(_unit(column)[:, None], 1.0) for column in x.T]) if x.size(1) else x)
    spread = float(y.var(0, correction=0).sum().sqrt())
    if not x.size(1) or len(x) < 2 or spread < 1e-12:
        return torch.zeros(x.size(1), dtype=torch.float64), None, 0.0
    flat, likeness = kernels.flatten(1), _normalised(_gaussian(y, spread)[None]).flatten()
    gram, products = flat @ flat.T, flat @ likeness
    beta = _lasso(flat, likeness, gram, penalty)
    slope = products - gram @ beta - penalty  # at most 0, and 0 where beta is above 0
    kkt = float(torch.where(beta > 0, slope.abs(), slope.clamp_min(0)).max())
    missed = 1 - 2 * beta @ products + beta @ gram @ beta
    return beta, 1 - float(missed), kkt


def _lasso(flat: Tensor, likeness: Tensor, gram: Tensor, penalty: float) -> Tensor:
    """The lasso on kernels ``[features, pairs of nodes]`` by coordinate descent, equal ones sharing."""
    same = (gram > _SAME) | torch.eye(len(gram), dtype=torch.bool)
    own, group, size = same.int().argmax(1).unique(return_inverse=True, return_counts=True)
    solver = Lasso(
        penalty / flat.size(1),  # its loss is a mean
        fit_intercept=False,
        precompute=gram[own][:, own].numpy(),
        positive=True,
        tol=1e-14,
        max_iter=_STEPS,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of slow descent, and of penalty 0: what is left shows in the conditions
        solver.fit(flat[own].T.numpy(), likeness.numpy())
    return (torch.from_numpy(solver.coef_) / size)[group]


def _chosen(count: int, row: int, most: int, features: int, generator: torch.Generator) -> Tensor:
    """Rows of the nodes compared, the explained one among them."""
    most = max(2, min(most, math.isqrt(_NUMBERS // max(features, 1))))
    if count <= most:
        return torch.arange(count)
    others = torch.randperm(count, generator=generator)
    return torch.cat([torch.tensor([row]), others[others != row][: most - 1]]).sort().values


def _unit(column: Tensor) -> Tensor:
    centred = column - column.mean()  # distances of large numbers lose digits
    return centred / centred.std(correction=0).clamp_min(1e-12)


def _gaussian(rows: Tensor, width: float) -> Tensor:
    """``exp(-|a - b|^2 / (2 width^2))`` of all pairs of rows."""
    return torch.exp(-torch.cdist(rows, rows).square() / (2 * width**2))


def _normalised(kernels: Tensor) -> Tensor:
    """``H K H / |H K H|_F`` of each ``[features, nodes, nodes]``; zero where a kernel is constant."""
    if kernels.dim() != 3:
        return kernels
    centred = (
        kernels - kernels.mean(1, keepdim=True) - kernels.mean(2, keepdim=True) + kernels.mean((1, 2), keepdim=True)
    )
    norm = centred.norm(dim=(1, 2), keepdim=True)
    return torch.where(norm > 1e-12, centred / norm.clamp_min(1e-12), 0.0)
