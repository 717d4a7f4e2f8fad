"""Games of several kinds that the estimator tests share, with their exact values."""

from __future__ import annotations

from functools import cache

import torch
from cases import random_table, smooth_function, table_function

from explain.shapley.exact import coalitions, shapley_values


def truth(function, players):
    return shapley_values(function(coalitions(players, 0, 2**players)))


def majority(players, seed):
    weights = torch.rand(players, generator=torch.Generator().manual_seed(seed))
    return lambda masks: ((masks * weights).sum(1) > weights.sum() / 2).double()


def sparse_terms(players, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (3 * players,), generator=generator).tolist()
    return [
        (torch.randperm(players, generator=generator)[:size], torch.randn(1, generator=generator)) for size in sizes
    ]


def sparse(players, seed):
    """A sum of products of one to five players, as graph games are."""
    terms = sparse_terms(players, seed)
    return lambda masks: sum(weight.double() * masks[:, members].all(1) for members, weight in terms)


def structureless(players, seed):
    return table_function(random_table(players, seed))


GAMES = {"smooth": smooth_function, "majority": majority, "sparse": sparse, "structureless": structureless}


@cache
def tabled(name, players, seed):
    return GAMES[name](players, seed)(coalitions(players, 0, 2**players))
