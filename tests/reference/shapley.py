"""Shapley values in paper form, slowly, and games whose values are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Value = Callable[[frozenset[int]], float]


def of_masks(function, players: int) -> Value:
    """A function of masks as a function of sets."""

    def value(coalition: frozenset[int]) -> float:
        mask = torch.zeros(1, players, dtype=torch.bool)
        mask[0, list(coalition)] = True
        return float(function(mask))

    return value


def by_pairs(value: Value, players: int) -> Tensor:
    """Shapley's formula: the weighted mean of what each player adds to each coalition without it."""
    scores = torch.zeros(players, dtype=torch.float64)
    for player in range(players):
        others = [other for other in range(players) if other != player]
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            for chosen in itertools.combinations(others, size):
                coalition = frozenset(chosen)
                scores[player] += weight * (value(coalition | {player}) - value(coalition))
    return scores


def by_permutations(value: Value, players: int) -> Tensor:
    """The mean, over all orders, of what each player adds to those before it."""
    scores = torch.zeros(players, dtype=torch.float64)
    for order in itertools.permutations(range(players)):
        present: frozenset[int] = frozenset()
        for player in order:
            scores[player] += value(present | {player}) - value(present)
            present |= {player}
    return scores / math.factorial(players)


def by_weight_vector(table: Tensor) -> Tensor:
    """``phi = M^T [(a + b)_|S| y] - sum b y`` with ``a_s = (s-1)! (P-s)! / P!``, ``b_s = s! (P-s-1)! / P!``."""
    players = len(table).bit_length() - 1
    membership = torch.tensor([[position >> i & 1 for i in range(players)] for position in range(len(table))]).double()
    a, b = torch.zeros(2, len(table), dtype=torch.float64)
    for position, size in enumerate(membership.sum(1).int().tolist()):
        if size > 0:
            a[position] = math.factorial(size - 1) * math.factorial(players - size) / math.factorial(players)
        if size < players:
            b[position] = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
    return membership.T @ ((a + b) * table) - (b * table).sum()


def kernel_regression(table: Tensor) -> Tensor:
    """The KernelSHAP problem over every coalition, solved through its Lagrangian as it stands in the paper."""
    players = len(table).bit_length() - 1
    rows, weights, gains = [], [], []
    for position in range(1, len(table) - 1):
        mask = [position >> i & 1 for i in range(players)]
        size = sum(mask)
        rows.append(mask)
        weights.append((players - 1) / (math.comb(players, size) * size * (players - size)))
        gains.append(table[position] - table[0])
    z, w = torch.tensor(rows).double(), torch.tensor(weights, dtype=torch.float64)
    system = torch.ones(players + 1, players + 1, dtype=torch.float64)
    system[:players, :players] = z.T @ (w[:, None] * z)
    system[players, players] = 0
    right = torch.cat([z.T @ (w * torch.stack(gains)), (table[-1] - table[0])[None]])
    return torch.linalg.solve(system, right)[:players]


def banzhaf_by_sets(value: Value, players: int) -> Tensor:
    """The plain mean of what each player adds to each coalition without it."""
    scores = torch.zeros(players, dtype=torch.float64)
    for player in range(players):
        others = [other for other in range(players) if other != player]
        for coalition in _subsets(others):
            scores[player] += (value(coalition | {player}) - value(coalition)) / 2 ** len(others)
    return scores


def interactions_by_sets(value: Value, players: int, index: str) -> Tensor:
    """The weighted mean of the second difference of each pair over each coalition without it."""
    found = torch.zeros(players, players, dtype=torch.float64)
    for i, j in itertools.permutations(range(players), 2):
        others = [other for other in range(players) if other not in (i, j)]
        for s in _subsets(others):
            weight = 1 / 2 ** len(others)
            if index == "shapley":
                weight = math.factorial(len(s)) * math.factorial(len(others) - len(s)) / math.factorial(players - 1)
            found[i, j] += weight * (value(s | {i, j}) - value(s | {i}) - value(s | {j}) + value(s))
    return found


def _subsets(members: list[int]) -> list[frozenset[int]]:
    sizes = range(len(members) + 1)
    return [frozenset(chosen) for size in sizes for chosen in itertools.combinations(members, size)]


def _threshold(masks: Tensor, weights: list[float], quota: float) -> Tensor:
    return ((masks * torch.tensor(weights)).sum(1) >= quota).double()


def _glove(masks: Tensor) -> Tensor:
    """Player 0 has a left glove, 1 and 2 have right ones; a pair is worth 1."""
    return (masks[:, 0] & masks[:, 1:].any(1)).double()


def _airport(masks: Tensor) -> Tensor:
    """The longest runway that anyone present needs."""
    return (masks * torch.tensor([1.0, 4.0, 2.0, 8.0], dtype=torch.float64)).max(1).values


KNOWN = {  # name: (function of masks, Shapley values)
    "additive": (lambda m: 7 + m.double() @ torch.tensor([2.0, -1.0, 0.5]).double(), [2.0, -1.0, 0.5]),
    "and motif": (lambda m: (m[:, :4].double().sum(1) - 3).relu(), [0.25] * 4 + [0.0] * 3),
    "threshold": (lambda m: (m.sum(1) >= 3).double(), [0.2] * 5),
    "glove": (_glove, [2 / 3, 1 / 6, 1 / 6]),
    "weighted majority": (lambda m: _threshold(m, [3, 2, 1, 1], 4), [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
    "two vetoes": (lambda m: _threshold(m, [7, 7, 1, 1, 1], 16), [0.35, 0.35, 0.1, 0.1, 0.1]),
    "airport": (_airport, [1 / 4, 1 / 4 + 1 / 3 + 2 / 2, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3 + 2 / 2 + 4]),
}
