"""Recommendation: because of these items you liked; and the items most like another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.nn import LGConv, LightGCN

from explain.analysis.recording import recorded
from explain.guard import untouched


@dataclass(frozen=True, eq=False)
class Because:
    """One score of a user for an item, split over the items that the user liked.

    Args:
        items: the liked items, ``[liked]``, the largest part first.
        parts: what each says to the user, in the score's own units, ``[liked]``.
        own: what the user's own embedding brings: ``own + parts.sum() = score``.
        score: ``e_user . e_item``.
        removed: how far the score falls when the like is deleted both ways and the model runs again, ``[liked]``.
        gap: ``|own + parts.sum() - score|``.
    """

    items: Tensor
    parts: Tensor
    own: float
    score: float
    removed: Tensor
    gap: float


def because(model: LightGCN, edge_index: Tensor, user: int, item: int) -> Because:
    """An exact split of what a user hears: ``e_user = a_0 x_user + sum_j w_uj sum_l a_(l+1) x_j^l``.

    ``part_j = w_uj sum_l a_(l+1) x_j^l . e_item``, with all other embeddings held: with one layer, for an item that the
    user has not liked, it is what the score loses when ``j`` tells the user nothing more. ``removed`` is the other
    question, without the like altogether: neighbours share differently then, and items lose a user.

    Args:
        model: whose score is a dot product.
        edge_index: likes, ``[2, edges]``, both ways as the model is called with them.
        user: a node.
        item: a node.

    Raises:
        TypeError: the model is no `LightGCN`, of which alone the split is known to be exact.
        ValueError: a node that is not there, or a user without likes.

    Source: He et al. 2020 (LightGCN), eq. 3, 4 and 7.

    >>> likes = torch.tensor([[0, 0, 1, 2, 3, 2], [2, 3, 2, 0, 0, 1]])
    >>> why = because(LightGCN(4, 2, num_layers=2), likes, user=0, item=3)
    >>> sorted(why.items.tolist()), why.gap < 1e-6
    ([2, 3], True)
    """
    if not isinstance(model, LightGCN):
        raise TypeError(
            f"the split is exact for LightGCN, got {type(model).__name__}: ask Shapley('edges') of its link"
        )
    nodes = model.num_nodes
    if not (0 <= user < nodes and 0 <= item < nodes):
        raise ValueError(f"user and item must be nodes 0 to {nodes - 1}, got {user} and {item}")
    liked = edge_index[0][edge_index[1] == user].unique()
    if not len(liked):
        raise ValueError(f"user {user} has liked nothing: the whole score is its own embedding")
    with untouched(model), torch.no_grad():
        with recorded(model, nodes) as calls:
            embedded = model.get_embedding(edge_index).double()
        target, heard = embedded[item], embedded.new_zeros(nodes, embedded.size(1))
        convolutions = [call for call in calls if isinstance(call.layer, LGConv)]
        for scale, call in zip(model.alpha[1:].double(), convolutions, strict=True):
            for one in call.propagations:
                source, into = one.edge_index
                told = source[into == user]
                weight = one.arguments["edge_weight"][into == user].double()
                heard.index_add_(0, told, scale * weight[:, None] * one.arguments["x"][told].double())
        parts = heard[liked] @ target
        own = float(model.alpha[0].double() * model.embedding.weight[user].double() @ target)
        score = float(embedded[user] @ target)
        removed = torch.stack([score - _without(model, edge_index, user, int(one), item) for one in liked])
    order = parts.argsort(descending=True)
    return Because(liked[order], parts[order], own, score, removed[order], abs(own + float(parts.sum()) - score))


def similar(embeddings: Tensor, item: int, k: int = 5, among: Tensor | None = None) -> list[tuple[int, float]]:
    """The ``k`` items with the highest cosine to an item, itself left out: ``(item, cosine)``.

    Args:
        embeddings: ``[nodes, columns]``, such as ``model.get_embedding(edge_index)``.
        item: a node.
        k: how many.
        among: the nodes that are items; all where not given.

    Raises:
        ValueError: a node that is not there.

    >>> similar(torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]), 0, k=1)
    [(1, 0.99875...)]
    """
    if not 0 <= item < len(embeddings):
        raise ValueError(f"item must be one of {len(embeddings)} nodes, got {item}")
    candidates = torch.arange(len(embeddings)) if among is None else among
    candidates = candidates[candidates != item]
    unit = torch.nn.functional.normalize(embeddings.detach().double())
    top = (unit[candidates] @ unit[item]).topk(min(k, len(candidates)))
    return [(int(candidates[at]), float(value)) for value, at in zip(*top, strict=True)]


def _without(model: LightGCN, edge_index: Tensor, user: int, liked: int, item: int) -> Tensor:
    source, target = edge_index
    gone = ((source == user) & (target == liked)) | ((source == liked) & (target == user))
    embedded = model.get_embedding(edge_index[:, ~gone]).double()
    return embedded[user] @ embedded[item]
