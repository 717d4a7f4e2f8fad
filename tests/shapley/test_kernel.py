import pytest
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from reference.shapley import kernel_regression
from shapley_cases import GAMES, sparse, sparse_terms, tabled, truth

from explain.shapley import Shapley
from explain.shapley.exact import shapley_values
from explain.shapley.explainer import ESTIMATORS

SAMPLED = ("kernel", "permutation", "stratified")


@pytest.mark.parametrize("players", [2, 3, 4, 7, 10])
def test_all_coalitions_make_kernel_exact(players):
    table = random_table(players, seed=players)
    why = Shapley("nodes", "kernel", samples=2**players).explain(GameTarget(table_function(table), players))
    torch.testing.assert_close(why.scores, shapley_values(table), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(why.scores, kernel_regression(table), rtol=1e-9, atol=1e-10)
    assert (why.error, why.calls, why.checks["complete_sizes"]) == (None, 2**players, players - 1)


@pytest.mark.parametrize("estimator", SAMPLED)
def test_estimates_converge(estimator):
    function = smooth_function(14, seed=2)
    expected = truth(function, 14)
    gaps = []
    for samples in (128, 1024, 8192):
        why = Shapley("nodes", estimator, samples, seed=0).explain(GameTarget(function, 14))
        assert why.calls <= samples
        gaps.append(float((why.scores - expected).norm() / expected.norm()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.03


@pytest.mark.parametrize("estimator", SAMPLED)
def test_an_additive_game_is_exact_from_few_samples(estimator):
    weights = torch.arange(30, dtype=torch.float64) - 7
    why = Shapley("nodes", estimator, samples=240, seed=1).explain(
        GameTarget(lambda masks: 3 + masks.double() @ weights, 30)
    )
    torch.testing.assert_close(why.scores, weights, rtol=1e-9, atol=1e-9)
    assert why.checks["largest_error"] < 1e-9


@pytest.mark.parametrize(
    ("estimator", "players", "samples"),
    [
        *(("kernel", 8, 48), ("kernel", 12, 200), ("kernel", 13, 1000)),
        *(("stratified", 8, 48), ("stratified", 12, 200), ("stratified", 13, 1000)),
        *(("permutation", 8, 120), ("permutation", 12, 1000)),
    ],
)
def test_standard_errors_are_honest(estimator, players, samples):
    """The 95 % intervals of 200 repeats, over players and kinds of games, hold the exact value about that often."""
    covered = {}
    for repeat in range(200):
        name, seed = list(GAMES)[repeat % 4], repeat % 2
        values = tabled(name, players, seed)
        game = GameTarget(table_function(values), players).game("nodes")
        found = ESTIMATORS[estimator](game, samples, torch.Generator().manual_seed(repeat), False)
        inside = (found.scores - shapley_values(values)).abs() <= 1.96 * found.error
        covered.setdefault(name, []).append(inside.double().mean())
    shares = {name: float(torch.stack(inside).mean()) for name, inside in covered.items()}
    assert 0.92 <= sum(shares.values()) / 4 <= 0.98
    assert min(shares.values()) > 0.88


@pytest.mark.parametrize(
    ("estimator", "samples"),
    [("kernel", 800), ("kernel", 2048), ("permutation", 2048), ("stratified", 800), ("stratified", 2048)],
)
def test_many_players_against_the_closed_form(estimator, samples):
    """A product's worth is shared equally by its players."""
    expected = torch.zeros(60, dtype=torch.float64)
    for members, weight in sparse_terms(60, seed=0):
        expected[members] += float(weight) / len(members)
    target = GameTarget(sparse(60, seed=0), 60)
    found = [Shapley("nodes", estimator, samples, seed=seed).explain(target) for seed in range(10)]
    covered = torch.stack([(why.scores - expected).abs() <= 1.96 * why.error for why in found])
    assert 0.88 <= float(covered.double().mean()) <= 0.99
    gap = sum(float((why.scores - expected).norm() / expected.norm()) for why in found) / len(found)
    assert gap < {800: 0.4, 2048: 0.2}[samples]


def test_estimates_are_unbiased():
    function = sparse(10, 4)
    estimates = {name: [] for name in SAMPLED}
    for name, found in estimates.items():
        for seed in range(200):
            game = GameTarget(function, 10).game("nodes")
            found.append(ESTIMATORS[name](game, 80, torch.Generator().manual_seed(seed), False).scores)
        scores = torch.stack(found)
        z = (scores.mean(0) - truth(function, 10)) / (scores.std(0) / 200**0.5)
        assert float(z.abs().max()) < 4, name


def test_r2_tells_how_additive_a_game_is():
    additive = GameTarget(lambda masks: masks.double().sum(1), 18)
    product = GameTarget(lambda masks: masks.all(1).double() + masks[:, 0], 18)
    assert Shapley("nodes", "kernel", seed=0).explain(additive).checks["r2"] == pytest.approx(1)
    assert Shapley("nodes", "kernel", seed=0).explain(product).checks["r2"] < 1
