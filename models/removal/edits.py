"""Groups of edits of a graph's edges against retraining, on convolutions, attention and Chebyshev filters.

The truth is training on to the nearest minimum, from the trained parameters, on the edited graph: by Newton's method
with the network's own derivatives there, to a gradient of 1e-9. Predictions are those of `explain.Influence`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch_geometric.data import Data

import explain
from explain import Influence
from explain.guard import random_states_kept
from models.checkpoints import kept
from models.datasets import cora
from models.removal.minima import Training, metric_of
from models.removal.networks import Deep
from models.removal.study import with_edges, without

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Edit: TypeAlias = tuple[Tensor, Tensor]  # ends added, and taken out, [2, k] each
STEPS = 200  # of the proximal response at most


@dataclass(frozen=True)
class Kind:
    """How many edges an edit adds and takes out, and how many such edits are drawn."""

    name: str
    added: int
    removed: int
    edits: int


@dataclass(frozen=True)
class Setting:
    """One network.

    Args:
        net: of `Deep`.
        layers: how many.
        weight_decay: of the trained loss.
        data: makes the graph, float64.
        nodes: the explained ones.
        hidden: units between layers.
    """

    net: str
    layers: int
    weight_decay: float
    data: Callable[[], Data]
    nodes: tuple[int, ...]
    hidden: int = 6

    @property
    def name(self) -> str:
        """In the table."""
        graph = "Cora" if self.data is cora_components else "blocks"
        return f"{self.net}, {self.layers} layers, {graph}, penalty {self.weight_decay:g}"


@dataclass(frozen=True)
class Line:
    """One line of the table: correlations of what was foretold with what retraining did, over edits and nodes.

    ``first``, ``response``: Pearson's r of first order and of the proximal response; ``*_low``, ``*_high``: its 95 %
    bootstrap interval over edits; ``*_rank``: Spearman's; ``*_far``: Pearson's r of edits out of the number's sight,
    which reach it through training alone. ``slope``: of the truth over the first-order score. ``change``: standard
    deviation of the truth. ``steps``: gradients of a response, the mean. ``left``: the largest gradient norm of a
    retraining. ``*_seconds``: of the CPU, for all edits.
    """

    edits: int
    first: float
    first_low: float
    first_high: float
    first_rank: float
    first_far: float
    response: float
    response_low: float
    response_high: float
    response_rank: float
    response_far: float
    slope: float
    change: float
    steps: float
    left: float
    lambda_min: float
    response_seconds: float
    retraining_seconds: float


def citations(size: int = 40, labelled: int = 15, words: int = 40, seed: int = 0) -> Data:
    """As CiteSeer is: six classes, 2.7 neighbours each, three in four of the same class, sparse words of topics."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(6).repeat_interleave(size)
    chance = torch.where(y[:, None] == y, 2 / size, 0.7 / (5 * size))
    pairs = (torch.rand(6 * size, 6 * size, generator=generator) < chance).triu(1).nonzero().T
    topics = torch.rand(6, words, generator=generator) < 0.15
    x = torch.rand(6 * size, words, generator=generator) < 0.03 + 0.2 * topics[y]
    train = torch.arange(6 * size) % size < labelled
    return Data(x=x.double(), edge_index=torch.cat([pairs, pairs.flip(0)], 1), y=y, train_mask=train)


def cora_components(count: int = 48) -> Data:
    """Cora, public split, its words as so many leading principal components, each of unit variance.

    Raises:
        FileNotFoundError: Cora is not at hand.
    """
    data = cora()
    words = (data.x > 0).double()
    left, values, _ = torch.linalg.svd(words - words.mean(0), full_matrices=False)
    data.x = left[:, :count] * len(words) ** 0.5 * (values[:count] / values[0])
    return data


def lines(setting: Setting, kinds: Sequence[Kind], *, fresh: bool = False) -> Iterator[tuple[Kind, Line]]:
    """Line by line, from the cache (`models.checkpoints`) where it was measured before."""
    plain = dataclasses.asdict(setting) | {"data": setting.data.__name__}
    for kind in kinds:
        config = {"settings": plain, "kind": dataclasses.asdict(kind), "code": _code(), "torch": torch.__version__}

        def make(kind: Kind = kind) -> tuple[dict[str, Tensor], dict[str, Any]]:
            return {}, {"line": dataclasses.asdict(measured(setting, kind))}

        name = f"edits-{setting.name}-{kind.name}".replace(" ", "-").replace(",", "").replace(":", "")
        yield kind, Line(**kept(name, config, make, fresh=fresh).facts["line"])


def _code() -> str:
    parts = [Path(__file__).with_name(f"{name}.py") for name in ("edits", "losses", "minima", "networks")]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def measured(setting: Setting, kind: Kind) -> Line:
    """Foretell every edit, retrain with it, and compare."""
    data, net = trained(setting)
    training, made = _training(setting, data), drawn(data, setting.nodes, kind)
    model = explain.wrap(net, data, weight_decay=setting.weight_decay)
    targets = [model.node(node) for node in setting.nodes]
    labels = [int(target.describe()["label"]) for target in targets]
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the response to")
        asked: dict[str, Any] = {"add": [add for add, _ in made]} if kind.added else {}
        asked |= {"remove": [gone for _, gone in made]} if kind.removed else {}
        found = Influence(**asked, proximal=STEPS, seed=0, progress=False).explain_all(targets)
    explaining, started = time.process_time() - started, time.process_time()
    metric, outputs, left = metric_of(training, net), [], 0.0
    for add, gone in made:
        edited = _edited(data, add, gone)
        other = training.on(edited)
        again = other.to_minimum(net, metric=metric)
        left = max(left, other.gradient_norm(again))
        with torch.no_grad():
            outputs.append(again(edited.x, edited.edge_index)[list(setting.nodes), labels])
    sign = 1 if kind.added else -1
    truth = sign * (torch.stack(outputs) - torch.tensor([one.value for one in found])).numpy()
    structural = np.stack([one.parts["structural"].numpy() for one in found], 1)
    first = structural + np.stack([one.parts["first_order"].numpy() for one in found], 1)
    response = np.stack([one.scores.numpy() for one in found], 1)
    checks, far = found[0].checks, structural == 0
    return Line(
        edits=len(made),
        **_agreement("first", first, truth, far),
        **_agreement("response", response, truth, far),
        slope=float((first * truth).sum() / (first**2).sum()),
        change=float(truth.std()),
        steps=float(np.mean(checks["proximal_steps"])),
        left=left,
        lambda_min=float(checks["lambda_min"]),
        response_seconds=explaining,
        retraining_seconds=time.process_time() - started,
    )


def _agreement(name: str, foretold: Array, truth: Array, far: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, float]:
    """Of ``[edits, nodes]``; the interval is over edits, whose numbers are not independent."""
    generator = np.random.default_rng(0)
    again = (generator.integers(len(truth), size=len(truth)) for _ in range(1000))
    low, high = np.quantile([_pearson(foretold[rows], truth[rows]) for rows in again], [0.025, 0.975])
    return {
        name: _pearson(foretold, truth),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_rank": float(spearmanr(foretold.ravel(), truth.ravel()).statistic),
        f"{name}_far": _pearson(foretold[far], truth[far]) if far.sum() > 20 else float("nan"),
    }


def _pearson(one: Array, other: Array) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@lru_cache(maxsize=2)
def trained(setting: Setting) -> tuple[Data, nn.Module]:
    """The graph, and the network at a minimum on it."""
    data = setting.data()
    with random_states_kept():
        torch.manual_seed(0)
        net = Deep(setting.net, data.num_features, int(data.y.max()) + 1, setting.hidden, setting.layers)
    return data, _training(setting, data).to_minimum(net.double(), first=3000)


def _training(setting: Setting, data: Data) -> Training:
    return Training(data, setting.weight_decay, int(data.train_mask.sum()), slope=1e-9)


def drawn(data: Data, nodes: Sequence[int], kind: Kind) -> list[Edit]:
    """Edits; of every second one all edges are at an explained node or next to one."""
    generator = torch.Generator().manual_seed(0)
    there = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.bool)
    there[data.edge_index[0], data.edge_index[1]] = True
    near = there[list(nodes)].any(0).index_fill(0, torch.tensor(nodes), True)
    within, loops = near[:, None] | near, torch.eye(data.num_nodes, dtype=torch.bool)

    def pools(pairs: Tensor) -> list[Tensor]:
        return [(pairs & close).triu().nonzero() for close in (within, ~within)]

    def some(pool: Tensor, count: int) -> Tensor:
        return pool[torch.randperm(len(pool), generator=generator)[:count]].T

    free, taken = pools(~there & ~loops), pools(there & ~loops)
    return [(some(free[i % 2], kind.added), some(taken[i % 2], kind.removed)) for i in range(kind.edits)]


def _edited(data: Data, add: Tensor, gone: Tensor) -> Data:
    codes, (source, target) = data.edge_index[0] * data.num_nodes + data.edge_index[1], gone
    out = torch.cat([source * data.num_nodes + target, target * data.num_nodes + source])
    return with_edges(without(data, "edges", torch.isin(codes, out).nonzero().view(-1)), add)
