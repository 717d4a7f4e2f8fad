"""What contrastive pre-training has to have: invariance, separability, recoverability, and attention to content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize


def invariance(representations: Tensor, augmented: Tensor) -> Tensor:
    """``mean_v cos(h_i, h_i^v)``: how far a representation keeps its direction, ``[n]``, -1 to 1.

    Args:
        representations: ``[n, columns]``.
        augmented: those of the augmented inputs, ``[views, n, columns]``.

    Raises:
        ValueError: views of another shape.

    Source: Trivedi et al. 2022, as are the other measures.

    >>> invariance(torch.tensor([[1.0, 0.0]]), torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]]))
    tensor([0.5000])
    """
    _check_views(representations, augmented)
    return cosine_similarity(representations[None], augmented, dim=-1).mean(0)


def alignment(representations: Tensor, augmented: Tensor) -> float:
    """``mean |h_i - h_i^v|^2`` of representations of length 1, 0 to 4: near 0 where views agree.

    Args:
        representations: ``[n, columns]``.
        augmented: ``[views, n, columns]``.

    Raises:
        ValueError: views of another shape.

    >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 3.0]]]))
    2.0
    """
    _check_views(representations, augmented)
    return float((normalize(representations, dim=-1) - normalize(augmented, dim=-1)).square().sum(-1).mean())


def separability(representations: Tensor, labels: Tensor) -> Tensor:
    """``max_(j != i, same class) cos(h_i, h_j) / max_(other class) cos(h_i, h_j)``, ``[n]``.

    Above 1 its own class is nearer. The example itself is left out: with it the numerator is always 1. Cosines are
    moved to 0 to 1, ``(1 + cos) / 2``, so that a ratio of two negative ones does not turn over.

    Args:
        representations: ``[n, columns]``.
        labels: ``[n]``.

    Raises:
        ValueError: a class with one example alone, or no second class.

    >>> separability(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1]))
    tensor([2., 2., 2., 2.])
    """
    unit = normalize(representations, dim=-1)
    near = (1 + unit @ unit.T) / 2
    same = labels[:, None] == labels
    own = same.clone().fill_diagonal_(False)
    if not bool(own.any(1).all()) or bool(same.all()):
        raise ValueError("separability needs two examples of each class or more, and two classes or more")
    return near.masked_fill(~own, -1).amax(1) / near.masked_fill(same, -1).amax(1).clamp_min(1e-12)


class Recovered(NamedTuple):
    """Accuracy of a linear probe on examples that it has not seen: ``plain`` ones, and ``augmented`` ones."""

    plain: float
    augmented: float
    chance: float


def recoverability(
    representations: Tensor, augmented: Tensor, labels: Tensor, *, train: float = 0.8, seed: int = 0
) -> Recovered:
    """Whether the class can still be read off an augmented example: a logistic regression on the plain ones of others.

    Args:
        representations: ``[n, columns]``.
        augmented: ``[views, n, columns]``.
        labels: ``[n]``.
        train: the share that the probe learns from, of each class.
        seed: of the split.

    Raises:
        ValueError: views of another shape; a class with one example.

    >>> h = torch.tensor([[0.0], [0.1], [5.0], [5.1]]).repeat(5, 1)
    >>> recoverability(h, h[None].roll(1, 1), torch.tensor([0, 0, 1, 1]).repeat(5))
    Recovered(plain=1.0, augmented=0.5, chance=0.5)
    """
    _check_views(representations, augmented)
    h, views, y = (given.detach().cpu().numpy() for given in (representations, augmented, labels))
    known, held = train_test_split(range(len(y)), train_size=train, stratify=y, random_state=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(h[known], y[known])
    seen = sum(float(probe.score(view[held], y[held])) for view in views) / len(views)
    return Recovered(float(probe.score(h[held], y[held])), seen, float(labels.bincount().max()) / len(labels))


def turned_by_edges(encode: Callable[[Sequence[Any]], Tensor], graph: Any) -> Tensor:
    """``1 - cos(h(G), h(G without e))`` for every edge ``e``, both ways at once, ``[edges]`` of ``graph.edge_index``.

    How far the representation turns without the edge: there is no number of a class before there is a probe.

    Args:
        encode: torch_geometric graphs to representations, ``[graphs, columns]``.
        graph: with ``edge_index``.

    Raises:
        ValueError: an encoder that does not give one row a graph.

    >>> from torch_geometric.data import Data
    >>> graph = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
    >>> degrees = lambda graphs: torch.stack([g.edge_index[0].bincount(minlength=3).float() for g in graphs])
    >>> turned_by_edges(degrees, graph).shape
    torch.Size([4])
    """
    low, high = graph.edge_index.min(0).values, graph.edge_index.max(0).values
    pairs, pair = torch.stack([low, high]).unique(dim=1, return_inverse=True)
    copies = [graph]
    for one in range(pairs.size(1)):
        copy = graph.clone()
        copy.edge_index = graph.edge_index[:, pair != one]
        copies.append(copy)
    with torch.no_grad():
        found = encode(copies)
    if found.dim() != 2 or len(found) != len(copies):
        raise ValueError(f"encode must give [{len(copies)}, columns], a row a graph, got {list(found.shape)}")
    return (1 - cosine_similarity(found[:1], found[1:]))[pair]


class ContentShare(NamedTuple):
    """``share`` of all attribution that is on content edges, and what an even spread has, the share of ``edges``."""

    share: float
    edges: float

    @property
    def lift(self) -> float:
        """``share / edges``: 1 where attribution is blind to content."""
        return self.share / self.edges


def content_share(scores: Tensor, content: Tensor) -> ContentShare:
    """How much of ``|scores|`` is on content, beside its share of the edges.

    Args:
        scores: of each edge, ``[edges]``: `turned_by_edges`, or an explanation's scores.
        content: bool ``[edges]``.

    Raises:
        ValueError: other lengths, nothing that is content, or no attribution at all.

    >>> content_share(torch.tensor([3.0, -1.0, 0.0, 0.0]), torch.tensor([True, False, False, True]))
    ContentShare(share=0.75, edges=0.5)
    """
    sizes = scores.detach().double().abs()
    if content.shape != scores.shape or content.dtype != torch.bool or not bool(content.any()) or not sizes.sum() > 0:
        raise ValueError(
            f"scores and content (bool, some of it True) must be one an edge, and some score other than 0, got "
            f"{list(scores.shape)} and {list(content.shape)} of {content.dtype}"
        )
    return ContentShare(float(sizes[content].sum() / sizes.sum()), float(content.double().mean()))


def _check_views(representations: Tensor, augmented: Tensor) -> None:
    if representations.dim() != 2 or augmented.dim() != 3 or augmented.shape[1:] != representations.shape:
        raise ValueError(
            f"representations must be [n, columns] and augmented [views, n, columns], got "
            f"{list(representations.shape)} and {list(augmented.shape)}"
        )
