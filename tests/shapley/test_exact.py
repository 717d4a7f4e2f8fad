import pytest
import torch
from cases import GameTarget, random_table, table_function
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.shapley import KNOWN, by_pairs, by_permutations, by_weight_vector, of_masks

from explain.shapley import Shapley
from explain.shapley.exact import coalitions, shapley_values

tables = st.builds(random_table, st.integers(1, 6), st.integers(0, 2**20))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("players", [1, 2, 3, 5, 8, 10])
def test_exact_is_the_paper_formula(players):
    table = random_table(players, seed=players)
    why = Shapley("nodes", estimator="exact").explain(GameTarget(table_function(table), players))
    close(why.scores, by_pairs(of_masks(table_function(table), players), players))
    close(why.scores, by_weight_vector(table))
    assert (why.value, why.base, why.error, why.calls) == (table[-1], table[0], None, 2**players)


def test_exact_is_the_mean_over_all_orders():
    table = random_table(6, seed=0)
    close(shapley_values(table), by_permutations(of_masks(table_function(table), 6), 6))


@pytest.mark.parametrize("name", KNOWN)
def test_known_games(name):
    function, expected = KNOWN[name]
    why = Shapley("nodes").explain(GameTarget(function, len(expected)))
    close(why.scores, torch.tensor(expected, dtype=torch.float64))
    assert (why.scores[torch.tensor(expected) == 0] == 0).all()  # exactly, not almost


@settings(max_examples=40, deadline=None)
@given(table=tables)
def test_efficiency(table):
    assert float(shapley_values(table).sum()) == pytest.approx(float(table[-1] - table[0]), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(table=tables, data=st.data())
def test_relabelling(table, data):
    players = len(table).bit_length() - 1
    order = torch.tensor(data.draw(st.permutations(range(players))))
    masks = coalitions(players, 0, len(table))
    renamed = table_function(table)(masks[:, order])  # old player i is now player order[i]
    close(shapley_values(renamed)[order], shapley_values(table))


@settings(max_examples=40, deadline=None)
@given(table=tables, seed=st.integers(0, 99), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linearity(table, seed, a, b):
    other = random_table(len(table).bit_length() - 1, seed)
    close(shapley_values(a * table + b * other), a * shapley_values(table) + b * shapley_values(other))


@settings(max_examples=40, deadline=None)
@given(table=tables, data=st.data())
def test_a_dummy_gets_exactly_nothing(table, data):
    players = len(table).bit_length()
    dummy = data.draw(st.integers(0, players - 1))
    others = [player for player in range(players) if player != dummy]
    masks = coalitions(players, 0, 2**players)
    extended = shapley_values(table_function(table)(masks[:, others]))
    assert extended[dummy] == 0
    close(extended[others], shapley_values(table))


@settings(max_examples=40, deadline=None)
@given(table=tables.filter(lambda table: len(table) > 2))
def test_interchangeable_players_get_the_same(table):
    masks = coalitions(len(table).bit_length() - 1, 0, len(table))
    swapped = table_function(table)(torch.cat([masks[:, [1, 0]], masks[:, 2:]], 1))
    scores = shapley_values(table + swapped)
    assert float(scores[0]) == pytest.approx(float(scores[1]), abs=1e-12)


def test_a_large_constant_costs_no_accuracy():
    table = random_table(8, seed=3)
    torch.testing.assert_close(shapley_values(table + 1e6), shapley_values(table), rtol=0, atol=1e-8)


def test_twenty_players():
    weights = torch.arange(20, dtype=torch.float64)
    why = Shapley("nodes", estimator="exact").explain(
        GameTarget(lambda masks: masks.double() @ weights, 20, batch_size=2**20)
    )
    close(why.scores, weights)
    assert why.calls == 2**20


def test_too_many_players_say_the_remedy():
    with pytest.raises(ValueError, match=r"23 players.*estimator=\"kernel\""):
        Shapley("nodes", estimator="exact").explain(GameTarget(lambda masks: masks.double().sum(1), 23))


def test_a_table_has_a_power_of_two():
    with pytest.raises(ValueError, match="2\\^P values, got 3"):
        shapley_values(torch.zeros(3))
