import pytest
import torch
from cases import GameTarget, smooth_function

from explain.shapley import Shapley
from explain.shapley import design as designs
from explain.shapley.design import design


@pytest.fixture(autouse=True)
def _forgotten():
    designs._designs.clear()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_design_solves_the_constrained_weighted_least_squares():
    found = design(7, 25, generator())
    differences = torch.randn(25, generator=generator(1), dtype=torch.float64)
    total = 3.0
    scores = differences @ found.response + found.direction * total
    assert float(scores.sum()) == pytest.approx(total)
    system = torch.ones(8, 8, dtype=torch.float64)  # the Lagrangian of the problem as it is written
    weighted = found.signs * found.pairs.weights[:, None]
    system[:7, :7], system[7, 7] = found.signs.T @ weighted, 0
    right = torch.cat([weighted.T @ differences, torch.tensor([total], dtype=torch.float64)])
    torch.testing.assert_close(scores, torch.linalg.solve(system, right)[:7])
    hat = found.signs @ found.response.T
    torch.testing.assert_close(found.leverage, hat.diagonal())


@pytest.mark.parametrize("estimator", ["kernel", "stratified"])
def test_what_is_remembered_answers_as_what_is_new(estimator):
    target = GameTarget(smooth_function(12, 0), 12)
    new = Shapley("nodes", estimator, 300, seed=4).explain(target)
    again = Shapley("nodes", estimator, 300, seed=4).explain(target)
    assert len(designs._designs) == 1
    assert new.scores.equal(again.scores)
    assert new.error.equal(again.error)


def test_the_generator_goes_on_alike_whether_new_or_remembered():
    new, again = generator(5), generator(5)
    design(9, 30, new)
    design(9, 30, again)
    assert torch.rand((), generator=new) == torch.rand((), generator=again)
    assert len(designs._designs) == 1


def test_a_game_that_writes_into_its_masks_spoils_nothing():
    smooth = smooth_function(10, 0)

    def careless(masks):
        values = smooth(masks)
        masks[:] = False
        return values

    first, second = (Shapley("nodes", "kernel", 200, seed=1).explain(GameTarget(careless, 10)).scores for _ in range(2))
    assert first.equal(second)


def test_memory_is_bounded_and_the_oldest_goes_first(monkeypatch):
    one = design(10, 50, generator(0)).size()
    designs._designs.clear()
    monkeypatch.setattr(designs, "_MOST_BYTES", 8 * one + 1)
    for seed in range(9):
        design(10, 50, generator(seed))
        design(10, 50, generator(1) if seed else generator(0))  # one that is used stays
    assert len(designs._designs) == 8
    assert sum(kept.size() for kept in designs._designs.values()) <= 8 * one + 1
    kept = {seed for _, _, seed in designs._designs}
    assert int(torch.randint(2**62, (), generator=generator(0))) not in kept
    assert int(torch.randint(2**62, (), generator=generator(1))) in kept


def test_what_is_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(designs, "_MOST_BYTES", 100)
    design(10, 50, generator())
    assert not designs._designs


def test_the_regression_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("explain.shapley.design.ROWS", 16)
    monkeypatch.setattr("explain.progress.PATIENCE", 0.0)
    design(11, 50, generator(3), progress=True)
    assert "regression" in capsys.readouterr().err
