"""Votes whose law is known: people vote as their friends, against their foes, and whatever strangers say."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from explain.guard import random_states_kept
from models.descent import descend

RELATIONS = ("friends", "foes", "strangers")
HEARD = (3, 2, 3)  # of each: an odd number counts, so that no vote is a tie


def votes(people: int = 200, seed: int = 0) -> Data:
    """Opinions ``x [people, 2]``, one-hot; who hears whom, by ``edge_type`` a relation; the vote ``y`` that follows.

    ``y`` is the majority of three friends' opinions and the opposites of two foes'. Half of the people are
    ``train_mask``.

    >>> data = votes(10)
    >>> data.edge_index.shape, data.edge_type.bincount().tolist()
    (torch.Size([2, 80]), [30, 20, 30])
    """
    generator = torch.Generator().manual_seed(seed)
    opinion = torch.randint(2, (people,), generator=generator)
    kinds = torch.arange(len(RELATIONS)).repeat_interleave(torch.tensor(HEARD))
    chances = torch.ones(people, people).fill_diagonal_(0)
    heard = torch.multinomial(chances, len(kinds), generator=generator)
    said = 2 * opinion[heard] - 1
    balance = said[:, kinds == 0].sum(1) - said[:, kinds == 1].sum(1)
    return Data(
        x=F.one_hot(opinion, 2).float(),
        edge_index=torch.stack([heard.flatten(), torch.arange(people).repeat_interleave(len(kinds))]),
        edge_type=kinds.repeat(people),
        y=(balance > 0).long(),
        train_mask=torch.arange(people) % 2 == 0,
    )


def train(net: nn.Module, data: Data, *, iterations: int = 200, seed: int = 0) -> nn.Module:
    """Minimise the cross-entropy of the votes of half of the people, in place; in eval mode. Random states are kept."""

    def loss() -> Tensor:
        said = net(data.x, data.edge_index, data.edge_type)
        return F.cross_entropy(said[data.train_mask], data.y[data.train_mask])

    with random_states_kept():
        torch.manual_seed(seed)
        descend(loss, torch.optim.AdamW(net.train().parameters(), lr=0.02, weight_decay=0.1), iterations, name="R-GCN")
    return net.eval()
