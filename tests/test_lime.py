import numpy as np
import pytest
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from hypothesis import given, settings
from hypothesis import strategies as st
from lime.lime_base import LimeBase
from sklearn.metrics import pairwise_distances

from explain.lime import Lime, cosine_distances, draw_masks, kernel
from explain.types import NonFinite


def ridge_solution(masks, values, weights, ridge):
    """The weighted ridge with a free intercept, from its normal equations."""
    design = np.column_stack([np.ones(len(masks)), masks])
    penalty = ridge * np.diag([0.0] + [1.0] * masks.shape[1])
    return np.linalg.solve(design.T @ (weights[:, None] * design) + penalty, design.T @ (weights * values))


def drawn(lime, players):
    return draw_masks(players, lime.samples, torch.Generator().manual_seed(lime.seed))[0]


@pytest.mark.parametrize("ridge", [1e-8, 1.0])
def test_scores_are_the_weighted_ridge(ridge):
    function = smooth_function(12, 0)
    lime = Lime("nodes", samples=500, ridge=ridge, seed=3)
    why = lime.explain(GameTarget(function, 12))
    masks = drawn(lime, 12)
    weights = np.exp(-((1 - np.sqrt(masks.double().mean(1).numpy())) ** 2) / (2 * 0.25**2))
    values = function(masks).numpy()
    intercept, *coefficients = ridge_solution(masks.double().numpy(), values, weights, ridge)
    np.testing.assert_allclose(why.scores.numpy(), coefficients, rtol=1e-7, atol=1e-9)
    assert why.checks["intercept"] == pytest.approx(intercept, rel=1e-7)
    residuals = values - intercept - masks.double().numpy() @ np.array(coefficients)
    spread = np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)
    assert why.checks["r2"] == pytest.approx(1 - np.average(residuals**2, weights=weights) / spread, rel=1e-7)
    assert why.checks["local_prediction"] == pytest.approx(intercept + sum(coefficients), rel=1e-7)
    assert why.value == pytest.approx(values[0], rel=1e-12)
    assert why.base == pytest.approx(float(function(torch.zeros(1, 12).bool())), rel=1e-12)


def test_lime_itself_with_its_own_ridge_agrees():
    function = smooth_function(11, 1)
    lime = Lime("nodes", samples=300, ridge=1.0, seed=0)
    masks = drawn(lime, 11)
    data = masks.double().numpy()
    distances = pairwise_distances(data, data[:1], metric="cosine").ravel()
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)  # as lime_image writes it
    _, pairs, r2, _ = base.explain_instance_with_data(
        data, function(masks).numpy()[:, None], distances, 0, 11, feature_selection="none"
    )
    why = lime.explain(GameTarget(function, 11))
    np.testing.assert_allclose(why.scores.numpy(), [dict(pairs)[player] for player in range(11)], rtol=1e-7)
    assert why.checks["r2"] == pytest.approx(r2)


def test_distances_are_cosines_to_the_whole():
    masks = draw_masks(6, 50, torch.Generator().manual_seed(0))[0]
    masks[1] = False
    expected = pairwise_distances(masks.double().numpy(), np.ones((1, 6)), metric="cosine").ravel()
    np.testing.assert_allclose(cosine_distances(masks).numpy(), expected, atol=1e-12)
    assert kernel(torch.tensor([0.0, 0.25]), 0.25).tolist() == pytest.approx([1, np.exp(-0.5)])


@settings(max_examples=30, deadline=None)
@given(players=st.integers(1, 40), seed=st.integers(0, 999), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_linear_game_is_recovered(players, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    weights = scale * torch.randn(players, dtype=torch.float64, generator=generator)
    why = Lime("nodes", seed=seed).explain(GameTarget(lambda masks: 5 * scale + masks.double() @ weights, players))
    torch.testing.assert_close(why.scores, weights, rtol=1e-3, atol=1e-5 * scale)
    assert why.checks["intercept"] == pytest.approx(5 * scale, rel=1e-3)


def test_the_default_ridge_of_lime_would_not_recover_it():
    target = GameTarget(lambda masks: masks.double().sum(1), 20)
    assert float((Lime("nodes", ridge=1.0, seed=0).explain(target).scores - 1).abs().max()) > 1e-3


def test_few_players_are_enumerated():
    table = random_table(6, 0)
    answers = [Lime("nodes", seed=seed).explain(GameTarget(table_function(table), 6)) for seed in (0, 1)]
    assert answers[0].scores.equal(answers[1].scores)
    assert answers[0].error is None
    assert answers[0].calls == answers[0].checks["coalitions"] == 64


def test_equal_masks_are_evaluated_once():
    why = Lime("nodes", samples=1000, seed=0).explain(GameTarget(smooth_function(10, 0), 10))
    assert why.calls == why.checks["coalitions"] < 800


@pytest.mark.parametrize(("players", "samples"), [(12, 200), (12, 1000), (20, 300)])
def test_standard_errors_are_honest(players, samples):
    """The 95 % intervals of 60 repeats cover the coefficients of very many masks about that often."""
    covered = []
    for game in range(2):
        target = GameTarget(smooth_function(players, game), players)
        limit = Lime("nodes", samples=100_000, seed=99).explain(target).scores
        for seed in range(30):
            why = Lime("nodes", samples=samples, seed=seed).explain(target)
            covered.append((why.scores - limit).abs() <= 1.96 * why.error)
    assert 0.88 <= float(torch.stack(covered).double().mean()) <= 0.99


def test_no_players_is_an_empty_valid_answer():
    why = Lime("nodes").explain(GameTarget(lambda masks: torch.full((len(masks),), 5.0), 0))
    assert (why.scores.shape, why.value, why.base, why.checks["r2"]) == ((0,), 5, 5, None)


def test_one_player_gets_the_difference():
    why = Lime("nodes").explain(GameTarget(lambda masks: 0.1 + 0.7 * masks[:, 0].double(), 1))
    assert why.scores.tolist() == [why.value - why.base]


@pytest.mark.parametrize("number", [0.0, 3.7])
@pytest.mark.parametrize("players", [3, 15])
def test_a_constant_game_is_zeros_with_a_warning(number, players):
    target = GameTarget(lambda masks: torch.full((len(masks),), number), players)
    with pytest.warns(UserWarning, match="does not depend on these players"):
        why = Lime("nodes", seed=0).explain(target)
    assert why.scores.equal(torch.zeros(players).double())
    assert why.checks["r2"] is None
    assert why.checks["intercept"] == pytest.approx(number)


@pytest.mark.parametrize("settings_", [{"samples": 20}, {"kernel_width": 0.005}])
def test_too_little_to_go_by_is_said(settings_):
    with pytest.warns(UserWarning, match="raise samples or kernel_width"):
        why = Lime("nodes", seed=0, **settings_).explain(GameTarget(smooth_function(30, 0), 30))
    assert why.error is None
    assert why.checks["shrinkage"] > 0.1


def test_batch_size_never_matters_and_seeds_reproduce():
    function = smooth_function(12, 0)

    def scores(seed, batch):
        return Lime("nodes", samples=200, seed=seed).explain(GameTarget(function, 12, batch_size=batch)).scores

    torch.testing.assert_close(scores(1, 1), scores(1, 4096), rtol=1e-10, atol=1e-12)
    assert scores(1, 64).equal(scores(1, 64))
    assert not scores(1, 64).equal(scores(2, 64))


def test_global_random_states_are_left_alone():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    Lime("nodes").explain(GameTarget(smooth_function(12, 0), 12))
    assert (before[0] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[1].equal(torch.get_rng_state())


def test_a_game_that_is_not_a_number_is_an_error():
    with pytest.raises(NonFinite, match="NaN or infinity"):
        Lime("nodes").explain(GameTarget(lambda masks: torch.where(masks[:, 0], 1.0, float("nan")), 6))


def test_what_the_game_measured_is_kept():
    why = Lime("nodes").explain(GameTarget(smooth_function(3, 0), 3, checks={"batched": True}))
    assert why.checks["batched"] is True


@pytest.mark.parametrize(
    ("settings_", "error", "words"),
    [
        ({"players": None}, TypeError, "kind such as"),
        ({"samples": 1}, ValueError, "at least 2"),
        ({"samples": 10.0}, TypeError, "must be an int"),
        ({"kernel_width": 0}, ValueError, "kernel_width must be a positive number"),
        ({"kernel_width": float("nan")}, ValueError, "kernel_width"),
        ({"ridge": -1.0}, ValueError, "ridge must be a positive number"),
    ],
)
def test_bad_settings_are_rejected_when_built(settings_, error, words):
    with pytest.raises(error, match=words):
        Lime(**{"players": "nodes", **settings_})
