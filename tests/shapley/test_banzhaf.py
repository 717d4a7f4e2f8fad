import numpy as np
import pytest
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from reference.shapley import banzhaf_by_sets, of_masks
from shapley_cases import GAMES, tabled

from explain.shapley import Banzhaf
from explain.shapley.banzhaf import ESTIMATORS, banzhaf_values

SAMPLED = ("regression", "reuse")


@pytest.mark.parametrize("players", [1, 2, 5, 8])
def test_exact_is_the_definition(players):
    table = random_table(players, seed=players)
    why = Banzhaf("nodes").explain(GameTarget(table_function(table), players))
    expected = banzhaf_by_sets(of_masks(table_function(table), players), players)
    torch.testing.assert_close(why.scores, expected, rtol=1e-10, atol=1e-12)
    assert (why.value, why.base, why.error, why.calls) == (table[-1], table[0], None, 2**players)


def test_shapiq_agrees():
    shapiq = pytest.importorskip("shapiq")
    target = GameTarget(smooth_function(8, 0), 8)
    theirs = shapiq.ExactComputer(game=target.game("nodes"), n_players=8)("BV").get_n_order_values(1)
    np.testing.assert_allclose(Banzhaf("nodes").explain(target).scores.numpy(), theirs, rtol=1e-9, atol=1e-11)


def test_a_weighted_vote_as_in_the_textbook():
    """[4; 3, 2, 1]: the first player is pivotal in three coalitions of the others, the rest in one each."""
    votes = torch.tensor([3, 2, 1])
    why = Banzhaf("nodes").explain(GameTarget(lambda masks: ((masks * votes).sum(1) >= 4).double(), 3))
    assert why.scores.tolist() == [0.75, 0.25, 0.25]
    assert why.checks["additivity_gap"] == 0.25


@pytest.mark.parametrize("estimator", SAMPLED)
def test_standard_errors_are_honest(estimator):
    covered, gaps = [], []
    for repeat in range(200):
        values = tabled(list(GAMES)[repeat % 4], 12, repeat % 2)
        game = GameTarget(table_function(values), 12).game("nodes")
        found = ESTIMATORS[estimator](game, 300, torch.Generator().manual_seed(repeat), False)
        gaps.append((found.scores - banzhaf_values(values)) / found.error)
        covered.append((gaps[-1].abs() <= 1.96).double().mean())
    assert 0.92 <= float(torch.stack(covered).mean()) <= 0.98
    assert 0.8 < float(torch.stack(gaps).square().mean()) < 1.2


@pytest.mark.parametrize("estimator", SAMPLED)
def test_estimates_converge_for_many_players(estimator):
    function = smooth_function(18, 1)
    exact = Banzhaf("nodes", "exact").explain(GameTarget(function, 18)).scores
    gaps = []
    for samples in (200, 20000):
        why = Banzhaf("nodes", estimator, samples, seed=0).explain(GameTarget(function, 18))
        gaps.append(float((why.scores - exact).norm() / exact.norm()))
        assert why.calls <= samples
    assert gaps[1] < 0.25 * gaps[0]


def test_regression_makes_an_additive_game_exact():
    weights = torch.arange(30, dtype=torch.float64)
    why = Banzhaf("nodes", "regression", 200, seed=0).explain(GameTarget(lambda masks: masks.double() @ weights, 30))
    torch.testing.assert_close(why.scores, weights, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("players", [0, 1])
@pytest.mark.parametrize("estimator", ["auto", *ESTIMATORS])
def test_no_players_and_one(players, estimator):
    why = Banzhaf("nodes", estimator).explain(GameTarget(lambda masks: 2.0 + masks.double().sum(1), players))
    assert why.scores.tolist() == [1.0] * players
    assert why.error is None


def test_seeds_reproduce():
    target = GameTarget(smooth_function(9, 0), 9)
    for estimator in SAMPLED:
        first, again, other = (Banzhaf("nodes", estimator, 100, seed=s).explain(target).scores for s in (1, 1, 2))
        assert first.equal(again)
        assert not first.equal(other)


@pytest.mark.parametrize(("estimator", "least"), [("regression", 122), ("reuse", 64)])
def test_a_budget_too_small_says_what_would_do(estimator, least):
    target = GameTarget(smooth_function(20, 0), 20)
    with pytest.raises(ValueError, match=f"samples={least} or more"):
        Banzhaf("nodes", estimator, least - 1).explain(target)


def test_too_many_players_for_exact():
    with pytest.raises(ValueError, match=r'23 players.*"regression" or "reuse"'):
        Banzhaf("nodes", "exact").explain(GameTarget(lambda masks: masks.double().sum(1), 23))


def test_noise_as_large_as_the_values_is_said():
    target = GameTarget(table_function(random_table(12, 0)), 12)
    with pytest.warns(UserWarning, match="Banzhaf values: raise samples"):
        Banzhaf("nodes", "reuse", 64, seed=0).explain(target)


@pytest.mark.parametrize(("settings", "error"), [({"estimator": "kernel"}, ValueError), ({"samples": 0}, ValueError)])
def test_bad_settings(settings, error):
    with pytest.raises(error):
        Banzhaf("nodes", **settings)
