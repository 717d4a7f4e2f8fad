import pytest
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.shapley import Shapley
from explain.shapley.explainer import ESTIMATORS
from explain.types import NonFinite, Players

GENERAL = [name for name in ESTIMATORS if name != "local"]  # that one needs a game with neighbourhoods
SAMPLED = [name for name in GENERAL if name != "exact"]


def total(masks):
    return masks.double().sum(1)


@pytest.mark.parametrize(
    ("players", "samples", "chosen"),
    [(16, None, "exact"), (17, None, "kernel"), (10, 1024, "exact"), (10, 1023, "kernel"), (17, 2**17, "exact")],
)
def test_auto_is_exact_where_the_budget_covers_it(players, samples, chosen):
    why = Shapley("nodes", samples=samples, seed=0).explain(GameTarget(total, players))
    assert why.checks["estimator"] == chosen
    assert why.checks["coalitions"] == why.calls


def test_auto_never_tries_a_table_that_exact_refuses():
    assert Shapley("nodes", samples=2**24)._choice(23) == "kernel"


@pytest.mark.parametrize("estimator", ["auto", *ESTIMATORS])
def test_no_players_is_an_empty_valid_answer(estimator):
    why = Shapley("nodes", estimator).explain(GameTarget(lambda masks: torch.full((len(masks),), 5.0), 0))
    assert why.scores.shape == (0,)
    assert why.value == why.base == 5
    assert why.error is None
    assert why.top() == []


@pytest.mark.parametrize("estimator", ["auto", *ESTIMATORS])
def test_one_player_gets_the_difference(estimator):
    why = Shapley("nodes", estimator).explain(GameTarget(lambda masks: 0.1 + 0.7 * masks[:, 0].double(), 1))
    assert why.scores.tolist() == [why.value - why.base]
    assert why.error is None


@settings(max_examples=30, deadline=None)
@given(estimator=st.sampled_from(GENERAL), players=st.integers(2, 9), seed=st.integers(0, 999))
def test_scores_add_up_whatever_the_estimator(estimator, players, seed):
    function = smooth_function(players, seed)
    why = Shapley("nodes", estimator, samples=80, seed=seed).explain(GameTarget(function, players))
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, abs=1e-10)
    assert why.checks["efficiency_gap"] < 1e-10


@pytest.mark.parametrize("estimator", GENERAL)
def test_batch_size_never_matters(estimator):
    function = smooth_function(9, 0)
    answers = [
        Shapley("nodes", estimator, 200, seed=5).explain(GameTarget(function, 9, batch_size=batch)).scores
        for batch in (1, 7, 4096)
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(answers[0], answers[2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", SAMPLED)
def test_seeds_reproduce(estimator):
    target = GameTarget(smooth_function(9, 0), 9)

    def scores(seed):
        return Shapley("nodes", estimator, 100, seed=seed).explain(target).scores

    assert scores(3).equal(scores(3))
    assert not scores(3).equal(scores(4))
    assert scores(torch.Generator().manual_seed(3)).equal(scores(3))
    fresh = Shapley("nodes", estimator, 100).explain(target)
    assert scores(fresh.seed).equal(fresh.scores)


@pytest.mark.parametrize("estimator", SAMPLED)
def test_global_random_states_are_left_alone(estimator):
    before = torch.get_rng_state()
    Shapley("nodes", estimator, 100).explain(GameTarget(total, 8))
    assert before.equal(torch.get_rng_state())


@pytest.mark.parametrize(("estimator", "least"), [("kernel", 120), ("permutation", 154), ("stratified", 120)])
def test_a_budget_too_small_says_what_would_do(estimator, least):
    target = GameTarget(total, 20)
    with pytest.raises(ValueError, match=f"samples={least} or more for 20 players, got {least - 1}"):
        Shapley("nodes", estimator, samples=least - 1).explain(target)
    assert Shapley("nodes", estimator, samples=least, seed=0).explain(target).calls <= least


@pytest.mark.parametrize("estimator", SAMPLED)
def test_many_players_have_a_default_budget(estimator):
    why = Shapley("nodes", estimator, seed=0).explain(GameTarget(total, 300))
    torch.testing.assert_close(why.scores, torch.ones(300).double())
    assert 2300 < why.calls <= 2400


@pytest.mark.parametrize("estimator", GENERAL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_game_that_is_not_a_number_is_an_error(estimator, bad):
    target = GameTarget(lambda masks: torch.where(masks[:, 0] & ~masks[:, 1], bad, 1.0), 6)
    with pytest.raises(NonFinite, match="NaN or infinity"):
        Shapley("nodes", estimator, samples=64).explain(target)


@pytest.mark.parametrize("estimator", GENERAL)
def test_a_constant_game_is_all_zeros(estimator):
    why = Shapley("nodes", estimator, samples=64).explain(GameTarget(lambda masks: torch.full((len(masks),), 3.0), 6))
    torch.testing.assert_close(why.scores, torch.zeros(6).double(), rtol=0, atol=1e-12)
    assert why.checks["efficiency_gap"] < 1e-12


def test_noise_as_large_as_the_scores_is_said():
    with pytest.warns(UserWarning, match="raise samples"):
        Shapley("nodes", "kernel", samples=60, seed=0).explain(GameTarget(table_function(random_table(10, 0)), 10))


def test_what_the_game_measured_is_kept():
    why = Shapley("nodes").explain(GameTarget(total, 3, checks={"batched": True}))
    assert why.checks["batched"] is True


def test_players_may_be_given():
    why = Shapley(Players("patches", torch.tensor([4, 9]), ("sky", "sea"))).explain(GameTarget(total, 2))
    assert why.players.names == ("sky", "sea")


def test_progress_changes_nothing(capsys, monkeypatch):
    monkeypatch.setattr("explain.progress.PATIENCE", 0.0)
    for estimator in GENERAL:
        quiet, loud = (
            Shapley("nodes", estimator, 100, seed=0, progress=progress).explain(GameTarget(smooth_function(8, 0), 8))
            for progress in (False, True)
        )
        assert quiet.scores.equal(loud.scores)
        assert "%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings_", "error", "words"),
    [
        ({"players": 3}, TypeError, "kind such as"),
        ({"estimator": "exakt"}, ValueError, "auto, exact, kernel, local, permutation, stratified"),
        ({"samples": 0}, ValueError, "at least 1"),
        ({"samples": 1e3}, TypeError, "int or None, got float"),
        ({"samples": True}, TypeError, "got bool"),
    ],
)
def test_bad_settings_are_rejected_when_built(settings_, error, words):
    with pytest.raises(error, match=words):
        Shapley(**{"players": "nodes", **settings_})


def test_a_bad_seed_is_rejected():
    with pytest.raises(TypeError, match="seed must be"):
        Shapley("nodes", seed="one").explain(GameTarget(total, 3))
