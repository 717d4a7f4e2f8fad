"""Graph-BERT (Zhang et al. 2020): a transformer over the nodes most intimate with each."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from models import checkpoints, training
from models.checkpoints import Trained
from models.layers import dropout, once
from models.training import Recipe

Residual: TypeAlias = Literal["graph", "raw"]

# Zhang et al. 2020, section 4.1, Cora, words 0 or 1: two layers, two heads, 32 units; for their pre-training stand a
# larger penalty, longer lists and more dropout, chosen on the validation nodes (theirs are 5e-4, 7 and 0.5)
CORA = Recipe(epochs=150, lr=0.01, weight_decay=1e-2)
CORA_SIZES: dict[str, Any] = {"k": 15, "dropout": 0.6}

_FAR = 16  # hops, and more than that
_MANY = 32  # neighbours, and more than that
_NONE = 1e-10  # intimacy below this is none, and a smaller difference too


class GraphBert(nn.Module):
    """Each node attends among itself and the ``k`` nodes most intimate with it; their mean gives the logits.

    Intimacy is personalised PageRank, ``S = alpha (I - (1 - alpha) P)^-1`` with ``P = D^-1 (adjacency + I)`` by row.
    A node enters as ``W x + e(rank) + e(hops) + e(degree)``: its place by intimacy, how far it is from the first, and
    the colour that one round of Weisfeiler and Lehman gives it, learned codes. Each layer adds ``R W x`` of the node
    itself (the paper's "raw" residual) and, where the residual is "graph", ``V (A x)`` of the row's first, with
    ``A = D^-1/2 (adjacency + I) D^-1/2``: with this the paper's figures were reached, and edges count twice, by who is
    intimate and as in a GCN. Nodes of no intimacy are not attended to.

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: units.
        layers: of the transformer.
        heads: of each layer.
        k: intimate nodes beside the node itself.
        alpha: share of PageRank that starts again.
        dropout: on what enters, and within layers.
        residual: "graph" or "raw".

    Raises:
        ValueError: another residual.

    >>> GraphBert(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: int = 32,
        layers: int = 2,
        heads: int = 2,
        k: int = 7,
        alpha: float = 0.15,
        dropout: float = 0.5,
        residual: Residual = "graph",
    ) -> None:
        super().__init__()
        if residual not in get_args(Residual):
            raise ValueError(f'residual must be "graph" or "raw", got {residual!r}')
        self.hidden, self.k, self.alpha, self.dropout, self.residual = hidden, k, alpha, dropout, residual
        self.embed = nn.Linear(features, hidden)
        self.rank, self.hops, self.degree = (_Codes(many, hidden) for many in (k + 1, _FAR + 1, _MANY + 1))
        self.norm = nn.LayerNorm(hidden)
        self.blocks = nn.ModuleList(_Block(hidden, heads, dropout) for _ in range(layers))
        self.raw = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.heard = nn.Linear(features, hidden) if residual == "graph" else None
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        return self.of(torch.arange(len(x), device=edge_index.device), x, edge_index)

    def of(self, asked: Tensor, x: Tensor, edge_index: Tensor) -> Tensor:
        """The same of the nodes ``[n]`` that are asked about, ``[n, classes]``: no other's surroundings are read."""
        around, known, hops, degree = (part[asked] for part in once(self._surroundings, edge_index, x))
        edges = once(self._adjacency, edge_index, x)
        x = dropout(x, self.dropout, self.training)
        raw = self.embed(x)[around]
        h = self.norm(raw + self.rank.weight[: around.size(1)] + self.hops(hops) + self.degree(degree))
        h = F.dropout(h, self.dropout, self.training)
        heard = 0 if self.heard is None else _along(self.heard(x), *edges)[asked, None]
        for block, residual in zip(self.blocks, self.raw, strict=True):
            h = block(h, known) + residual(raw) + heard
        mean = (h * known[..., None]).sum(1) / known.sum(1, keepdim=True)
        return self.out(mean)

    def _surroundings(self, edge_index: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Of each node itself and the most intimate ones ``[nodes, k + 1]``, who of them is any, hops and degrees."""
        near = intimacy(edge_index, len(x), self.alpha)
        near.fill_diagonal_(torch.inf)  # itself is the first
        near = near.div(_NONE).round()  # nodes that stand alike to it are as near, and follow by number
        worth, around = (part[:, : self.k + 1] for part in near.sort(stable=True, dim=1, descending=True))
        degree = torch.bincount(edge_index[1], minlength=len(x)).clamp(max=_MANY)
        return around, worth > 0, distances(edge_index, around, worth > 0), degree[around]

    @staticmethod
    def _adjacency(edge_index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Edges and weights of ``A``."""
        return gcn_norm(edge_index, None, len(x), dtype=x.dtype)


class Asked(nn.Module):
    """A `GraphBert` in training: of the training nodes, in eval mode of the validation nodes, and 0 of all others.

    Args:
        net: it.
        data: with ``train_mask`` and ``val_mask``.
    """

    def __init__(self, net: GraphBert, data: Data) -> None:
        super().__init__()
        self.net = net
        self.nodes = {True: data.train_mask.nonzero()[:, 0], False: data.val_mask.nonzero()[:, 0]}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        asked = self.nodes[self.training]
        found = self.net.of(asked, x, edge_index)
        return found.new_zeros(len(x), found.size(1)).index_copy(0, asked, found)


def load_or_train(data: Data, recipe: Recipe = CORA, *, seed: int = 0, progress: bool = True, **sizes: Any) -> Trained:
    """A `GraphBert` for ``data``, from the cache where it was trained before; ``facts["test_accuracy"]``."""
    net = GraphBert(data.num_features, int(data.y.max()) + 1, **sizes)
    parts = [data[name] for name in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask")]
    code = sys.modules[__name__], training
    config = checkpoints.origin("GraphBert", code, parts, sizes=sizes, recipe=asdict(recipe), seed=seed)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        training.train(Asked(net, data), data, recipe, seed=seed, progress=progress)
        return net.state_dict(), {"test_accuracy": training.accuracy(net, data, data.test_mask)}

    found = checkpoints.kept("GraphBert", config, make)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)


def _along(told: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
    """What each node hears along weighted edges, ``[nodes, columns]``."""
    source, target = edge_index
    return torch.zeros_like(told).index_add(0, target, weight[:, None] * told.index_select(0, source))


class _Codes(nn.Embedding):
    """Small at first, or they would drown a bag of words."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)


class _Block(nn.Module):
    """Attention among the nodes of each surrounding, then each by itself, with a norm after both."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.joined, self.wide, self.narrow = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        """``[nodes, k + 1, size]`` to the same; nobody attends to those who are not ``known [nodes, k + 1]``."""
        q, k, v = (
            part(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~known[:, None, None], -torch.inf)
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        told = self.joined((weights @ v).transpose(1, 2).flatten(2))
        h = self.norm1(h + F.dropout(told, self.dropout, self.training))
        told = self.narrow(F.gelu(self.wide(h)))
        return self.norm2(h + F.dropout(told, self.dropout, self.training))


def intimacy(edge_index: Tensor, nodes: int, alpha: float) -> Tensor:
    """``alpha (I - (1 - alpha) P)^-1``, ``P = D^-1 (adjacency + I)`` by row, ``[nodes, nodes]``; rows sum to 1.

    >>> intimacy(torch.tensor([[0, 1], [1, 0]]), 3, 0.5).tolist()
    [[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]
    """
    steps = torch.eye(nodes, dtype=torch.float64, device=edge_index.device)  # who is more intimate hangs on last digits
    steps[edge_index[1], edge_index[0]] = 1
    step = (1 - alpha) * steps / steps.sum(1, keepdim=True)
    return alpha * torch.linalg.inv(torch.eye(nodes, dtype=step.dtype, device=step.device) - step)


def distances(edge_index: Tensor, around: Tensor, known: Tensor) -> Tensor:
    """Hops to each node of the rows ``around [nodes, k]`` from the row's own, along edges backwards.

    16 where it is further; those who are not ``known [nodes, k]`` are not looked for.

    >>> edges, around = torch.tensor([[1, 2], [0, 1]]), torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    >>> distances(edges, around, torch.ones(3, 3, dtype=torch.bool)).tolist()
    [[0, 1, 2], [0, 1, 16], [0, 16, 16]]
    """
    source, target = edge_index
    found = torch.full(around.shape, _FAR, device=around.device)
    reached = torch.eye(len(around), dtype=torch.bool, device=around.device)
    for hops in range(_FAR):
        here = reached.gather(1, around)
        found = found.where(~here, found.clamp(max=hops))
        further = reached.index_put((target,), reached[source], accumulate=True)
        if bool((here | ~known).all()) or torch.equal(further, reached):
            break
        reached = further
    return found
