"""What the kernel estimator can know before it has seen the game: its coalitions and their regression."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

from explain.progress import in_sight
from explain.shapley.complements import Pairs, draw_pairs
from explain.types import Masks

ROWS = 1024  # pairs between two moves of the bar
_MOST_BYTES = 2**27  # of designs remembered, and an eighth of it for one of them


class Design(NamedTuple):
    """Pairs of coalitions, and the weighted least squares of their differences on the signs of membership, solved.

    ``masks``: bool ``[2 pairs, P]``, the coalitions and then their complements; ``signs``: float64 ``[pairs, P]``, 1
    for members and -1 for others; ``response``: float64 ``[pairs, P]``, d scores / d (difference of a pair);
    ``leverage [pairs]``: how much of its own difference the fit follows; ``direction [P]``: d scores / d total.
    """

    pairs: Pairs
    masks: Masks
    signs: Tensor
    response: Tensor
    leverage: Tensor
    direction: Tensor

    def size(self) -> int:
        """Bytes held."""
        tensors = [*self.pairs, *self[1:]]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


_designs: OrderedDict[tuple[int, int, int], Design] = OrderedDict()
_lock = threading.Lock()


def design(players: int, budget: int, generator: torch.Generator, progress: bool = False) -> Design:
    """The design for this many players and pairs; one number is drawn from the generator, and decides it.

    The designs used last are remembered: asked again with the same seed, the estimate is one matrix-vector product.

    >>> first, again = (design(8, 20, torch.Generator().manual_seed(3)) for _ in range(2))
    >>> first is again, first.response.shape
    (True, torch.Size([20, 8]))
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    key = (players, budget, seed)
    with _lock:
        if key in _designs:
            _designs.move_to_end(key)
            return _designs[key]
    made = _solved(draw_pairs(players, budget, torch.Generator().manual_seed(seed)), progress)
    if made.size() <= _MOST_BYTES // 8:
        with _lock:
            _designs[key] = made
            while sum(kept.size() for kept in _designs.values()) > _MOST_BYTES:
                _designs.popitem(last=False)
    return made


def _solved(pairs: Pairs, progress: bool = False) -> Design:
    """``scores = argmin sum over pairs of w (d - x . scores)^2`` with ``sum scores = total``, linear in d and total."""
    signs = 2 * pairs.masks.double() - 1
    weighted = signs * pairs.weights[:, None]
    blocks = list(zip(signs.split(ROWS), weighted.split(ROWS), strict=True))
    with in_sight(total=2 * len(signs), desc="regression", progress=progress) as bar:
        # the rank-one term is constant where the constraint holds; it makes the matrix definite for two players too
        gram = signs.new_ones(signs.size(1), signs.size(1))
        for block, its_weighted in blocks:
            gram += block.T @ its_weighted
            bar.update(len(block))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        column = inverse.sum(1)
        direction = column / column.sum()
        turn, response = inverse - torch.outer(direction, column), torch.empty_like(signs)
        for (_, its_weighted), rows in zip(blocks, response.split(ROWS), strict=True):
            torch.mm(its_weighted, turn, out=rows)
            bar.update(len(rows))
    masks = torch.cat([pairs.masks, ~pairs.masks])
    return Design(pairs, masks, signs, response, (response * signs).sum(1), direction)
