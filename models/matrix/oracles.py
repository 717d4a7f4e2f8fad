"""Brute force of the rules that play games: all coalitions, one after the other, with the user's own model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from explain.types import Players
from models.matrix.case import coalitions


def shapley(values: Tensor) -> Tensor:
    """``phi_i = sum_S |S|! (P - |S| - 1)! / P! (v(S + i) - v(S))``."""
    players = len(values).bit_length() - 1
    found = torch.zeros(players).double()
    for i in range(players):
        for at in range(len(values)):
            if not at >> i & 1:
                share = 1 / (players * math.comb(players - 1, at.bit_count()))
                found[i] += share * (values[at | 1 << i] - values[at])
    return found


def banzhaf(values: Tensor) -> Tensor:
    """The mean of ``v(S + i) - v(S)`` over all coalitions."""
    players = len(values).bit_length() - 1
    gains = [[values[at | 1 << i] - values[at] for at in range(len(values)) if not at >> i & 1] for i in range(players)]
    return torch.tensor(gains).double().mean(1)


def interactions(values: Tensor, index: str) -> Tensor:
    """``I_ij`` of all pairs, zero on the diagonal."""
    players = len(values).bit_length() - 1
    found = torch.zeros(players, players).double()
    for i, j in itertools.combinations(range(players), 2):
        both, a, b = 1 << i | 1 << j, 1 << i, 1 << j
        for at in range(len(values)):
            if not at & both:
                share = 2.0 ** (2 - players)
                if index == "shapley":
                    share = 1 / ((players - 1) * math.comb(players - 2, at.bit_count()))
                found[i, j] += share * (values[at | both] - values[at | a] - values[at | b] + values[at])
    return found + found.T


def left_out(values: Tensor) -> Tensor:
    """``v(all) - v(all without i)``."""
    players = len(values).bit_length() - 1
    return torch.stack([values[-1] - values[len(values) - 1 - (1 << i)] for i in range(players)])


def alone(values: Tensor) -> Tensor:
    """``v({i}) - v(empty)``."""
    players = len(values).bit_length() - 1
    return torch.stack([values[1 << i] - values[0] for i in range(players)])


def weighted_least_squares(values: Tensor, width: float = 0.25) -> Tensor:
    """LIME over all coalitions: ``w = exp(-D^2 / (2 width^2))``, ``D = 1 - sqrt(|z| / P)``."""
    players = len(values).bit_length() - 1
    masks = coalitions(players).double()
    weights = (-((1 - masks.mean(1).sqrt()) ** 2) / (2 * width**2)).exp()
    design = torch.cat([masks, torch.ones(len(masks), 1).double()], 1)
    root = weights.sqrt()[:, None]
    return torch.linalg.lstsq(root * design, root * values[:, None], driver="gelsd").solution[:-1, 0]


def smallest_flips(outputs: Tensor) -> list[tuple[int, ...]]:
    """The smallest sets whose absence changes the predicted class; a single output is that of class 1."""
    players = len(outputs).bit_length() - 1
    each = outputs if outputs.size(1) > 1 else torch.cat([torch.zeros_like(outputs), outputs], 1)
    before = int(each[-1].argmax())
    others = each.index_fill(1, torch.tensor([before]), -math.inf).max(1).values
    changed = others - each[:, before] > 1e-12  # a tie changes nothing
    for size in range(1, players + 1):
        sets = itertools.combinations(range(players), size)
        found = [gone for gone in sets if changed[position(gone, players)]]
        if found:
            return found
    return []


def smallest_falls(values: Tensor, change: float) -> list[tuple[int, ...]]:
    """The smallest sets whose absence moves the number by more than ``change``, to that side."""
    players = len(values).bit_length() - 1
    for size in range(1, players + 1):
        sets = itertools.combinations(range(players), size)
        moved = [(gone, float(values[position(gone, players)] - values[-1])) for gone in sets]
        found = [gone for gone, by in moved if by * math.copysign(1, change) > abs(change)]
        if found:
            return found
    return []


def position(gone: Sequence[int], players: int) -> int:
    """The row of the coalition of everybody but these."""
    return (1 << players) - 1 - sum(1 << i for i in gone)


def best_subgraph(values: Tensor, players: Players, size: int, hops: int) -> tuple[float, dict[frozenset[int], float]]:
    """The largest Shapley value of a connected subgraph as one player among the nodes near it, and that of each."""
    links = _links(players)
    rewards = {
        nodes: _as_one(values, nodes, _near(nodes, links, hops, len(players)))
        for nodes in _connected(links, len(players), size)
    }
    return max(rewards.values()), rewards


def _links(players: Players) -> list[set[int]]:
    """Neighbours of each player, and last those of the explained node, if there is one."""
    geometry = players.geometry
    number = {int(node): i for i, node in enumerate(geometry["node"])}
    number |= {int(node): len(players) for node in geometry["focus"] if int(node) not in number}
    links: list[set[int]] = [set() for _ in range(max(number.values()) + 1)]
    for a, b in geometry["edge_index"].t().tolist():
        if a in number and b in number and a != b:
            links[number[a]].add(number[b])
            links[number[b]].add(number[a])
    return links


def _connected(links: list[set[int]], players: int, size: int) -> list[frozenset[int]]:
    """Connected sets of at most ``size`` players, the explained node among them but not counted."""
    rooted = len(links) > players  # the last is the explained node
    found = []
    for count in range(1, size + 1):
        for chosen in itertools.combinations(range(players), count):
            inside = {*chosen, players} if rooted else set(chosen)
            seen, todo = {min(inside)}, [min(inside)]
            while todo:
                new = links[todo.pop()] & inside - seen
                seen |= new
                todo += new
            if seen == inside:
                found.append(frozenset(chosen))
    return found


def _near(nodes: frozenset[int], links: list[set[int]], hops: int, players: int) -> list[int]:
    reached = set(nodes)
    for _ in range(hops):
        reached |= {other for node in reached for other in links[node]}
    return sorted(reached - nodes - {players})


def _as_one(values: Tensor, nodes: frozenset[int], near: list[int]) -> float:
    players = len(values).bit_length() - 1
    found = 0.0
    for count in range(len(near) + 1):
        for there in itertools.combinations(near, count):
            gone = [i for i in near if i not in there]
            gain = values[position(gone, players)] - values[position([*gone, *nodes], players)]
            found += float(gain) / ((len(near) + 1) * math.comb(len(near), count))
    return found
