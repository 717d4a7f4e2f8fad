"""LightGCN (He et al. 2020): who likes what, by embeddings that are only averaged along ratings."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.nn import LGConv

from explain.guard import random_states_kept


class LightGCN(nn.Module):
    """``score(u, i) = z_u z_i`` with ``z`` the mean of ``e, A e, ..., A^layers e``, ``A = D^-1/2 adjacency D^-1/2``.

    Users and items are the nodes of one graph, liked pairs its edges, in both directions.

    Args:
        nodes: users and items.
        size: columns of the embedding ``e``.
        layers: steps along the edges.

    >>> net, likes = LightGCN(4), torch.tensor([[0, 1, 2, 3], [2, 3, 0, 1]])
    >>> net(likes, torch.tensor([[0], [3]])).shape
    torch.Size([1])
    """

    def __init__(self, nodes: int, size: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.layers = layers
        self.embedding = nn.Embedding(nodes, size)
        self.step = LGConv()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small normal embeddings."""
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, edge_index: Tensor, edge_label_index: Tensor) -> Tensor:
        """Liked pairs ``[2, edges]``, and pairs ``[2, n]`` that are asked about, to scores ``[n]``."""
        z = self.embeddings(edge_index)
        return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)

    def embeddings(self, edge_index: Tensor) -> Tensor:
        """``z [nodes, size]``."""
        kept = [self.embedding.weight]
        for _ in range(self.layers):
            kept.append(self.step(kept[-1], edge_index))
        return torch.stack(kept).mean(0)


Net = TypeVar("Net", LightGCN, pyg.LightGCN)


def train(
    net: Net,
    likes: Tensor,
    users: int,
    *,
    seed: int,
    steps: int = 300,
    lr: float = 0.02,
    weight_decay: float = 1e-4,
) -> Net:
    """By Bayesian personalised ranking (Rendle et al. 2009): what is liked scores above what is not.

    ``-log sigmoid(score(u, i) - score(u, j))`` for each like ``(u, i)`` and a random item ``j``.

    Args:
        net: trained in place.
        likes: ``[2, likes]``, user and item.
        users: the nodes before this one are users, the others items.
        seed: of weights and random items.
        steps: of Adam, over all likes each.
        lr: its step size.
        weight_decay: the penalty ``weight_decay/2 |theta|^2``.

    Returns:
        The network in eval mode.
    """
    edge_index = torch.cat([likes, likes.flip(0)], 1)
    with random_states_kept():
        torch.manual_seed(seed)
        net.reset_parameters()
        net.train()
        optimizer = torch.optim.Adam(net.parameters(), lr=lr, weight_decay=weight_decay)
        for _ in range(steps):
            others = torch.randint(users, net.embedding.num_embeddings, likes[1].shape)
            liked, not_liked = net(edge_index, likes), net(edge_index, torch.stack([likes[0], others]))
            optimizer.zero_grad()
            (-F.logsigmoid(liked - not_liked).mean()).backward()
            optimizer.step()
        optimizer.zero_grad()
    return net.eval()
