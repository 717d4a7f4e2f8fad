"""DPM-SNC: the labels of all nodes of a graph, denoised together (Jang et al., NeurIPS 2023)."""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from tqdm.auto import tqdm

from explain.graph_diffusion.model import LabelDiffusionModel
from explain.guard import random_states_kept
from models.checkpoints import Trained, kept, origin
from models.ladder import ladder
from models.training import sparse

FREQUENCIES = 64  # of the time's sinusoids, half as many as their numbers


class DPMSNC(nn.Module):
    """The noise in noised labels: GCN layers over ``[x, y_t]``, the time added and ``y_t`` seen again after each.

    >>> net = DPMSNC(features=1, classes=2, hidden=8, layers=1)
    >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> net(torch.ones(3, 1), torch.zeros(3, 2), torch.tensor([5]), edges).shape
    torch.Size([3, 2])
    """

    def __init__(self, features: int, classes: int, hidden: int = 64, layers: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        sizes = [features + classes] + [hidden + classes] * (layers - 1)
        self.convs = nn.ModuleList(_BesideLabels(size, hidden, improved=True) for size in sizes)
        self.time = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, 2 * FREQUENCIES), nn.ELU(), nn.Linear(2 * FREQUENCIES, hidden)
        )
        self.out = nn.Linear(hidden + classes, classes)
        self.dropout = dropout

    def forward(self, x: Tensor, y_t: Tensor, t: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[n, features]``, labels ``[n, classes]`` noised to step ``t [1]`` or ``[n]``, to their noise.

        Several noised labels of the same nodes may stand below each other, ``y_t [k n, classes]``, ``edge_index`` too.
        """
        time = self.time(sinusoids(4 * t.to(y_t.dtype)))
        h = x
        for conv in self.convs:
            h = F.dropout((conv(h, y_t, edge_index) + time).relu(), self.dropout, self.training)
        return self.out(torch.cat([h, y_t], 1))


class _BesideLabels(GCNConv):
    """A layer over ``[h, y_t]``; what is said of an ``h`` that several ``y_t`` share is computed once."""

    def forward(self, h: Tensor, y_t: Tensor, edge_index: Tensor) -> Tensor:
        of_h, of_y = self.lin.weight.split([h.size(1), y_t.size(1)], 1)
        told = (h @ of_h.t()).repeat(len(y_t) // len(h), 1) + y_t @ of_y.t()
        edges, weight = gcn_norm(edge_index, None, len(y_t), improved=True, dtype=y_t.dtype)
        return self.propagate(edges, x=told, edge_weight=weight) + self.bias


def sinusoids(t: Tensor) -> Tensor:
    """``sin`` and ``cos`` of ``t [n]`` at falling frequencies, ``[n, 2 * FREQUENCIES]``."""
    rates = torch.exp(-math.log(10_000) * torch.arange(FREQUENCIES, device=t.device, dtype=t.dtype) / FREQUENCIES)
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def cosine_betas(steps: int, offset: float = 0.015) -> Tensor:
    """``b_t`` of ``a_t = cos^2(pi/2 (t/T + s) / (1 + s))``, kept within [0.001, 0.999], float64 ``[T]``."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = torch.cos(math.pi / 2 * (t + offset) / (1 + offset)).square()
    return (1 - kept[1:] / kept[:-1]).clamp(0.001, 0.999)


class MeanField(nn.Module):
    """Two GCN layers: every label by itself, given the features alone."""

    def __init__(self, features: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.first, self.second = GCNConv(features, hidden, improved=True), GCNConv(hidden, classes, improved=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[n, features]`` to logits ``[n, classes]``."""
        h = F.dropout(self.first(x, edge_index).relu(), 0.5, self.training)
        return self.second(h, edge_index)


@dataclass(frozen=True)
class Recipe:
    """How DPM-SNC is trained: variational EM.

    Args:
        steps: of Adam.
        warm: steps whose labels are the mean field's; later ones are sampled from the denoiser.
        lr: Adam's step size.
        decay: whether it falls to 0 along a cosine.
        weight_decay: Adam's.
        temperature: of the runs that sample labels.
        first_temperature: of the mean field's labels.
        times: noise levels in the loss of one step.
        buffer: completed label matrices that the loss is a mean over.
        renewed: of these, how many are sampled anew each time.
        every: steps between two renewals and looks at the validation nodes.
        mean_field: steps of the mean field's own training.
    """

    steps: int = 20_000
    warm: int = 2_000
    lr: float = 0.01
    decay: bool = False
    weight_decay: float = 0.01
    temperature: float = 0.1
    first_temperature: float = 0.1
    times: int = 16
    buffer: int = 50
    renewed: int = 5
    every: int = 100
    mean_field: int = 500


LADDER = Recipe(
    steps=4_000,
    warm=300,
    lr=0.005,
    decay=True,
    weight_decay=0.0,
    first_temperature=1.0,
    buffer=20,
    renewed=3,
    every=50,
    mean_field=100,
)
LADDER_STEPS = 40
# the authors': 20,000 steps of 16 times at a fixed rate; a rate that falls gets there in fewer
CORA = Recipe(steps=3_000, warm=1_000, lr=0.01, decay=True, weight_decay=0.01, times=4, every=200)


class Fitted(NamedTuple):
    """The denoiser with the best validation accuracy, in eval mode, the mean field, and validation accuracy by step."""

    net: DPMSNC
    mean_field: MeanField
    accuracy: dict[int, float]


def sample(
    net: nn.Module,
    graph: Data,
    known: Tensor,
    generator: torch.Generator,
    betas: Tensor,
    classes: int,
    temperature: float = 1.0,
    constrained: bool = True,
) -> Tensor:
    """One manifold-constrained run, in the form of the paper: ``y_0 [n, classes]``, of which the argmax is the label.

    From ``y_T = tau e`` on, with ``e_hat`` the network's answer, ``y0_hat = (y - sqrt(1 - a_t) e_hat) / sqrt(a_t)`` and
    ``D = |Y_L - y0_hat_L|^2``, each step takes the ancestral mean, ``tau sqrt(b_t)`` noise, and ``-grad_y D / D``; the
    known rows are then those of ``Y_L`` noised to the step that was reached. The last step is without the correction,
    and so is one that foresees the known labels, ``D < 1e-4 |L|``.

    Args:
        net: ``(x, y_t, t, edge_index) -> e_hat``.
        graph: the graph.
        known: int64 ``[n]``, the class where it is known, -1 elsewhere.
        generator: of the noise.
        betas: ``b_t [T]``.
        classes: how many there are.
        temperature: ``tau``.
        constrained: whether ``-grad_y D / D`` is taken.
    """
    betas = betas.to(graph.x.dtype)
    kept = (1 - betas).cumprod(0)
    labelled = known >= 0
    Y = F.one_hot(known.clamp_min(0), classes).to(betas)
    size = (len(known), classes)

    def noise() -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(betas)

    y = temperature * noise()
    for t in reversed(range(len(betas))):
        correct = constrained and t > 0 and bool(labelled.any())
        with torch.set_grad_enabled(correct):
            y = y.detach().requires_grad_(correct)
            e = net(graph.x, y, torch.full((1,), t), graph.edge_index)
            foreseen = (y - (1 - kept[t]).sqrt() * e) / kept[t].sqrt()
            mean = (y - betas[t] / (1 - kept[t]).sqrt() * e) / (1 - betas[t]).sqrt()
            after = mean + (t > 0) * temperature * betas[t].sqrt() * noise()
            if correct:
                distance = (Y - foreseen)[labelled].square().sum()
                if distance > 1e-4 * labelled.sum():  # else the labels are met, and the quotient has no bound
                    after = after - torch.autograd.grad(distance, y)[0] / distance
        reached = kept[t - 1] if t else torch.ones_like(kept[0])
        clamped = reached.sqrt() * Y + (1 - reached).sqrt() * temperature * noise()
        y = torch.where(labelled[:, None], clamped, after).detach()
    return y


def train(data: Data, recipe: Recipe, *, seed: int, steps: int = 80, progress: bool = True, **sizes: Any) -> Fitted:
    """Variational EM on ``data.x, edge_index, y`` and its ``train_mask`` and ``val_mask``.

    The loss of a step is ``mean |e - e_hat|^2`` over the labelled nodes and over the others, ``e`` noise on a completed
    label matrix; these come from the mean field first, and from the denoiser's own runs later, with the known labels in
    their place. Without ``val_mask`` the last weights stay. Global random states are kept.

    Args:
        data: the graph.
        recipe: how.
        seed: of the start, the noise and the sampled labels.
        steps: ``T``.
        progress: show a bar.
        sizes: of the `DPMSNC`.
    """
    with random_states_kept():
        torch.manual_seed(seed)
        data = sparse(data)
        classes = int(data.y.max()) + 1
        betas = cosine_betas(steps)
        labelled = data.train_mask
        known = torch.where(labelled, data.y, -1)
        mean_field = _mean_field(data, classes, recipe)
        log_p = mean_field(data.x, data.edge_index).detach().log_softmax(1)
        net = DPMSNC(data.num_features, classes, **sizes)
        adam = torch.optim.Adam(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        slower = torch.optim.lr_scheduler.LambdaLR(
            adam, lambda step: (1 + math.cos(math.pi * step / recipe.steps)) / 2 if recipe.decay else 1.0
        )
        generator = torch.Generator().manual_seed(seed)
        loss = _Loss(data, recipe, betas, generator)

        def completed(warm: bool) -> Tensor:
            if warm:
                drawn = torch.multinomial((log_p / recipe.first_temperature).softmax(1), 1, generator=generator)[:, 0]
            else:
                drawn = sample(net, data, known, generator, betas, classes, recipe.temperature).argmax(1)
            return torch.where(labelled, data.y, drawn)

        buffer = [completed(True) for _ in range(recipe.buffer)]
        best, found = net.state_dict(), dict[int, float]()
        bar = tqdm(range(1, recipe.steps + 1), desc="training DPM-SNC", disable=not progress)
        for step in bar:
            adam.zero_grad()
            loss(net.train(), buffer).backward()
            adam.step()
            slower.step()
            if step % recipe.every == 0:
                net.eval()
                fresh = [completed(step <= recipe.warm) for _ in range(recipe.renewed)]
                buffer = [*buffer[recipe.renewed :], *fresh]
                if "val_mask" in data:
                    judged = sample(net, data, known, generator, betas, classes, 0.0).argmax(1) == data.y
                    found[step] = float(judged[data.val_mask].float().mean())
                    if found[step] >= max(found.values()):
                        best = copy.deepcopy(net.state_dict())
                    bar.set_postfix(val=f"{found[step]:.3f}", best=f"{max(found.values()):.3f}", refresh=False)
        if found:
            net.load_state_dict(best)
    return Fitted(net.eval(), mean_field, found)


class _Loss:
    """``mean |e - e_hat|^2`` of label matrices from the buffer at so many noise levels, over known and other nodes."""

    def __init__(self, data: Data, recipe: Recipe, betas: Tensor, generator: torch.Generator) -> None:
        n, self.times = len(data.y), recipe.times
        self.x, self.generator = data.x, generator
        self.root = (1 - betas).cumprod(0).sqrt().to(data.x.dtype)
        self.edges = torch.cat([data.edge_index + i * n for i in range(self.times)], 1)
        self.classes = int(data.y.max()) + 1
        known = data.train_mask
        share = torch.where(known, 1 / known.sum(), 1 / (~known).sum()).to(data.x.dtype)
        self.share = (share / (self.times * self.classes)).repeat(self.times)

    def __call__(self, net: DPMSNC, buffer: list[Tensor]) -> Tensor:
        picked = torch.randint(len(buffer), (self.times,), generator=self.generator).tolist()
        Y = F.one_hot(torch.cat([buffer[i] for i in picked]), self.classes).to(self.share)
        t = torch.randint(len(self.root), (self.times,), generator=self.generator)
        t = t.repeat_interleave(len(Y) // self.times)
        e = torch.randn(Y.shape, generator=self.generator).to(Y)
        a = self.root[t][:, None]
        return self.share @ (net(self.x, a * Y + (1 - a**2).sqrt() * e, t, self.edges) - e).square().sum(1)


def on_ladder(
    seed: int,
    columns: int = 100,
    recipe: Recipe = LADDER,
    steps: int = LADDER_STEPS,
    *,
    split: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Trained:
    """One hop of 16 numbers, trained on the two-row ladder, or the same network from the cache.

    ``facts``: ``test_accuracy`` of the label where most of 16 runs end, at the temperature of the training;
    ``one_run`` without noise, temperature 0; ``features_alone`` of the mean field. ``split`` says who is known.
    """
    data = ladder(columns, seed=split)

    def facts(found: Fitted) -> dict[str, float]:
        one = _one_run(found.net, data, seed, steps)
        betas = cosine_betas(steps)
        model = LabelDiffusionModel(found.net, data, betas=betas, time="step", prediction_type="epsilon", scale="0/1")
        runs = model.trajectory(0, 0, draws=16, temperature=recipe.temperature, seed=seed).labels()
        alone = found.mean_field(data.x, data.edge_index).argmax(1)
        return {
            name: float((ends == data.y)[data.test_mask].float().mean())
            for name, ends in (("test_accuracy", runs.mode(0)[0]), ("one_run", one), ("features_alone", alone))
        }

    return _kept(data, recipe, steps, seed, facts, folder, fresh, progress, hidden=16, layers=1, dropout=0.0)


def on_cora(
    seed: int,
    data: Data,
    recipe: Recipe = CORA,
    steps: int = 80,
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Trained:
    """Trained on Cora, words 0 or 1, or the same network from the cache.

    ``facts``: ``test_accuracy`` and ``subgraph_accuracy`` (`neighbourhoods_right`) of one run without noise, and the
    same of the mean field, ``alone`` and ``subgraph_alone``.
    """
    data = copy.copy(data)
    data.x = (data.x > 0).to(data.x.dtype)

    def facts(found: Fitted) -> dict[str, float]:
        joint = _one_run(found.net, data, seed, steps)
        alone = found.mean_field(data.x, data.edge_index).argmax(1)
        return {
            "test_accuracy": float((joint == data.y)[data.test_mask].float().mean()),
            "subgraph_accuracy": neighbourhoods_right(joint, data),
            "alone": float((alone == data.y)[data.test_mask].float().mean()),
            "subgraph_alone": neighbourhoods_right(alone, data),
        }

    return _kept(data, recipe, steps, seed, facts, folder, fresh, progress)


def neighbourhoods_right(labels: Tensor, data: Data) -> float:
    """The share of test nodes that have the right label, as all their neighbours have; known labels are right.

    >>> data = Data(
    ...     edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), y=torch.tensor([0, 0, 0]),
    ...     train_mask=torch.tensor([True, False, False]), test_mask=torch.tensor([False, True, True]),
    ... )
    >>> [neighbourhoods_right(torch.tensor(said), data) for said in ([1, 0, 0], [0, 0, 1], [0, 1, 0])]
    [1.0, 0.0, 0.0]
    """
    right = (labels == data.y) | data.train_mask
    source, target = data.edge_index
    wrong = torch.zeros(len(right), dtype=torch.long).index_add(0, target, (~right)[source].long())
    return float((right & (wrong == 0))[data.test_mask].float().mean())


def _one_run(net: nn.Module, data: Data, seed: int, steps: int) -> Tensor:
    """The labels where one run without noise ends, those that are known given."""
    known = torch.where(data.train_mask, data.y, -1)
    generator, classes = torch.Generator().manual_seed(seed), int(data.y.max()) + 1
    return sample(net, sparse(data), known, generator, cosine_betas(steps), classes, 0.0).argmax(1)


def _kept(
    data: Data,
    recipe: Recipe,
    steps: int,
    seed: int,
    facts: Callable[[Fitted], dict[str, float]],
    folder: str | os.PathLike[str] | None,
    fresh: bool,
    progress: bool,
    **sizes: Any,
) -> Trained:
    """Trained now and judged by ``facts``, or the same from the cache."""
    config = origin(
        "DPMSNC",
        code=[sys.modules[__name__]],
        data=[data[name] for name in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask")],
        sizes=sizes,
        recipe=asdict(recipe),
        steps=steps,
        seed=seed,
    )

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        found = train(data, recipe, seed=seed, steps=steps, progress=progress, **sizes)
        return found.net.state_dict(), facts(found)

    kept_one = kept("DPMSNC", config, make, folder=folder, fresh=fresh)
    with random_states_kept():
        net = DPMSNC(data.num_features, int(data.y.max()) + 1, **sizes)
    net.load_state_dict(kept_one.state)
    return Trained(net.eval(), kept_one.facts, kept_one.cached)


def _mean_field(data: Data, classes: int, recipe: Recipe) -> MeanField:
    net = MeanField(data.num_features, classes)
    adam = torch.optim.Adam(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    for _ in range(recipe.mean_field):
        logits = net.train()(data.x, data.edge_index)[data.train_mask]
        adam.zero_grad()
        F.cross_entropy(logits, data.y[data.train_mask]).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
    return net.eval()
