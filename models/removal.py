"""What removing a node or an edge does to a graph network: influence held against retraining.

``python -m models.removal`` prints the table: the karate club exhaustively, a block model and Cora (from
``EXPLAIN_DATA``) by samples.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, SGConv

import explain
from explain import Explanation, Influence, Players
from explain.guard import random_states_kept
from models.datasets import cora, karate_club

DENSE = 600  # parameters up to which training ends with Newton steps


class Sgc(nn.Module):
    """``logits = A^K x W + b`` (Wu et al. 2019): the trained loss is convex."""

    def __init__(self, features: int, classes: int, hops: int = 2) -> None:
        super().__init__()
        self.conv = SGConv(features, classes, K=hops)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[nodes, classes]``."""
        return self.conv(x, edge_index)


class SmoothGcn(nn.Module):
    """The two layers of Kipf and Welling (2017) with tanh: twice differentiable, so that a minimum has a Hessian."""

    def __init__(self, features: int, classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(features, hidden), GCNConv(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[nodes, classes]``."""
        return self.conv2(self.conv1(x, edge_index).tanh(), edge_index)


@dataclass(frozen=True, eq=False)
class Training:
    """``J(theta) = (1/n) sum_i cross-entropy_i + weight_decay/2 |theta|^2`` over ``data.train_mask``, ``n`` fixed.

    Args:
        data: float64.
        weight_decay: as in ``torch.optim.SGD``.
        n: number of training nodes before any was taken away.
        steps: the most L-BFGS iterations.
    """

    data: Data
    weight_decay: float
    n: int
    steps: int = 2000

    def loss(self, outputs: Tensor, params: Iterable[Tensor]) -> Tensor:
        """``J`` of these logits ``[nodes, classes]``."""
        train = self.data.train_mask
        fit = F.cross_entropy(outputs[train], self.data.y[train], reduction="sum") / self.n
        return fit + self.weight_decay / 2 * torch.stack([p.square().sum() for p in params]).sum()

    def to_minimum(self, net: nn.Module, *, adam: int = 0) -> nn.Module:
        """Train in place: some steps of Adam, L-BFGS, and for few parameters Newton's method to machine precision."""
        x, params = _sparse(self.data.x), list(net.parameters())

        def closure() -> float:
            optimizer.zero_grad()
            value = self.loss(net(x, self.data.edge_index), params)
            value.backward()
            return float(value.detach())

        optimizer: torch.optim.Optimizer = torch.optim.Adam(params, lr=0.01)
        for _ in range(adam):
            optimizer.step(closure)
        optimizer = torch.optim.LBFGS(
            params,
            max_iter=self.steps,
            tolerance_grad=1e-9,
            tolerance_change=1e-14,
            history_size=50,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(closure)
        optimizer.zero_grad()
        if sum(p.numel() for p in params) <= DENSE:
            self._newton(net)
        return net.eval()

    def gradient_norm(self, net: nn.Module) -> float:
        """``|grad J|``."""
        params = list(net.parameters())
        found = torch.autograd.grad(self.loss(net(self.data.x, self.data.edge_index), params), params)
        return float(torch.cat([g.flatten() for g in found]).norm())

    def _newton(self, net: nn.Module) -> None:
        shapes = {name: p.shape for name, p in net.named_parameters()}
        theta = nn.utils.parameters_to_vector(net.parameters()).detach()

        def trained_loss(vector: Tensor) -> Tensor:
            pieces = vector.split([shape.numel() for shape in shapes.values()])
            params = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
            return self.loss(functional_call(net, params, (self.data.x, self.data.edge_index)), params.values())

        for _ in range(20):
            slope = grad(trained_loss)(theta)
            if slope.norm() < 1e-12:
                break
            theta = theta - torch.linalg.solve(hessian(trained_loss)(theta), slope)
        nn.utils.vector_to_parameters(theta, net.parameters())


def _sparse(x: Tensor) -> Tensor:
    """Sparse where it is large and most entries are zero: a bag of words trains several times as fast."""
    return x.to_sparse().coalesce() if x.numel() > 10**6 and x.count_nonzero() < 0.1 * x.numel() else x


def without(data: Data, kind: str, atoms: Tensor) -> Data:
    """The data without these nodes (their edges, features and labels) or these columns of ``edge_index``.

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


@dataclass(frozen=True)
class Row:
    """One line of the table: Pearson correlations with retraining, over removals and explained nodes together.

    ``total``: score and fall of the number. ``learned``: the learned part and the fall of the number on the unedited
    graph. ``structural``, ``own``: these parts alone and the fall of the number. ``newton``: after one Newton step.
    ``worst``: the least ``total`` of any explained node. ``slope``: of the fall over the score.
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
    lambda_min: float
    gradient: float


Chosen = Callable[[Players, Players], Players]  # which of all players, given those that the number can see


def study(
    name: str,
    net: nn.Module,
    training: Training,
    nodes: Sequence[int],
    *,
    kinds: Sequence[str] = ("nodes", "edges"),
    choose: Chosen = lambda everyone, near: everyone,
    newton: bool = True,
) -> list[Row]:
    """Remove nodes and (undirected) edges one by one, retrain to the minimum each time, and compare.

    Args:
        name: of the model in the table.
        net: at the minimum.
        training: of it.
        nodes: the explained ones; the number is the logit of the predicted class.
        kinds: what is removed.
        choose: which of the players are removed.
        newton: with a Newton step for each removal too.
    """
    model = explain.wrap(net, training.data, weight_decay=training.weight_decay)
    targets = [model.node(node) for node in nodes]
    rows = []
    for kind in kinds:
        options = {"undirected": True} if kind == "edges" else {}
        retrained: dict[int, tuple[Tensor, Tensor]] = {}
        found: dict[str, list[Tensor]] = {}
        for target in targets:
            players = choose(target.players(kind, all=True, **options), target.players(kind, **options))
            scored = Influence(remove=players, seed=0).explain(target)
            for player, atom in enumerate(players.index.tolist()):
                if atom not in retrained:
                    atoms = players.groups[player] if players.groups else players.index[player : player + 1]
                    retrained[atom] = _retrained(net, training, kind, atoms)
            _collect(found, scored, target, [retrained[atom] for atom in players.index.tolist()])
            if newton:
                again = Influence(remove=players, newton=True, seed=0).explain(target)
                found.setdefault("newton", []).append(again.scores)
        rows.append(_row(name, kind, found, scored.checks, training.gradient_norm(net)))
    return rows


def _retrained(net: nn.Module, training: Training, kind: str, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the retrained network on the edited graph, and on the graph as it was."""
    data = without(training.data, kind, atoms)
    made = Training(data, training.weight_decay, training.n, training.steps).to_minimum(copy.deepcopy(net))
    with torch.no_grad():
        return made(data.x, data.edge_index), made(training.data.x, training.data.edge_index)


def _collect(
    found: dict[str, list[Tensor]], scored: Explanation, target: explain.Target, again: list[tuple[Tensor, Tensor]]
) -> None:
    node, label = target.describe()["node"], target.describe()["label"]
    for at, what in enumerate(("fall", "fall_unedited")):
        numbers = torch.stack([outputs[at][int(node), label] for outputs in again])
        found.setdefault(what, []).append(scored.value - numbers)
    for what, part in {"total": scored.scores, **scored.parts}.items():
        found.setdefault(what, []).append(part)


def _row(name: str, kind: str, found: dict[str, list[Tensor]], checks: Mapping[str, Any], gradient: float) -> Row:
    every = {what: torch.cat(parts) for what, parts in found.items()}
    fall, total = every["fall"], every["total"]
    return Row(
        name,
        kind,
        removals=len(total),
        targets=len(found["total"]),
        total=_pearson(total, fall),
        worst=min(_pearson(*pair) for pair in zip(found["total"], found["fall"], strict=True)),
        slope=float(total @ fall / (total @ total)),
        learned=_pearson(every["learned_unedited"], every["fall_unedited"]),
        structural=_pearson(every["structural"], fall),
        own=_pearson(every["own"], fall),
        newton=_pearson(every["newton"], fall) if "newton" in every else float("nan"),
        lambda_min=checks["lambda_min"] if checks["curvature"] == "hessian" else float("nan"),
        gradient=gradient,
    )


def _pearson(one: Tensor, other: Tensor) -> float:
    """NaN where one of them does not vary."""
    pair = torch.stack([one, other]).double()
    return float(torch.corrcoef(pair)[0, 1]) if (pair.std(1) > 0).all() else float("nan")


def karate(nodes: Sequence[int] = (8, 16, 25, 33), weight_decay: float = 0.05, **options: Any) -> list[Row]:
    """Every node and every friendship of the karate club; a linear network, four labels a community.

    Args:
        nodes: the explained ones.
        weight_decay: of the trained loss.
        options: of `study`.
    """
    data = karate_club(labelled=4)
    data.x = data.x.double()
    training = Training(data, weight_decay, int(data.train_mask.sum()))
    return study("karate sgc", training.to_minimum(_seeded(Sgc, 34, 4)), training, nodes, **options)


def block_model(removals: int = 60, nodes: Sequence[int] = (50, 170, 290), **options: Any) -> list[Row]:
    """A two-layer network on a stochastic block model of 300 nodes, for each explained node another sample.

    Args:
        removals: of each kind, half of them near the explained node.
        nodes: the explained ones.
        options: of `study`.
    """
    data = blocks()
    training = Training(data, 0.01, int(data.train_mask.sum()))
    net = training.to_minimum(_seeded(SmoothGcn, data.num_features, 3, 8), adam=200)
    return study("block model gcn", net, training, nodes, choose=_sample(removals), **options)


def blocks(size: int = 100, labelled: int = 30, seed: int = 0) -> Data:
    """Three communities whose members are linked five times as often as others, with noisy features (Holland 1983)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(size)
    chance = torch.where(y[:, None] == y, 0.03, 0.006)
    linked = (torch.rand(3 * size, 3 * size, generator=generator) < chance).triu(1)
    pairs = linked.nonzero().T
    x = torch.randn(3, 8, generator=generator)[y] + 2 * torch.randn(3 * size, 8, generator=generator)
    train = torch.arange(3 * size) % size < labelled
    return Data(x=x.double(), edge_index=torch.cat([pairs, pairs.flip(0)], 1), y=y, train_mask=train)


def cora_gcn(removals: int = 60, weight_decay: float = 5e-3, hidden: int = 16, **options: Any) -> list[Row]:
    """A two-layer network on Cora's words (0 or 1), half of the removals near the explained node.

    Raises:
        FileNotFoundError: Cora is not at hand.
    """
    data = cora()
    data.x = (data.x > 0).double()
    training = Training(data, weight_decay, int(data.train_mask.sum()))
    net = training.to_minimum(_seeded(SmoothGcn, data.num_features, 7, hidden), adam=300)
    degree = torch.bincount(data.edge_index[0], minlength=data.num_nodes)
    node = int((data.test_mask & (degree >= 5)).nonzero()[0])
    return study("cora gcn", net, training, [node], choose=_sample(removals), **options)


def _seeded(make: Callable[..., nn.Module], *sizes: int) -> nn.Module:
    with random_states_kept():
        torch.manual_seed(0)
        return make(*sizes).double()


def _sample(removals: int) -> Chosen:
    """Half of them from the players that the number can see, half from the others."""
    generator = torch.Generator().manual_seed(0)

    def choose(everyone: Players, near: Players) -> Players:
        inside = torch.isin(everyone.index, near.index)
        halves = [part.nonzero().view(-1) for part in (inside, ~inside)]
        drawn = [half[torch.randperm(len(half), generator=generator)[: removals // 2]] for half in halves]
        return some(everyone, torch.cat(drawn).sort().values)

    return choose


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


def main() -> None:
    """Print the table, study by study."""
    for run in (karate, block_model, partial(cora_gcn, newton=False)):  # a Newton step on Cora is another training
        try:
            print(table(run()).round(4).to_string(index=False), flush=True)
        except FileNotFoundError as missing:
            warnings.warn(str(missing), stacklevel=1)


if __name__ == "__main__":
    main()
