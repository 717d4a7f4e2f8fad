"""DPM-SNC: the labels of all nodes of a graph, denoised together (Jang et al., NeurIPS 2023)."""

from __future__ import annotations

import copy
import math
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from tqdm.auto import tqdm

from explain.graph_diffusion.model import LabelDiffusionModel
from explain.guard import random_states_kept
from models.checkpoints import Trained, kept, origin
from models.ladder import ladder

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
        self.convs = nn.ModuleList(GCNConv(size, hidden, improved=True) for size in sizes)
        self.time = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, 2 * FREQUENCIES), nn.ELU(), nn.Linear(2 * FREQUENCIES, hidden)
        )
        self.out = nn.Linear(hidden + classes, classes)
        self.dropout = dropout

    def forward(self, x: Tensor, y_t: Tensor, t: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[n, features]``, labels ``[n, classes]`` noised to step ``t [1]`` or ``[n]``, to their noise."""
        time = self.time(sinusoids(4 * t.to(x.dtype)))
        h = torch.cat([x, y_t], 1)
        for conv in self.convs:
            h = F.dropout((conv(h, edge_index) + time).relu(), self.dropout, self.training)
            h = torch.cat([h, y_t], 1)
        return self.out(h)


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
    betas = betas.to(graph.x)
    kept = (1 - betas).cumprod(0)
    labelled = known >= 0
    Y = F.one_hot(known.clamp_min(0), classes).to(graph.x)
    size = (len(known), classes)

    def noise() -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(graph.x)

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
        classes, n = int(data.y.max()) + 1, len(data.y)
        betas = cosine_betas(steps)
        root = (1 - betas).cumprod(0).sqrt().to(data.x)
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

        def completed(warm: bool) -> Tensor:
            if warm:
                drawn = torch.multinomial((log_p / recipe.first_temperature).softmax(1), 1, generator=generator)[:, 0]
            else:
                drawn = sample(net, data, known, generator, betas, classes, recipe.temperature).argmax(1)
            return torch.where(labelled, data.y, drawn)

        buffer = [completed(True) for _ in range(recipe.buffer)]
        best, found = net.state_dict(), dict[int, float]()
        bar = tqdm(range(1, recipe.steps + 1), desc="training DPM-SNC", disable=not progress)
        edges = torch.cat([data.edge_index + i * n for i in range(recipe.times)], 1)
        x = data.x.repeat(recipe.times, 1)
        share = torch.where(labelled, 1 / labelled.sum(), 1 / (~labelled).sum()).to(data.x)
        share = (share / (recipe.times * classes)).repeat(recipe.times)
        for step in bar:
            net.train()
            picked = torch.randint(len(buffer), (recipe.times,), generator=generator)
            Y = F.one_hot(torch.cat([buffer[i] for i in picked.tolist()]), classes).to(x)
            t = torch.randint(steps, (recipe.times,), generator=generator).repeat_interleave(n)
            e = torch.randn(Y.shape, generator=generator).to(x)
            a = root[t][:, None]
            loss = share @ (net(x, a * Y + (1 - a**2).sqrt() * e, t, edges) - e).square().sum(1)
            adam.zero_grad()
            loss.backward()
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


def on_ladder(
    seed: int,
    columns: int = 100,
    recipe: Recipe = LADDER,
    steps: int = LADDER_STEPS,
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Trained:
    """One hop of 16 numbers, trained on the two-row ladder, or the same network from the cache.

    ``facts``: ``test_accuracy`` of the label where most of 16 runs end, at the temperature of the training;
    ``one_run`` without noise, temperature 0; ``features_alone`` of the mean field.
    """
    data = ladder(columns)
    sizes: dict[str, Any] = {"hidden": 16, "layers": 1, "dropout": 0.0}
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
        known = torch.where(data.train_mask, data.y, -1)
        generator = torch.Generator().manual_seed(seed)
        betas = cosine_betas(steps)
        one = sample(found.net, data, known, generator, betas, 2, 0.0).argmax(1)
        model = LabelDiffusionModel(found.net, data, betas=betas, time="step", prediction_type="epsilon", scale="0/1")
        runs = model.trajectory(0, 0, draws=16, temperature=recipe.temperature, seed=seed).labels()
        alone = found.mean_field(data.x, data.edge_index).argmax(1)
        facts = {
            name: float((ends == data.y)[data.test_mask].float().mean())
            for name, ends in (("test_accuracy", runs.mode(0)[0]), ("one_run", one), ("features_alone", alone))
        }
        return found.net.state_dict(), facts

    kept_one = kept("DPMSNC", config, make, folder=folder, fresh=fresh)
    with random_states_kept():
        net = DPMSNC(1, 2, **sizes)
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
