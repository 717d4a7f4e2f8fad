import pytest
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from shapley_cases import tabled

from explain.shapley import Shapley
from explain.shapley.exact import shapley_values

SAMPLED = ("kernel", "permutation", "stratified")


@pytest.mark.parametrize("estimator", SAMPLED)
def test_it_stops_when_the_interval_is_small_enough(estimator):
    values = tabled("sparse", 13, 0)
    target = GameTarget(table_function(values), 13)
    spent = []
    for tolerance in (0.5, 0.2, 0.1):
        why = Shapley("nodes", estimator, "auto", seed=0, tolerance=tolerance).explain(target)
        assert why.checks["stopped"] == "precise"
        assert why.checks["interval"] <= tolerance
        assert why.checks["interval"] == pytest.approx(1.96 * float(why.error.norm() / why.scores.norm()))
        assert why.calls == why.checks["coalitions"] <= sum(why.checks["rounds"])
        spent.append(sum(why.checks["rounds"]))
        gap = float((why.scores - shapley_values(values)).norm() / why.scores.norm())
        assert gap < 1.5 * tolerance
    assert spent == sorted(spent)
    assert spent[0] < spent[2]


@pytest.mark.parametrize("estimator", SAMPLED)
def test_pooled_errors_are_honest(estimator):
    covered = []
    for repeat in range(60):
        name, seed = ("smooth", "majority", "sparse")[repeat % 3], repeat % 2
        values = tabled(name, 12, seed)
        why = Shapley("nodes", estimator, "auto", repeat, tolerance=0.3).explain(GameTarget(table_function(values), 12))
        if why.error is not None:
            covered.append(((why.scores - shapley_values(values)).abs() <= 1.96 * why.error).double().mean())
    assert 0.91 <= float(torch.stack(covered).mean()) <= 0.99


def test_every_coalition_is_exact_and_ends_it():
    table = random_table(11, 0)
    why = Shapley("nodes", "kernel", "auto", seed=0, tolerance=1e-4).explain(GameTarget(table_function(table), 11))
    assert (why.checks["stopped"], why.error, why.checks["interval"]) == ("exact", None, 0)
    torch.testing.assert_close(why.scores, shapley_values(table), rtol=1e-9, atol=1e-9)


def test_an_additive_game_needs_one_round():
    why = Shapley("nodes", samples="auto", seed=0).explain(GameTarget(lambda masks: masks.double().sum(1), 40))
    assert why.checks["rounds"] == [512]
    assert why.checks["stopped"] == "precise"


def test_a_constant_game_needs_one_round():
    why = Shapley("nodes", samples="auto", seed=0).explain(GameTarget(lambda masks: torch.ones(len(masks)), 40))
    assert why.checks["rounds"] == [512]


def test_the_limit_is_kept_and_said():
    target = GameTarget(smooth_function(14, 0), 14)
    with pytest.warns(UserWarning, match="tolerance of 1.0%: raise limit=1500"):
        why = Shapley("nodes", "permutation", "auto", seed=0, tolerance=0.01, limit=1500).explain(target)
    assert why.checks["stopped"] == "limit"
    assert sum(why.checks["rounds"]) <= 1500
    assert why.checks["permutations"] == sum(2 * ((n - 2) // 26) for n in why.checks["rounds"])


def test_few_players_are_exact_at_once():
    why = Shapley("nodes", samples="auto").explain(GameTarget(smooth_function(9, 0), 9))
    assert (why.checks["estimator"], why.calls) == ("exact", 512)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"samples": "many"}, "int, \"auto\" or None, got 'many'"), ({"tolerance": 0.0}, "positive"), ({"limit": 0}, "1")],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Shapley("nodes", **settings)
