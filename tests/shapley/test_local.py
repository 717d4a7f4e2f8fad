import pytest
import torch
from cases import GameTarget, smooth_function
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.shapley import Interactions, Shapley
from explain.types import Unsupported


class LocalTarget(GameTarget):
    """A sum of one smooth game for each place of a ring, each of the players up to ``reach`` places away."""

    def __init__(self, count, reach=1, seed=0, extra=None, readout=None):
        groups = [self.near(place, reach, count) for place in range(count)]
        parts = [smooth_function(len(group), seed + place) for place, group in enumerate(groups)]

        def total(masks):
            number = sum(part(masks[:, group]) for part, group in zip(parts, groups, strict=True))
            number = number if extra is None else number + extra(masks)
            return number if readout is None else readout(number)

        super().__init__(total, count, batch_size=64)

    @staticmethod
    def near(place, reach, count):
        return torch.tensor(sorted({(place + step) % count for step in range(-reach, reach + 1)}))

    def game(self, players):
        game = super().game(players)
        game.neighbourhoods = self.neighbourhoods
        return game

    def neighbourhoods(self):
        for hops in range(self.count // 2 + 1):
            yield [self.near(place, hops, self.count) for place in range(self.count)]


@settings(max_examples=15, deadline=None)
@given(count=st.integers(2, 11), reach=st.integers(0, 3), seed=st.integers(0, 99))
def test_local_is_exact(count, reach, seed):
    target = LocalTarget(count, reach, seed)
    found, exact = (Shapley("nodes", name, seed=seed).explain(target) for name in ("local", "exact"))
    torch.testing.assert_close(found.scores, exact.scores, rtol=1e-9, atol=1e-10)
    assert found.error is None
    assert found.checks["hops"] <= reach
    assert found.checks["efficiency_gap"] < 1e-10


@pytest.mark.parametrize("index", ["shapley", "banzhaf"])
def test_interactions_are_exact_too(index):
    target = LocalTarget(10, 1, 3)
    found, exact = (Interactions("nodes", index, name).explain(target) for name in ("local", "exact"))
    torch.testing.assert_close(found.parts["interactions"], exact.parts["interactions"], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.scores, exact.scores, rtol=1e-9, atol=1e-10)
    assert "interactions_error" not in found.parts


def test_hundred_players_from_few_coalitions():
    target = LocalTarget(100, 1)
    why = Shapley("nodes", "local", seed=0).explain(target)
    assert (why.checks["hops"], why.checks["neighbourhoods"], why.checks["largest"]) == (1, 100, 3)
    assert why.calls < 1000  # 1 + 100 + 100 + 100 + 100 coalitions, and the questions that show they are enough
    sampled = Shapley("nodes", "stratified", 4096, seed=0).explain(target)
    assert float(((why.scores - sampled.scores) / sampled.error).square().mean()) < 1.5


def test_what_is_not_local_is_refused():
    product = LocalTarget(40, extra=lambda masks: masks[:, 0].double() * masks[:, 20])
    for target in (LocalTarget(40, readout=torch.tanh), product):
        with pytest.raises(ValueError, match=r"coalitions, .* of 40 players are within \d+ hops .* not linear"):
            Shapley("nodes", "local", seed=0).explain(target)


def test_neighbourhoods_that_end_too_early_are_refused():
    class Short(LocalTarget):
        def neighbourhoods(self):
            yield from list(super().neighbourhoods())[:2]

    with pytest.raises(Unsupported, match="not a sum of parts"):
        Shapley("nodes", "local", seed=0).explain(Short(12, reach=3))


def test_too_many_coalitions_are_counted():
    with pytest.raises(
        ValueError, match=rf"need about {60 * 2**23} or more coalitions, .*: 23 of 60 players are within 11 hops"
    ):
        Shapley("nodes", "local", seed=0).explain(LocalTarget(60, reach=12))


def test_neighbourhoods_that_are_hopelessly_large_are_refused_before_anything_is_asked_of_them():
    class Dense(LocalTarget):
        def neighbourhoods(self):
            yield [torch.arange(100)]

    asked = []
    target = Dense(100, readout=lambda numbers: asked.append(len(numbers)) or numbers)
    with pytest.raises(ValueError, match=r"need about 2\^100 or more coalitions"):
        Shapley("nodes", "local", seed=0).explain(target)
    assert sum(asked) <= 32  # of which the scale of the number is known


def test_a_game_without_neighbourhoods_says_what_is_needed():
    with pytest.raises(Unsupported, match=r"whole graph, by nodes.*kernel"):
        Shapley("nodes", "local").explain(GameTarget(smooth_function(8, 0), 8))


def test_a_constant_game():
    why = Shapley("nodes", "local", seed=0).explain(LocalTarget(8, readout=lambda number: 0 * number + 2))
    assert why.scores.tolist() == [0.0] * 8
    assert why.checks["hops"] == 0


@pytest.mark.parametrize("count", [0, 1])
def test_no_players_and_one(count):
    target = GameTarget(lambda masks: masks.double().sum(1), count)
    assert Shapley("nodes", "local").explain(target).scores.tolist() == [1.0] * count


def test_progress_changes_nothing(capsys, monkeypatch):
    monkeypatch.setattr("explain.progress.PATIENCE", 0.0)
    first, second = (Shapley("nodes", "local", seed=0, progress=loud).explain(LocalTarget(9)) for loud in (False, True))
    assert first.scores.equal(second.scores)
    assert "%" in capsys.readouterr().err
