import numpy as np
import pytest
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from reference.shapley import banzhaf_by_sets, by_pairs, interactions_by_sets, of_masks
from shapley_cases import tabled

from explain.shapley import Interactions, Shapley
from explain.shapley.interaction_indices import FITTED, interactions_of
from explain.shapley.interactions import _banzhaf, _shapley

INDICES = ("shapley", "banzhaf")


def off_diagonal(matrix):
    return matrix - matrix.diag().diag()


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("players", [2, 3, 6])
def test_exact_is_the_definition(index, players):
    table = random_table(players, seed=players)
    value = of_masks(table_function(table), players)
    why = Interactions("nodes", index).explain(GameTarget(table_function(table), players))
    expected = interactions_by_sets(value, players, index)
    found = why.parts["interactions"]
    torch.testing.assert_close(found - found.diag().diag(), expected, rtol=1e-10, atol=1e-12)
    scores = by_pairs(value, players) if index == "shapley" else banzhaf_by_sets(value, players)
    torch.testing.assert_close(why.scores, scores, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.diag() + expected.sum(1) / 2, scores, rtol=1e-10, atol=1e-12)
    assert why.error is None
    assert "interactions_error" not in why.parts


@pytest.mark.parametrize(("index", "theirs"), [("shapley", "SII"), ("banzhaf", "BII")])
def test_shapiq_agrees(index, theirs):
    shapiq = pytest.importorskip("shapiq")
    target = GameTarget(smooth_function(8, 0), 8)
    found = shapiq.ExactComputer(game=target.game("nodes"), n_players=8)(theirs, 2).get_n_order_values(2)
    ours = Interactions("nodes", index).explain(target).parts["interactions"]
    np.testing.assert_allclose((ours - ours.diag().diag()).numpy(), found, rtol=1e-9, atol=1e-11)


def test_shapiq_agrees_on_the_main_effects():
    shapiq = pytest.importorskip("shapiq")
    target = GameTarget(smooth_function(8, 0), 8)
    found = shapiq.ExactComputer(game=target.game("nodes"), n_players=8)("k-SII", 2).get_n_order_values(1)
    ours = Interactions("nodes").explain(target).parts["interactions"]
    np.testing.assert_allclose(ours.diag().numpy(), found, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("players", [4, 7, 10])
def test_all_coalitions_make_the_sampled_exact(players):
    table = random_table(players, seed=players)
    why = Interactions("nodes", "shapley", "stratified", 2**players).explain(GameTarget(table_function(table), players))
    exact = Interactions("nodes").explain(GameTarget(table_function(table), players))
    torch.testing.assert_close(why.parts["interactions"], exact.parts["interactions"], rtol=1e-8, atol=1e-8)
    assert "interactions_error" not in why.parts


@pytest.mark.parametrize("estimate", [_shapley, _banzhaf])
@pytest.mark.parametrize("samples", [150, 600])
def test_standard_errors_are_honest(estimate, samples):
    """With too few samples for the quadratic regression, and with enough."""
    covered = []
    for repeat in range(100):
        values = tabled(("smooth", "sparse", "structureless")[repeat % 3], 12, repeat % 2)
        game = GameTarget(table_function(values), 12).game("nodes")
        found = estimate(game, samples, torch.Generator().manual_seed(repeat), False).pairwise
        expected = pairs_of(values, estimate.__name__.strip("_"))
        off = ~torch.eye(12, dtype=torch.bool)
        covered.append(((found.interactions - expected).abs() <= 1.96 * found.error)[off].double().mean())
    assert 0.92 <= float(torch.stack(covered).mean()) <= 0.98


_known = {}


def pairs_of(values, index):
    if (id(values), index) not in _known:
        _known[id(values), index] = interactions_of(values, index)
    return _known[id(values), index]


@pytest.mark.parametrize("index", INDICES)
def test_a_quadratic_game_is_exact_from_few_samples(index):
    generator = torch.Generator().manual_seed(0)
    couplings = torch.randn(17, 17, generator=generator, dtype=torch.float64).triu(1)
    couplings = couplings + couplings.T
    target = GameTarget(lambda masks: 2 + (masks.double() @ couplings * masks).sum(1) / 2, 17)
    why = Interactions("nodes", index, samples=700, seed=0).explain(target)
    off = why.parts["interactions"] - why.parts["interactions"].diag().diag()
    torch.testing.assert_close(off, couplings, rtol=1e-6, atol=1e-6)


def test_estimates_converge():
    function = smooth_function(14, 2)
    exact = Interactions("nodes", estimator="exact").explain(GameTarget(function, 14))
    gaps = []
    for samples in (500, 8000):
        why = Interactions("nodes", estimator="stratified", samples=samples, seed=0).explain(GameTarget(function, 14))
        gaps.append(float((why.parts["interactions"] - exact.parts["interactions"]).norm()))
        assert why.calls <= samples
        assert why.checks["efficiency_gap"] < 1e-10
        assert why.checks["largest_interaction_error"] == float(off_diagonal(why.parts["interactions_error"]).max())
    assert gaps[1] < 0.3 * gaps[0]


def test_the_scores_are_shapley_values():
    target = GameTarget(smooth_function(12, 0), 12)
    why = Interactions("nodes", estimator="stratified", samples=400, seed=3).explain(target)
    torch.testing.assert_close(why.scores, Shapley("nodes", "stratified", 400, seed=3).explain(target).scores)


@pytest.mark.parametrize("players", [0, 1])
@pytest.mark.parametrize("index", INDICES)
def test_no_players_and_one(players, index):
    why = Interactions("nodes", index).explain(GameTarget(lambda masks: 2.0 + masks.double().sum(1), players))
    assert why.parts["interactions"].tolist() == [[1.0]] * players


def test_noise_as_large_as_the_interactions_is_said():
    target = GameTarget(table_function(random_table(12, 0)), 12)
    with pytest.warns(UserWarning, match="interactions: raise samples"):
        Interactions("nodes", estimator="stratified", samples=80, seed=0).explain(target)


def test_an_answer_is_saved_and_read(tmp_path):
    why = Interactions("nodes", estimator="stratified", samples=300, seed=0).explain(
        GameTarget(smooth_function(9, 0), 9)
    )
    why.save(tmp_path / "why.safetensors")
    again = type(why).load(tmp_path / "why.safetensors")
    assert again.parts["interactions"].equal(why.parts["interactions"])
    assert again.parts["interactions_error"].equal(why.parts["interactions_error"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"index": "sii"}, "shapley, banzhaf"),
        ({"estimator": "kernel"}, "auto, exact, local, stratified"),
        ({"samples": 0}, "1"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Interactions("nodes", **settings)


@pytest.mark.parametrize("index", INDICES)
def test_a_budget_too_small(index):
    with pytest.raises(ValueError, match=r"samples=12\d or more for 20 players"):
        Interactions("nodes", index, samples=100).explain(GameTarget(smooth_function(20, 0), 20))


def test_pairs_of_very_many_players_are_refused_before_anything_is_asked():
    target = GameTarget(lambda masks: 1 / 0, 2000)
    with pytest.raises(ValueError, match=r"2000 players have 1999000 pairs.*up to 500.*samples=.*Shapley\('nodes'\)"):
        Interactions("nodes").explain(target)


@pytest.mark.filterwarnings("ignore:the standard errors are over half")  # of all other pairs, which have none
@pytest.mark.parametrize("index", INDICES)
def test_many_players_have_no_quadratic_regression_that_fills_the_memory(index):
    players = FITTED + 1
    signs = torch.randn(players, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = GameTarget(lambda masks: masks.double() @ signs + 4.0 * masks[:, :2].all(1), players)
    why = Interactions("nodes", index, seed=0).explain(target)
    assert why.checks["coalitions"] <= 20_000
    found, error = why.parts["interactions"], why.parts["interactions_error"]
    assert abs(float(found[0, 1]) - 4) < 5 * float(error[0, 1])
    assert ((found.diag() - signs).abs() < 5 * error.diag()).all()
