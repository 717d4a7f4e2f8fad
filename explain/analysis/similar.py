"""Recommendation: because of these items you liked; and the items most like another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import LGConv

from explain.analysis.recording import LayerCall, Propagation, recorded
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


def because(model: nn.Module, edge_index: Tensor, user: int, item: int) -> Because:
    """An exact split of what a user hears: ``e_user = a_0 x_user + sum_j w_uj sum_l a_(l+1) x_j^l``.

    ``part_j = w_uj sum_l a_(l+1) x_j^l . e_item``, with all other embeddings held: with one layer, for an item that the
    user has not liked, it is what the score loses when ``j`` tells the user nothing more. ``removed`` is the other
    question, without the like altogether: neighbours share differently then, and items lose a user.

    Args:
        model: torch_geometric's `LightGCN`, or another that is called as it is, has one embedding and propagates by
            `LGConv`. ``a`` is its ``alpha``, or ``1 / (layers + 1)`` where it has none; that its scores are then
            ``e_u . e_i`` is proved against its own call, of the user with every node and of the item with every node.
        edge_index: likes, ``[2, edges]``, both ways as the model is called with them.
        user: a node.
        item: a node.

    Raises:
        TypeError: the model has other layers, or its own scores are not these products: the split is not exact then.
        ValueError: a node that is not there, or a user without likes.

    Source: He et al. 2020 (LightGCN), eq. 3, 4 and 7.

    >>> from torch_geometric.nn import LightGCN
    >>> likes = torch.tensor([[0, 0, 1, 2, 3, 2], [2, 3, 2, 0, 0, 1]])
    >>> why = because(LightGCN(4, 2, num_layers=2), likes, user=0, item=3)
    >>> sorted(why.items.tolist()), why.gap < 1e-6
    ([2, 3], True)
    """
    start = _start(model)
    nodes = len(start)
    if not (0 <= user < nodes and 0 <= item < nodes):
        raise ValueError(f"user and item must be nodes 0 to {nodes - 1}, got {user} and {item}")
    liked = edge_index[0][edge_index[1] == user].unique()
    if not len(liked):
        raise ValueError(f"user {user} has liked nothing: the whole score is its own embedding")
    every, pair = torch.arange(nodes, device=edge_index.device), edge_index.new_tensor([[user], [item]])
    asked = torch.cat([torch.stack([torch.full_like(every, user), every]), torch.stack([every, every * 0 + item])], 1)
    with untouched(model), torch.no_grad():
        with recorded(model, nodes) as calls:
            said = model(edge_index, asked)
        steps = [call for call in calls if isinstance(call.layer, LGConv)]
        alpha = _alpha(model, len(steps)).to(start)
        embedded = alpha[0] * start + sum(a * one.result.double() for a, one in _propagated(alpha, steps))
        _prove(model, said, (embedded[asked[0]] * embedded[asked[1]]).sum(1))
        target, heard = embedded[item], torch.zeros_like(embedded)
        for scale, one in _propagated(alpha, steps):
            own_edges = one.edge_index[1] == user
            told, weight = one.edge_index[0][own_edges], _weights(one)[own_edges].double()
            heard.index_add_(0, told, scale * weight[:, None] * one.arguments["x"][told].double())
        parts, own = heard[liked] @ target, float(alpha[0] * start[user] @ target)
        score, before = float(embedded[user] @ target), model(edge_index, pair)
        removed = [before - model(_without(edge_index, user, int(one)), pair) for one in liked]
    order = parts.argsort(descending=True)
    gap = abs(own + float(parts.sum()) - score)
    return Because(liked[order], parts[order], own, score, torch.cat(removed).double()[order], gap)


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


def _start(model: nn.Module) -> Tensor:
    """The embedding before any step, ``[nodes, columns]``.

    Raises:
        TypeError: there is not one, or no step by `LGConv`.
    """
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    if len(tables) != 1 or not any(isinstance(part, LGConv) for part in model.modules()):
        raise TypeError(
            f"the split is exact for LightGCN (one nn.Embedding, steps by LGConv), got {type(model).__name__}: ask "
            "Shapley('edges') of its link"
        )
    return tables[0].weight.detach().double()


def _alpha(model: nn.Module, steps: int) -> Tensor:
    """What the embedding and each step count for, ``[steps + 1]``; `_prove` holds it to the model's call."""
    alpha = getattr(model, "alpha", None)
    if isinstance(alpha, Tensor) and alpha.shape == (steps + 1,):
        return alpha.detach()
    return torch.full((steps + 1,), 1 / (steps + 1))


def _propagated(alpha: Tensor, steps: list[LayerCall]) -> list[tuple[Tensor, Propagation]]:
    return [(scale, one) for scale, call in zip(alpha[1:], steps, strict=True) for one in call.propagations]


def _weights(one: Propagation) -> Tensor:
    """What each message is multiplied by, ``[edges]``: 1 where the layer has no weights (``normalize=False``)."""
    weights = one.arguments["edge_weight"]
    return one.result.new_ones(one.edge_index.size(1)) if weights is None else weights


def _prove(model: nn.Module, said: Tensor, found: Tensor) -> None:
    """That the model's own scores are the products of the embeddings that the split is of.

    Raises:
        TypeError: they are not.
    """
    off = float("inf") if said.shape != found.shape else float((said.double() - found).abs().max())
    if not off <= 1e-4 * float(found.abs().max()):
        raise TypeError(
            f"the split is exact for LightGCN, whose scores are products of averaged embeddings; those of "
            f"{type(model).__name__} are not (off by {off:.3g}): ask Shapley('edges') of its link"
        )


def _without(edge_index: Tensor, user: int, liked: int) -> Tensor:
    source, target = edge_index
    gone = ((source == user) & (target == liked)) | ((source == liked) & (target == user))
    return edge_index[:, ~gone]
