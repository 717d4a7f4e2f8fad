"""Proof by hand: the network called on graphs from which the absent were taken, and Shapley's formula written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

import explain

Worth = Callable[[Tensor], float]
MOST = 10  # players whose every coalition is tried: 1024
SOME = 32  # coalitions of more players


def on_node(net: nn.Module, data: Data, node: int, why: explain.Explanation) -> Worth:
    """``coalition -> logit`` of the class at a node, in the graph without the absent edges, nodes or features."""
    label = why.target["label"]

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        x, edges, stay = _left(data, why.players, coalition)
        return float(net(x, edges)[int(stay[:node].sum()), label])

    return worth


def on_graph(net: nn.Module, data: Data, why: explain.Explanation) -> Worth:
    """``coalition -> logit`` of the class of the graph without the absent edges, nodes or features.

    Of no nodes it is what the network says of a graph without nodes beside the whole one.
    """
    label = why.target["label"]

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        x, edges, stay = _left(data, why.players, coalition)
        if not stay.any():
            return float(net(data.x, data.edge_index, data.edge_index.new_ones(len(data.x)))[0, label])
        return float(net(x, edges, edges.new_zeros(len(x)))[0, label])

    return worth


def without_features(net: nn.Module, data: Data, node: int, why: explain.Explanation) -> str:
    """How far both ends of a path of features, all of them there and none, are from the network's own answers.

    Raises:
        RuntimeError: further than rounding.
    """
    ends = [on_node(net, data, node, why)(torch.full((len(why.players),), here)) for here in (True, False)]
    assert why.base is not None
    found = torch.tensor([why.value, why.base])
    return held("both ends of the path", "with and without the features", torch.tensor(ends), found)


def agreement(target: Any, why: explain.Explanation, worth: Worth) -> str:
    """How far an answer's game, and, of few players, its scores, are from the same by hand.

    Args:
        target: what was asked.
        why: Shapley values of it.
        worth: the number of one coalition, bool ``[P]``, found without the toolkit.

    Raises:
        RuntimeError: further than rounding.
    """
    count = len(why.players)
    if count <= MOST:
        table = table_of(worth, count)
        return held("brute force", f"all {len(table)} coalitions by hand", shapley(table), why.scores)
    some = torch.rand(SOME, count, generator=torch.Generator().manual_seed(0)) < 0.5
    by_hand = torch.tensor([worth(coalition) for coalition in some], dtype=torch.float64)
    return held("the game", f"{SOME} random coalitions by hand", by_hand, target.game(why.players)(some))


def table_of(worth: Worth, count: int) -> Tensor:
    """The number of every coalition, float64 ``[2^P]``, counted in twos with player 0 the last digit."""
    return torch.tensor([worth(coalition) for coalition in _every(count)], dtype=torch.float64)


def pairs(table: Tensor) -> Tensor:
    """Shapley interactions ``[P, P]``, 0 on the diagonal: the Shapley value of one with the other, less without it.

    >>> pairs(torch.tensor([0.0, 1.0, 2.0, 5.0]))
    tensor([[0., 2.],
            [2., 0.]])
    """
    count = len(table).bit_length() - 1
    every, found = torch.arange(len(table)), table.new_zeros(count, count)
    for one in range(count):
        with_it = (every >> one) % 2 == 1
        others = [other for other in range(count) if other != one]
        found[one, others] = shapley(table[with_it]) - shapley(table[~with_it])
    return found


def shapley(table: Tensor) -> Tensor:
    """Shapley's formula of all ``2^P`` values, counted in twos with player 0 the last digit.

    >>> shapley(torch.tensor([0.0, 1.0, 2.0, 5.0]))
    tensor([2., 3.])
    """
    count = len(table).bit_length() - 1
    every = torch.arange(len(table))
    sizes = _every(count).sum(1)
    weights = torch.tensor(
        [math.factorial(s) * math.factorial(count - s - 1) / math.factorial(count) for s in range(count)]
    ).to(table)
    scores = []
    for player in range(count):
        without = every[(every >> player) % 2 == 0]
        scores.append((weights[sizes[without]] * (table[without + (1 << player)] - table[without])).sum())
    return torch.stack(scores) if scores else table[:0]


def _every(count: int) -> Tensor:
    return (torch.arange(1 << count)[:, None] >> torch.arange(count)) % 2 == 1


def held(what: str, how: str, expected: Tensor, found: Tensor) -> str:
    """How far ``found`` is from what it is held to, in words.

    Raises:
        RuntimeError: further than rounding.
    """
    gap, scale = float((expected - found).abs().max()), float(expected.abs().max())
    if gap > 1e-4 * max(1.0, scale):
        raise RuntimeError(f"{what} is off by {gap:.3g} from {how}, of {scale:.3g}")
    return f"{how}, {what} within {gap:.0e}"


def _left(data: Data, players: explain.Players, coalition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features and edges of the graph without the absent, and which of its nodes stay, bool ``[nodes]``."""
    x, edges, gone = data.x, data.edge_index, _absent(players, coalition)
    stay = torch.ones(len(x), dtype=torch.bool)
    if players.kind == "edges":
        edges = edges[:, ~torch.isin(torch.arange(edges.size(1)), gone)]
    elif players.kind == "features":
        x = x.index_fill(1, gone, 0.0)
    else:
        stay[gone] = False
        edges, _ = subgraph(stay, edges, relabel_nodes=True, num_nodes=len(x))
    return x[stay], edges, stay


def _absent(players: explain.Players, coalition: Tensor) -> Tensor:
    atoms = players.groups if players.groups is not None else tuple(players.index.view(len(players), -1))
    gone = [own for own, here in zip(atoms, coalition.tolist(), strict=True) if not here]
    return torch.cat(gone) if gone else torch.empty(0, dtype=torch.long)
