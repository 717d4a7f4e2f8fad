"""A small network of DiGress' type (Vignac et al., ICLR 2023): the edges of a graph, drawn anew and denoised."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import networkx as nx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

import models.digress_features
from explain.diffusion.categorical import Categorical, drawn
from explain.graph_diffusion.graph_model import GraphDiffusionModel
from explain.graph_diffusion.graph_states import GraphNoise
from explain.guard import random_states_kept
from models.checkpoints import Trained, kept, origin
from models.communities import communities
from models.digress_features import LOWEST, SCALES, cycles, spectrum


class Layer(nn.Module):
    """Attention of nodes on nodes, per channel and shifted by edges; edges from the scores; both see the whole."""

    def __init__(self, nodes: int, edges: int, whole: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(nodes, nodes) for _ in range(3))
        self.scale, self.shift = nn.Linear(edges, nodes), nn.Linear(edges, nodes)
        self.out, self.edges = nn.Linear(nodes, nodes), nn.Linear(nodes, edges)
        self.on_nodes, self.on_edges = nn.Linear(whole, 2 * nodes), nn.Linear(whole, 2 * edges)
        self.whole = nn.Linear(whole + 2 * nodes + 2 * edges, whole)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in (nodes, edges, whole))
        self.after = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
            for size in (nodes, edges)
        )

    def forward(self, x: Tensor, e: Tensor, y: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes ``[b, n, .]``, edges ``[b, n, n, .]``, the whole ``[b, .]``; ``real [b, n]``: not padding."""
        pair = real[:, :, None] & real[:, None]
        scores = self.q(x)[:, :, None] * self.k(x)[:, None] / math.sqrt(x.size(-1))
        scores = scores * (1 + self.scale(e)) + self.shift(e)
        scale, shift = self.on_edges(y)[:, None, None].chunk(2, -1)
        edges = self.edges(scores) * (1 + scale) + shift
        weights = scores.masked_fill(~pair[..., None], -1e9).softmax(2)
        scale, shift = self.on_nodes(y)[:, None].chunk(2, -1)
        nodes = self.out((weights * self.v(x)[:, None]).sum(2) * (1 + scale) + shift)
        y = self.norms[2](y + self.whole(torch.cat([y, *_pooled(x, real, 1), *_pooled(e, pair, (1, 2))], -1)).relu())
        x, e = self.norms[0](x + nodes), self.norms[1](e + edges)
        return x + self.after[0](x), e + self.after[1](e), y


def _pooled(values: Tensor, real: Tensor, over: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and largest of what is not padding."""
    mask = real[..., None]
    mean = (values * mask).sum(over) / mask.sum(over).clamp_min(1)
    return mean, values.masked_fill(~mask, -1e9).amax(over)


class DiGress(nn.Module):
    """Logits of the clean graph's edges, given a noised one: layers over nodes, edges and the whole.

    What cannot be seen by looking at one pair is given: degrees, cycles through each node and in the graph, its size,
    its `spectrum` and the time. Node types are left out.

    Args:
        steps: ``T``.
        classes: of edges, the first is none.
        largest: nodes that a graph has at the most.
        nodes: width of a node.
        edges: of an edge.
        whole: of the graph.
        layers: depth.

    >>> E = F.one_hot(torch.eye(6).roll(1, 0).long() | torch.eye(6).roll(1, 1).long(), 2).float()[None]
    >>> DiGress(steps=50)(E, torch.tensor([10])).shape
    torch.Size([1, 6, 6, 2])
    """

    def __init__(
        self,
        steps: int,
        classes: int = 2,
        largest: int = 20,
        nodes: int = 32,
        edges: int = 16,
        whole: int = 16,
        layers: int = 3,
    ) -> None:
        super().__init__()
        self.steps, self.largest = steps, largest
        self.nodes, self.edges = nn.Linear(4 + len(SCALES), nodes), nn.Linear(classes + len(SCALES), edges)
        self.whole = nn.Linear(3 + 1 + LOWEST + 2, whole)
        self.layers = nn.ModuleList(Layer(nodes, edges, whole) for _ in range(layers))
        self.out = nn.Sequential(nn.Linear(edges, edges), nn.ReLU(), nn.Linear(edges, classes))

    def forward(self, E: Tensor, t: Tensor, real: Tensor | None = None) -> Tensor:
        """One-hot edges ``[b, n, n, classes]`` at steps ``t [b]`` to logits; ``real [b, n]``: what is no padding."""
        return self.answer(E, t, real)

    def answer(self, E: Tensor, t: Tensor, real: Tensor | None = None, also: Tensor | None = None) -> Tensor:
        """As `forward`; ``also [b, whole]`` is added to what is known of the whole."""
        if real is None:
            real = torch.ones(E.shape[:2], dtype=torch.bool, device=E.device)
        A = 1 - E[..., 0]
        A = A * (real[:, :, None] & real[:, None]) * (1 - torch.eye(A.size(1), dtype=A.dtype, device=A.device))
        found, spectral = cycles(A), spectrum(A, real)
        size = real.sum(1).to(E)
        counts = found.sum(1) / torch.tensor([3.0, 4.0, 5.0], dtype=E.dtype, device=E.device)
        counts = (counts / 100).clamp_max(1)
        of_nodes = (torch.cat([A.sum(-1, keepdim=True), found], -1) / 10).clamp_max(1)
        x = self.nodes(torch.cat([of_nodes, spectral.heat.diagonal(dim1=1, dim2=2).mT], -1))
        e = self.edges(torch.cat([E, spectral.heat], -1))
        y = self.whole(torch.cat([counts, spectral.whole, _both(size / self.largest, t.to(E) / self.steps)], -1))
        y = y if also is None else y + also
        for layer in self.layers:
            x, e, y = layer(x, e, y, real)
        logits = self.out(e) + E
        return (logits + logits.transpose(1, 2)) / 2


class ConditionalDiGress(DiGress):
    """`DiGress` that is told a class of the graph, which joins what is known of the whole.

    Args:
        conditions: how many classes there are; one more, ``null``, stands for none.
        given: the settings of `DiGress`.
    """

    def __init__(self, conditions: int, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.null = conditions
        self.told = nn.Embedding(conditions + 1, self.whole.out_features)

    def forward(self, E: Tensor, t: Tensor, real: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """As `DiGress`; ``condition``: classes ``int64 [b]``, ``null`` for all when None."""
        condition = torch.full_like(t, self.null) if condition is None else condition
        return self.answer(E, t, real, self.told(condition))


def _both(one: Tensor, other: Tensor) -> Tensor:
    return torch.stack([one, other.expand_as(one)], -1)


def cosine_kept(steps: int, offset: float = 0.008) -> Tensor:
    """``a_t = cos^2(pi/2 (t/T + s) / (1 + s))``, float64 ``[T]``, of ``t = 1`` to ``T``."""
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return torch.cos(math.pi / 2 * (t + offset) / (1 + offset)).square()


@dataclass(frozen=True)
class Recipe:
    """How it is trained.

    Args:
        updates: of AdamW.
        lr: its step size.
        batch: graphs in one.
        steps: ``T``.
        dropped: share of conditions that are left out, where there are some.
    """

    updates: int = 1_500
    lr: float = 2e-3
    batch: int = 24
    steps: int = 50
    dropped: float = 0.15


class Fitted(NamedTuple):
    """The network in eval mode, its noise, and the mean loss of the last hundred updates."""

    net: DiGress
    process: Categorical
    loss: float


def padded(graphs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Edge classes ``int64 [b, n, n]`` and which nodes are real, bool ``[b, n]``."""
    largest = max(len(graph) for graph in graphs)
    classes = torch.zeros(len(graphs), largest, largest, dtype=torch.long)
    real = torch.zeros(len(graphs), largest, dtype=torch.bool)
    for row, graph in enumerate(graphs):
        classes[row, : len(graph), : len(graph)] = graph
        real[row, : len(graph)] = True
    return classes, real


def symmetric(noise: Tensor) -> Tensor:
    """The same noise for both directions of a pair, ``[b, n, n, K]``."""
    upper = torch.ones(noise.shape[1:3], dtype=torch.bool, device=noise.device).triu(1)[..., None]
    return torch.where(upper, noise, noise.transpose(1, 2))


def train(
    graphs: Sequence[Tensor],
    recipe: Recipe,
    *,
    seed: int,
    conditions: Tensor | None = None,
    progress: bool = True,
) -> Fitted:
    """Cross-entropy of the clean edges, at steps drawn evenly; the limit is how often edges occur.

    With a class of each graph, ``conditions int64 [m]``, the network is told it, and by chance nothing, so that it
    can be guided without a classifier. Global random states are kept.
    """
    with random_states_kept():
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        classes, real = padded(graphs)
        pairs = (real[:, :, None] & real[:, None]).triu(1)
        frequencies = torch.bincount(classes[pairs], minlength=2)
        process = Categorical(cosine_kept(recipe.steps), frequencies / frequencies.sum())
        told = () if conditions is None else (conditions,)
        size, none = (recipe.steps, len(frequencies), classes.size(1)), 0
        if conditions is None:
            net = DiGress(*size)
        else:
            none = int(conditions.max()) + 1
            net = ConditionalDiGress(none, *size)
        adam = torch.optim.AdamW(net.parameters(), lr=recipe.lr)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, recipe.updates)
        losses = []
        for _ in tqdm(range(recipe.updates), desc="training DiGress", disable=not progress):
            rows = torch.randint(len(graphs), (recipe.batch,), generator=generator)
            t = torch.randint(1, recipe.steps + 1, (recipe.batch,), generator=generator)
            clean = F.one_hot(classes[rows], len(frequencies)).float()
            noised = process.noised(clean, symmetric(torch.rand(clean.shape, generator=generator)), t)
            off = ~torch.eye(clean.size(1), dtype=torch.bool)[None, ..., None]
            noised = torch.where(off, noised, clean)
            dropped = [torch.rand(len(rows), generator=generator) < recipe.dropped for _ in told]
            given = [each[rows].masked_fill(off, none) for each, off in zip(told, dropped, strict=True)]
            logits = net(noised, t, real[rows], *given)
            own = pairs[rows]
            loss = F.cross_entropy(logits[own], classes[rows][own])
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            adam.step()
            slower.step()
            losses.append(float(loss.detach()))
    last = losses[-100:]
    return Fitted(net.eval(), process, sum(last) / len(last))


@torch.no_grad()
def generate(
    net: DiGress,
    process: Categorical,
    nodes: int,
    count: int,
    generator: torch.Generator,
    condition: int | None = None,
    guidance: float = 1.0,
) -> Tensor:
    """Graphs in the form of the paper, edge classes ``int64 [count, nodes, nodes]``: each step draws every pair of
    ``p(x_s | x_t) = sum p(x_0 | x_t) q(x_s | x_t, x_0)``; told a class, with the logits ``u + guidance (c - u)``.
    """
    size = (count, nodes, nodes, process.classes)
    none = F.one_hot(torch.zeros(nodes, dtype=torch.long), process.classes).float()
    diagonal = torch.eye(nodes, dtype=torch.bool)[None, ..., None]

    def noise() -> Tensor:
        return symmetric(torch.rand(size, generator=generator, dtype=torch.float64))

    E = torch.where(diagonal, none, process.absent(noise()).float())
    for t in range(process.steps, 0, -1):
        times = torch.full((count,), t)
        logits = net(E, times)
        if condition is not None:
            told = net(E, times, condition=torch.full((count,), condition))
            logits = logits + guidance * (told - logits)
        p = logits.softmax(-1)
        E = torch.where(diagonal, none, drawn(process.reverse(E, p, t), noise().float()))
    return E.argmax(-1)


def statistics(graphs: Sequence[Tensor]) -> dict[str, float]:
    """Means over graphs: the degree, the clustering, and the modularity of the communities that greedy search finds."""
    drawn_graphs = [nx.from_numpy_array(graph.numpy()) for graph in graphs]
    parts = [nx.community.greedy_modularity_communities(one) if one.size() else [set(one)] for one in drawn_graphs]
    modularity = [
        nx.community.modularity(one, part) if one.size() else 0.0 for one, part in zip(drawn_graphs, parts, strict=True)
    ]
    found = {
        "degree": [2 * one.size() / len(one) for one in drawn_graphs],
        "clustering": [nx.average_clustering(one) for one in drawn_graphs],
        "modularity": modularity,
    }
    return {name: sum(values) / len(values) for name, values in found.items()}


def on_communities(
    seed: int,
    recipe: Recipe = Recipe(),
    count: int = 100,
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> tuple[Trained, GraphNoise]:
    """A `DiGress` of graphs of two communities, or the same network from the cache, and its noise.

    ``facts``: `statistics` of 32 generated graphs of 16 nodes, of as many real ones that were not trained on, and of
    draws of the limit; ``nats``, the bound on ``-log p`` of four real ones by how many pairs they have, beside
    ``nats_of_the_limit``, the entropy of the limit.
    """
    graphs, others = communities(count, seed=0), communities(400, seed=1)
    real = [graph for graph in others if len(graph) == 16][:32]
    config = origin(
        "DiGress", [models.digress_features, sys.modules[__name__]], graphs, recipe=asdict(recipe), seed=seed
    )

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        fitted = train(graphs, recipe, seed=seed, progress=progress)
        generator = torch.Generator().manual_seed(seed)
        found = generate(fitted.net, fitted.process, 16, 32, generator)
        plain = fitted.process.absent(symmetric(torch.rand(32, 16, 16, 2, generator=generator))).argmax(-1)
        plain = plain * (1 - torch.eye(16, dtype=torch.long))
        model = GraphDiffusionModel(fitted.net, process=GraphNoise(fitted.process), time="step")
        bounds = [float(model.bound(graph, draws=2).sum()) for graph in others[:4]]
        pairs = sum(len(graph) * (len(graph) - 1) // 2 for graph in others[:4])
        limit = fitted.process.limit
        facts = {
            "loss": fitted.loss,
            "generated": statistics(list(found)),
            "real": statistics(real),
            "limit": statistics(list(plain)),
            "nats": sum(bounds) / pairs,
            "nats_of_the_limit": -float(torch.xlogy(limit, limit).sum()),
        }
        return fitted.net.state_dict() | {"kept": fitted.process.kept, "limit": limit}, facts

    found = kept("DiGress", config, make, folder=folder, fresh=fresh)
    process = Categorical(found.state.pop("kept"), found.state.pop("limit"))
    with random_states_kept():
        net = DiGress(recipe.steps, process.classes, max(len(graph) for graph in graphs))
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached), GraphNoise(process)
