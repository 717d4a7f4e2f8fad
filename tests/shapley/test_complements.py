import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.shapley.complements import draw_pairs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=80, deadline=None)
@given(players=st.integers(2, 40), extra=st.integers(1, 300), seed=st.integers(0, 99))
def test_pairs_are_distinct_within_the_budget_and_marked(players, extra, seed):
    budget = players + extra
    pairs = draw_pairs(players, budget, generator(seed))
    both = torch.cat([pairs.masks, ~pairs.masks])
    assert len(both.unique(dim=0)) == len(both)
    assert budget - 1 <= len(pairs.masks) <= budget or len(pairs.masks) == 2 ** (players - 1) - 1
    assert (pairs.sizes == pairs.masks.sum(1)).all()
    assert (2 * pairs.sizes <= players).all()
    for size in pairs.sizes.unique().tolist():
        total = math.comb(players, size) // (2 if 2 * size == players else 1)
        share = float((pairs.sizes == size).sum()) / total
        assert pairs.unseen[pairs.sizes == size].numpy() == pytest.approx(1 - share)
    assert not pairs.unseen[pairs.sizes == 1].any()


@pytest.mark.parametrize("players", range(2, 13))
def test_a_covering_budget_is_every_coalition_under_the_shapley_kernel(players):
    everything = 2 ** (players - 1) - 1
    for budget in (everything, everything + 10):
        pairs = draw_pairs(players, budget, generator())
        assert len(pairs.masks) == everything
        assert not pairs.unseen.any()
    kernel = torch.tensor([1 / (math.comb(players, s) * s * (players - s)) for s in pairs.sizes.tolist()]).double()
    torch.testing.assert_close(pairs.weights, kernel / kernel.sum())


def test_each_size_stands_for_its_share_of_the_kernel():
    pairs = draw_pairs(30, 600, generator())
    kernel = torch.tensor([1 / (s * (30 - s)) * (1 if s < 15 else 0.5) for s in range(1, 16)]).double()
    shares = torch.zeros(15, dtype=torch.float64).index_add(0, pairs.sizes - 1, pairs.weights)
    torch.testing.assert_close(shares, kernel / kernel.sum(), rtol=0.1, atol=0)


def test_every_coalition_of_a_size_is_equally_likely():
    drawn = [draw_pairs(7, 24, generator(seed)) for seed in range(600)]
    masks = torch.cat([pairs.masks[pairs.sizes == 3] for pairs in drawn])
    coalitions, counts = masks.unique(dim=0, return_counts=True)
    assert len(coalitions) == 35
    assert float((counts / counts.double().mean() - 1).abs().max()) < 5 / float(counts.double().mean()) ** 0.5
