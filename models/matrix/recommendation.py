"""Representatives that score pairs of nodes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

import explain
from explain.types import Players
from models.lightgcn import LightGCN
from models.matrix.case import Case, Smooth, Training
from models.matrix.graphs import multiplied, outputs_at, stirred, without_edges

PAIR = (0, 4)
NODES = 6
LIKES = torch.tensor([[0, 0, 1, 1, 2], [3, 5, 3, 4, 4]])
"""Users 0 to 2, items 3 to 5, of which the last is liked by one."""


def graph() -> Data:
    """Likes in both directions, and pairs that were liked or not."""
    asked = torch.tensor([[0, 1, 2, 2], [3, 4, 3, 5]])
    edges = torch.cat([LIKES, LIKES.flip(0)], 1)
    return Data(
        edge_index=edges, num_nodes=NODES, edge_label_index=asked, edge_label=torch.tensor([1.0, 1.0, 0.0, 0.0])
    )


def _call(net: nn.Module, data: Data) -> Tensor:
    return net(data.edge_index, data.edge_label_index)


def lightgcn() -> Case:
    """The score of an item for a user, whose likes come and go in both directions."""
    net, data = stirred(LightGCN(NODES, size=3)), graph()
    asked = data.clone()
    asked.edge_label_index = torch.tensor(PAIR)[:, None]
    target = explain.wrap(net, data, task="edge", weight_decay=0.1).edge(*PAIR)

    def edges(players: Players, there: Tensor) -> Tensor:
        return _call(net, without_edges(asked, players.index[~there]))[0]

    def nodes(players: Players, there: Tensor) -> Tensor:
        gone = torch.isin(asked.edge_index, players.index[~there]).any(0)
        return _call(net, without_edges(asked, gone.nonzero().view(-1)))[0]

    def at(amounts: Tensor) -> Tensor:
        return multiplied(net, asked.edge_index, amounts, lambda: _call(net, asked))[0]

    def messages(players: Players) -> Smooth:
        ones = torch.ones(asked.edge_index.size(1), dtype=torch.float64)
        owner = torch.full((len(ones),), -1).index_copy(0, players.index, torch.arange(len(players)))
        return Smooth(ones, torch.zeros_like(ones), owner, at)

    def masked(players: Players, amounts: Tensor) -> Tensor:
        ones = torch.ones(asked.edge_index.size(1), dtype=torch.float64)
        return at(ones.index_copy(0, players.index, amounts.double()))

    return Case(
        target,
        {"edges": torch.no_grad()(edges), "nodes": torch.no_grad()(nodes)},
        {"edges": messages},
        {"edges": masked},
        training=_training(net, data, asked),
        label=1,
    )


def _training(net: nn.Module, data: Data, asked: Data) -> Training:
    theta, outputs = outputs_at(net, _call, data)
    _, one = outputs_at(net, _call, asked)
    labels = data.edge_label.double()
    return Training(
        theta,
        lambda theta: F.binary_cross_entropy_with_logits(outputs(theta), labels, reduction="none"),
        lambda theta: one(theta)[0],
        weight_decay=0.1,
        relabelled=lambda theta: F.binary_cross_entropy_with_logits(
            outputs(theta), torch.zeros_like(labels), reduction="none"
        ),
    )


RECOMMENDATION: dict[str, Callable[[], Case]] = {"LightGCN": lightgcn}
