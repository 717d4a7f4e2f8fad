"""Agreement is what scipy says it is, and comparing the incomparable is refused or warned about."""

import itertools
import warnings
from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch
from explanations import edges, nodes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from explain.comparison import Comparison, compare, kendall_resampled, spearman_resampled
from explain.explanation import Explanation
from explain.types import Players


def answer(scores, method="A", index=None, **made) -> Explanation:
    index = torch.arange(len(scores)) if index is None else torch.as_tensor(index)
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return Explanation(scores, Players("edges", index), **({"value": 1.0, "method": method} | made))


def random_answers(players=40, count=3, seed=0):
    draws = torch.randn(count, players, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [answer((draws[0] + 0.7 * i * draws[i]).round(decimals=1), method) for i, method in enumerate("ABC")]


def test_measures_are_those_of_scipy():
    answers = random_answers()
    found = compare(*answers, k=7, resamples=50)
    for one, other in itertools.combinations(answers, 2):
        x, y = one.scores.numpy(), other.scores.numpy()
        place = (one.method, other.method)
        assert found.spearman.loc[place] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert found.kendall.loc[place] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
        tops = [set(sorted(range(40), key=lambda i, s=s: (-abs(s[i]), i))[:7]) for s in (x, y)]
        assert found.overlap.loc[place] == len(tops[0] & tops[1]) / 7
    for measure in ("spearman", "kendall", "overlap"):
        matrix = found.matrix(measure).to_numpy()
        assert np.array_equal(matrix, matrix.T)
        assert np.array_equal(np.diag(matrix), np.ones(3))


scores = st.lists(st.integers(-3, 3), min_size=3, max_size=9)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_each_resample_is_what_scipy_says_of_it(data):
    x = np.array(data.draw(scores), dtype=float)
    y = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=len(x), max_size=len(x))), dtype=float)
    draws = np.random.default_rng(0).integers(len(x), size=(12, len(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        spearman = [stats.spearmanr(x[row], y[row]).statistic for row in draws]
        kendall = [stats.kendalltau(x[row], y[row]).statistic for row in draws]
    np.testing.assert_allclose(spearman_resampled(x, y, draws), spearman, atol=1e-12)
    np.testing.assert_allclose(kendall_resampled(x, y, draws), kendall, atol=1e-12)


def test_many_players_are_taken_in_blocks():
    x, y = np.random.default_rng(0).normal(size=(2, 1100))
    draws = np.random.default_rng(1).integers(1100, size=(3, 1100))
    expected = [stats.kendalltau(x[row], y[row]).statistic for row in draws]
    np.testing.assert_allclose(kendall_resampled(x, y, draws), expected, atol=1e-12)


def test_intervals_hold_the_value_narrow_with_players_and_repeat():
    few, many = (compare(*random_answers(players)[:2], seed=3).pairs[0] for players in (20, 320))
    for pair in (few, many):
        assert pair.spearman_interval[0] < pair.spearman < pair.spearman_interval[1]
        assert pair.kendall_interval[0] < pair.kendall < pair.kendall_interval[1]
    assert np.ptp(many.spearman_interval) < 0.5 * np.ptp(few.spearman_interval)
    assert compare(*random_answers(20)[:2], seed=3).pairs[0] == few
    scipys = stats.bootstrap(
        [answer.scores.numpy() for answer in random_answers(320)[:2]],
        lambda x, y: stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    np.testing.assert_allclose(many.spearman_interval, scipys, atol=0.02)


@given(st.permutations(range(7)))
@settings(max_examples=20, deadline=None)
def test_players_are_aligned_by_their_index(order):
    one = edges()
    players = Players("edges", one.players.index[order], tuple(one.players.names[i] for i in order))
    other = replace(one, scores=one.scores[order], players=players, error=None)
    found = compare(one, other, k=3, resamples=0)
    assert found.pairs[0].spearman == pytest.approx(1)
    assert found.pairs[0].overlap == 1


def test_rows_of_an_index_are_keys_too():
    index = torch.tensor([[0, 1], [0, 2], [1, 1]])
    found = compare(answer([1, 2, 3], "A", index), answer([3, 2, 1], "B", index.flip(0)), k=1, resamples=0)
    assert found.pairs[0].spearman == pytest.approx(1)


def test_equal_scores_are_top_in_the_order_of_the_players():
    one, other = answer([1, 1, 1, 2], "A"), answer([-1, 0, 0, 2], "B")
    assert compare(one, other, k=2, resamples=0).pairs[0].overlap == 1
    assert compare(one, answer([0, 0, -1, 2], "B"), k=2, resamples=0).pairs[0].overlap == 0.5


def test_fewer_players_than_k_are_all_top():
    assert compare(answer([1, 2]), answer([2, 1], "B"), k=5, resamples=0).pairs[0].overlap == 1


@pytest.mark.parametrize("constant", [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
def test_constant_scores_have_no_correlation(constant):
    with pytest.warns(UserWarning, match="undefined"):
        found = compare(answer([1, 2, 3]), answer(constant, "B"))
    assert np.isnan(found.pairs[0].spearman)
    assert np.isnan(found.pairs[0].kendall_interval).all()
    assert "undefined" in found._repr_html_()
    assert found.table()["kendall"].isna().all()


@pytest.mark.parametrize("players", [0, 1])
def test_no_players_and_one_player_are_undefined(players):
    with pytest.warns(UserWarning, match="undefined"):
        found = compare(answer([1.0] * players), answer([2.0] * players, "B"))
    assert np.isnan(found.pairs[0].spearman)
    found.plot()


def test_other_players_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"Lime shares credit among nodes.*Shapley\('nodes'\)"):
        compare(edges(), nodes())
    with pytest.raises(ValueError, match=r"1 of 3 are missing \(2\), 1 are new \(9\).*same target"):
        compare(answer([1, 2, 3]), answer([1, 2, 3], "B", [0, 1, 9]))
    with pytest.raises(ValueError, match="same index"):
        compare(answer([1, 2], index=[4, 4]), answer([1, 2], index=[4, 4]))
    with pytest.raises(ValueError, match="at least two"):
        compare(edges())
    with pytest.raises(TypeError, match=r"one by one, got dict: compare\(\*found\.values\(\)\)"):
        compare({"a": edges(), "b": edges()})
    with pytest.raises(TypeError, match="k must be a number, got 'all'"):
        compare(edges(), edges(), k="all")
    with pytest.raises(TypeError, match=r"compare\(\*explanations\)"):
        compare([edges(), edges()])
    for settings_ in ({"k": 0}, {"resamples": -1}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match="need k >= 1"):
            compare(edges(), edges(), **settings_)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"target": {"removal": "message"}}, "removal is A delete, B message"),
        ({"checks": {"removal": "message"}}, "removal is A delete, B message"),
        ({"target": {"payoff": "loss"}}, "payoff is A logit, B loss"),
        ({"target": {"label": 2}}, "label is A 1, B 2"),
        ({"value": 1.1}, "explained number is A 1, B 1.1"),
    ],
)
def test_different_questions_are_warned_about(changes, match):
    one = answer([1, 2, 3], target={"removal": "delete", "payoff": "logit", "label": 1})
    with pytest.warns(UserWarning, match=match):
        found = compare(one, answer([1, 2, 3], "B", **changes), resamples=0)
    assert any(match.split()[0] in text for text in found.notes)


def test_the_same_question_raises_no_doubt():
    one = answer([1, 2, 3], target={"removal": "delete", "label": 1}, value=1.0)
    assert compare(one, answer([3, 1, 2], "B", target={"removal": "delete"}, value=1 + 1e-7)).notes == ()


def test_the_same_method_twice_is_numbered_and_texts_are_escaped():
    found = compare(answer([1, 2, 3], "<b>"), answer([1, 3, 2], "<b>"), answer([2, 1, 3], "Lime"))
    assert found.labels == ("<b> 1", "<b> 2", "Lime")
    assert "<b> 1" not in found._repr_html_()
    assert "&lt;b&gt; 1" in found._repr_html_()
    assert found._repr_html_().startswith('<img alt="Spearman')
    assert "<img" not in compare(answer([1, 2, 3]), answer([1, 3, 2], "B"))._repr_html_()  # the table says it
    assert "3 explanations over 3 edges" in repr(found)


def test_the_table_has_a_row_a_pair_and_unknown_measures_are_refused():
    found = compare(*random_answers(), resamples=20)
    assert isinstance(found, Comparison)
    assert list(found.table()[["first", "second"]].itertuples(index=False, name=None)) == [
        ("A", "B"), ("A", "C"), ("B", "C"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="spearman, kendall, overlap"):
        found.matrix("pearson")


def test_scores_without_a_sign_are_compared_by_size_when_asked():
    one, other = answer([3.0, -2.0, 1.0]), answer([0.6, 0.4, 0.2], "Mask", checks={"scores": "mask values: no sign"})
    with pytest.warns(UserWarning, match="scores of Mask have no sign.*absolute=True"):
        assert compare(one, other, resamples=0).pairs[0].spearman == pytest.approx(0.5)
    found = compare(one, other, absolute=True, resamples=0)
    assert found.pairs[0].spearman == pytest.approx(1)
    assert found.notes == ()
    with pytest.warns(UserWarning, match="undefined"):
        compare(answer([1, -1, 1]), answer([1, 2, 3], "B"), absolute=True, resamples=0)


def test_shares_of_attention_take_nothing_away():
    asked = {"removal": "delete"}
    shares = answer([1, 2, 3], "Attention", target=asked, checks={"scores": "shares"})
    message = answer([1, 2, 3], "Mask", target=asked, checks={"scores": "mask values", "removal": "message"})
    assert compare(shares, message, resamples=0).notes == ()
    with pytest.warns(UserWarning, match="removal is A delete, Mask message;"):
        compare(answer([1, 2, 3], target=asked), shares, message, absolute=True, resamples=0)
