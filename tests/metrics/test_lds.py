"""The linear datamodelling score on numbers whose answer is known."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from explain import metrics
from explain.explanation import Explanation
from explain.types import Players

lds = partial(metrics.lds, resamples=200)


def halves(models, n, seed=0):
    return torch.rand(models, n, generator=torch.Generator().manual_seed(seed)).argsort(1).argsort(1) < n // 2


@pytest.fixture
def additive():
    """Scores of three measurements, and outcomes that are their sums, with noise."""
    g = torch.Generator().manual_seed(1)
    scores, subsets = torch.randn(3, 20, generator=g, dtype=torch.float64), halves(40, 20)
    return scores, subsets, subsets.double() @ scores.T, torch.randn(40, 3, generator=g, dtype=torch.float64)


def test_a_true_datamodel_scores_one_and_its_opposite_minus_one(additive):
    scores, subsets, sums, _ = additive
    found = lds(scores, subsets, 2 * sums + 7)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1))
    assert lds(-scores, subsets, sums.exp()).mean == pytest.approx(-1)  # only the order counts
    assert (found.subsets, len(found.each)) == (40, 3)


def test_it_is_the_mean_of_spearmans_correlations(additive):
    scores, subsets, sums, noise = additive
    outcomes = sums + 4 * noise
    found = lds(scores, subsets, outcomes)
    expected = [spearmanr(subsets.double() @ scores[j], outcomes[:, j]).statistic for j in range(3)]
    assert found.each == pytest.approx(expected)
    assert found.mean == pytest.approx(sum(expected) / 3)
    assert -1 <= found.low < found.mean < found.high <= 1
    wider = lds(scores, subsets, outcomes, confidence=0.99)
    assert wider.high - wider.low > found.high - found.low
    assert lds(scores, subsets, outcomes) == found  # the bootstrap is seeded
    assert str(found).startswith(f"{found.mean:.3f} (")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), factor=st.floats(0.1, 10))
def test_only_orders_count(seed, factor):
    """Neither the scale of scores nor any rising function of the outcomes, nor the order of models, changes it."""
    g = torch.Generator().manual_seed(seed)
    scores, subsets = torch.randn(2, 12, generator=g, dtype=torch.float64), halves(20, 12, seed)
    outcomes = torch.randn(20, 2, generator=g, dtype=torch.float64)
    order = torch.randperm(20, generator=g)
    first = lds(scores, subsets, outcomes, resamples=1).each
    again = lds(factor * scores, subsets[order], outcomes[order].exp(), resamples=1).each
    assert again == pytest.approx(first)


def test_the_interval_covers_no_relation(additive):
    scores, subsets, _, noise = additive
    found = lds(scores, subsets, noise)
    assert found.low < 0 < found.high


def test_the_difference_of_two_scores_has_an_interval_of_its_own(additive):
    scores, subsets, sums, noise = additive
    outcomes = sums + 4 * noise
    better = lds(scores, subsets, outcomes)
    worse = lds(scores + 0.2 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(0)), subsets, outcomes)
    difference = better.minus(worse)
    assert difference.mean == pytest.approx(better.mean - worse.mean)
    assert difference.low < difference.mean < difference.high
    assert difference.high - difference.low < (better.high - better.low) + (worse.high - worse.low)
    same = better.minus(better)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="same models and measurements"):
        better.minus(lds(scores, subsets, outcomes, resamples=10))


def test_explanations_are_scores(additive):
    scores, subsets, sums, noise = additive
    players = Players("train", torch.arange(20))
    whys = [Explanation(row, players, value=0.0, method="Influence") for row in scores]
    assert lds(whys, subsets, sums + noise) == lds(scores, subsets, sums + noise)


def test_predictions_that_say_nothing_count_as_zero(additive):
    scores, subsets, sums, _ = additive
    scores = torch.cat([scores[:2], torch.zeros(1, 20)])
    with pytest.warns(UserWarning, match="1 of 3 measurements"):
        found = lds(scores, subsets, sums)
    assert found.each == pytest.approx((1, 1, 0))


def test_what_does_not_fit(additive):
    scores, subsets, sums, _ = additive
    for wrong, message in (
        ((scores[:, :5], subsets, sums), r"scores must be \[measurements, n\] and subsets"),
        ((scores, subsets, sums.T), r"outcomes must be \[40 models, 3 measurements\]"),
        ((scores, subsets.double(), sums), "subsets must be bool"),
        ((scores, subsets[:2], sums[:2]), "at least 3 retrained models"),
        ((scores, subsets, sums * torch.nan), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            lds(*wrong)
    for options in ({"confidence": 1.0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="between 0 and 1"):
            lds(scores, subsets, sums, **options)
