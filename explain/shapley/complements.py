"""Which coalitions KernelSHAP looks at: coalitions and their complements, by size, none of them twice."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from explain.types import Masks


class Pairs(NamedTuple):
    """Coalitions ``S`` that stand for themselves and for their complements.

    ``masks``: bool ``[pairs, P]``, the smaller of the two; ``sizes``: int64 ``[pairs]``; ``weights``: float64
    ``[pairs]``, the share of the Shapley kernel that each pair stands for; ``unseen``: float64 ``[pairs]``, the share
    of the pairs of this size that was not drawn, zero where all were.
    """

    masks: Masks
    sizes: Tensor
    weights: Tensor
    unseen: Tensor


class _Size(NamedTuple):
    """The pairs ``{S, complement}`` with ``|S| = size <= P / 2``: how many there are, and are to be drawn."""

    size: int
    total: int
    expected: float
    kernel: float


def draw_pairs(players: int, budget: int, generator: torch.Generator) -> Pairs:
    """At most ``budget > P`` distinct pairs, drawn by their leverage in the regression (Musco, Witter 2025).

    The leverage of a coalition is ``1 / C(P, |S|)`` up to a constant, so that every size gets the same share of the
    budget; the Shapley kernel would starve the middle sizes. A size whose share covers it is taken complete. Size 1
    always is, so that the regression on the pairs has a unique answer.
    """
    plan = _plan(players, min(budget, 2 ** (players - 1) - 1))
    counts = _rounded(plan, generator)
    masks = _distinct(players, plan, counts, generator)
    repeats = torch.tensor(counts)

    def each(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).repeat_interleave(repeats)

    weights = each([part.kernel / part.expected for part in plan])
    unseen = each([1 - count / part.total for part, count in zip(plan, counts, strict=True)])
    return Pairs(masks, masks.sum(1), weights / weights.sum(), unseen)


def _plan(players: int, budget: int) -> list[_Size]:
    """Share the budget among the sizes by their leverage, never more than a size has."""
    sizes = range(1, players // 2 + 1)
    halves = {size: 2 if 2 * size == players else 1 for size in sizes}  # half against half is one pair, not two
    totals = {size: math.comb(players, size) // halves[size] for size in sizes}
    kernel = {size: 1 / (size * (players - size) * halves[size]) for size in sizes}
    leverage = {size: 1 / halves[size] for size in sizes}
    expected: dict[int, float] = {1: totals[1]}
    full = {1}
    while len(expected) < len(totals):
        rest = [size for size in sizes if size not in full]
        share = (budget - sum(totals[size] for size in full)) / sum(leverage[size] for size in rest)
        share *= 1 + 1e-12  # rounding must not leave a size one pair short of complete
        covered = {size for size in rest if share * leverage[size] >= totals[size]}
        expected |= {size: totals[size] if covered else share * leverage[size] for size in covered or rest}
        full |= covered
    return [_Size(size, totals[size], expected[size], kernel[size]) for size in sizes]


def _rounded(plan: list[_Size], generator: torch.Generator) -> list[int]:
    """Whole counts with these expectations: systematic sampling, one random offset for all sizes."""
    counts = []
    reached = float(torch.rand((), generator=generator, dtype=torch.float64))
    for part in plan:
        if part.expected == part.total:
            counts.append(part.total)
            continue
        counts.append(min(math.floor(reached + part.expected) - math.floor(reached), part.total))
        reached += part.expected
    return counts


def _distinct(players: int, plan: list[_Size], counts: list[int], generator: torch.Generator) -> Masks:
    """Distinct random coalitions, ``counts`` of each size in turn."""
    found = {}
    sparse = []
    for part, count in zip(plan, counts, strict=True):
        if 2 * count < part.total:
            sparse.append((part.size, count))
            continue
        every = _every(players, part)
        chosen = every if count == part.total else every[torch.randperm(len(every), generator=generator)[:count]]
        found[part.size] = chosen
    if sparse:
        sizes = torch.cat([torch.full((count,), size) for size, count in sparse])
        drawn = _without_repeats(players, sizes, generator).split([count for _, count in sparse])
        found |= dict(zip((size for size, _ in sparse), drawn, strict=True))
    return torch.cat([found[part.size] for part in plan])


def _every(players: int, part: _Size) -> Masks:
    """All coalitions of a size; of two complementary halves the one with player 0."""
    if 2 * part.size == players:
        rows = [(0, *rest) for rest in itertools.combinations(range(1, players), part.size - 1)]
    else:
        rows = list(itertools.combinations(range(players), part.size))
    return torch.zeros(len(rows), players, dtype=torch.bool).scatter(1, torch.tensor(rows), True)


def _without_repeats(players: int, sizes: Tensor, generator: torch.Generator) -> Masks:
    """A random coalition of each of these sizes; one seen before is drawn again."""
    masks = _random(players, sizes, generator)
    while True:
        repeated = _repeated(masks)
        if not len(repeated):
            return masks
        masks[repeated] = _random(players, sizes[repeated], generator)


def _repeated(masks: Masks) -> Tensor:
    """Positions of the rows that stand further up already (or, once in 2^64, only share their number)."""
    packed = np.packbits(masks.numpy(), axis=1)
    words = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    numbers = _mixed(words.view(np.uint64))
    ordered = np.sort(numbers)
    if not (ordered[1:] == ordered[:-1]).any():
        return torch.zeros(0, dtype=torch.long)
    first = np.unique(numbers, return_index=True)[1]
    return torch.from_numpy(np.setdiff1d(np.arange(len(numbers)), first))


def _mixed(words: np.ndarray) -> np.ndarray:
    """One number a row, ``uint64 [rows, words] -> [rows]``; the row itself where it is one word."""
    numbers = words[:, 0].copy()
    for column in range(1, words.shape[1]):
        numbers ^= numbers >> np.uint64(29)
        numbers *= np.uint64(0xBF58476D1CE4E5B9)  # odd, so that no bit is lost; it wraps around
        numbers += words[:, column]
    return numbers


def _random(players: int, sizes: Tensor, generator: torch.Generator) -> Masks:
    """Players with the lowest random keys; sorting keys is many times faster than sorting positions.

    A row whose keys tie at the border has too many players and is drawn again, which favours nobody.
    """
    keys = torch.empty(len(sizes), players, dtype=torch.int32).random_(generator=generator)
    ordered = torch.from_numpy(np.sort(keys.numpy(), axis=1))
    masks = keys <= ordered.gather(1, sizes[:, None] - 1)
    tied = (masks.sum(1) != sizes).nonzero().view(-1)
    if len(tied):
        masks[tied] = _random(players, sizes[tied], generator)
    mirrored = (2 * sizes == players) & ~masks[:, 0]
    return masks ^ mirrored[:, None]
