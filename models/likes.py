"""Likes whose law is known: LightGCN held to what is popular, and to the law itself."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.guard import random_states_kept
from models import checkpoints, lightgcn
from models.checkpoints import Trained
from models.lightgcn import LightGCN, train


class Likes(NamedTuple):
    """Liked pairs ``[2, n]`` to learn from and held out ones, items numbered from 0; and who would like what.

    ``law [users, items]`` is proportional to the probability of an item among a user's likes.
    """

    known: Tensor
    held_out: Tensor
    law: Tensor


def planted(seed: int, users: int = 300, items: int = 200, groups: int = 5, each: int = 20) -> Likes:
    """Users of a group like its items twenty times as often as others, and popular ones more than others.

    ``law = popularity x (1 in the own group, 1/20 in others)``, popularity ``1 / (rank + 10)`` in random order; a user
    likes ``each`` different ones, of which a quarter is held out.

    >>> found = planted(0, users=3, items=40, each=4)
    >>> found.known.shape, found.held_out.shape
    (torch.Size([2, 9]), torch.Size([2, 3]))
    """
    generator = torch.Generator().manual_seed(seed)
    popularity = 1 / (torch.randperm(items, generator=generator) + 10.0)
    alike = torch.arange(users)[:, None] % groups == torch.arange(items) % groups
    law = popularity * torch.where(alike, 1.0, 0.05)
    liked = torch.multinomial(law, each, generator=generator)
    kept = each - each // 4
    known, held_out = (torch.stack([_owners(part), part.flatten()]) for part in (liked[:, :kept], liked[:, kept:]))
    return Likes(known, held_out, law)


def recall(scores: Tensor, likes: Likes, first: int = 20) -> float:
    """The share of held-out likes among the ``first`` items by ``scores [users, items]`` not known of a user."""
    scores = scores.index_put(tuple(likes.known), torch.tensor(-torch.inf))
    chosen = torch.zeros(scores.shape, dtype=torch.bool).scatter(1, scores.topk(first).indices, True)
    return float(chosen[tuple(likes.held_out)].double().mean())


def load_or_train(seed: int = 0, *, steps: int = 300) -> Trained:
    """LightGCN on `planted` likes; ``facts`` has its `recall`, that of what is "popular" and that of the "law".

    ``test_accuracy`` is how much of the way it goes from the popular to the law, which no one can pass but by chance.
    """
    likes = planted(seed)
    users, items = likes.law.shape
    with random_states_kept():
        torch.manual_seed(seed)
        net = LightGCN(users + items, size=32)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        train(net, likes.known + torch.tensor([[0], [users]]), users, seed=seed, steps=steps)
        popular = torch.bincount(likes.known[1], minlength=items).float().expand(users, -1)
        found = {"recall": recalled(net, likes), "popular": recall(popular, likes), "law": recall(likes.law, likes)}
        way = (found["recall"] - found["popular"]) / (found["law"] - found["popular"])
        return net.state_dict(), found | {"test_accuracy": way}

    config = checkpoints.origin("LightGCN", [sys.modules[__name__], lightgcn], likes, seed=seed, steps=steps)
    found = checkpoints.kept("LightGCN", config, make)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)


@torch.no_grad()
def recalled(net: LightGCN, likes: Likes) -> float:
    """`recall` by the network's scores of all pairs."""
    users = len(likes.law)
    edges = likes.known + torch.tensor([[0], [users]])
    z = net.embeddings(torch.cat([edges, edges.flip(0)], 1))
    return recall(z[:users] @ z[users:].T, likes)


def _owners(liked: Tensor) -> Tensor:
    """The user of each entry of ``[users, likes]``, in rows."""
    return torch.arange(len(liked)).repeat_interleave(liked.size(1))
