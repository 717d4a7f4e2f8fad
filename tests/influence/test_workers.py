"""Curvature products on the workers of a cluster: those made here, by whoever, in one order."""

import pytest
import torch
from influence_cases import ObjectiveTarget, half_trained, logistic
from shard_cases import SIZE, Generated, asked, bounded, in_threads, influence

from explain.influence import GaussNewton, Hessian, Influence, Shards, workers
from explain.influence.curvature import Curvature
from explain.influence.workers import Totals, on_workers
from explain.parallel.tasks import Given

pytestmark = pytest.mark.filterwarnings("ignore:the inverse is loose", "ignore:the model is not at a minimum")


@pytest.fixture(scope="module")
def client():
    with in_threads(workers=2) as found:
        yield found


@pytest.fixture
def counted(monkeypatch):
    """The spans of examples that were summed, by whom they were asked."""
    spans, real = [], Totals.__call__
    monkeypatch.setattr(Totals, "__call__", lambda task, told: spans.append(told[1:3]) or real(task, told))
    return spans


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
@pytest.mark.parametrize("size", [7, 1000])
def test_a_product_is_that_made_here(tmp_path, client, counted, kind, size):
    objective = half_trained()
    block = torch.randn(130, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, one = kind(objective, 0.3) @ block, kind(objective, 0.3) @ block[:, 0]
    with on_workers(objective, Shards(tmp_path, size, client)):
        found = kind(objective, 0.3) @ block
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(kind(objective, 0.3) @ block[:, 0], one, rtol=1e-10, atol=1e-12)
        assert torch.equal(kind(objective, 0.3) @ block, found)
    assert sorted(set(counted)) == [(start, min(start + size, 30)) for start in range(0, 30, size)]
    asked = len(counted)
    assert torch.equal(kind(objective, 0.3) @ block, expected)
    assert len(counted) == asked
    assert not list(tmp_path.iterdir())


def test_many_shards_are_summed_together(tmp_path, client, counted, monkeypatch):
    monkeypatch.setattr(workers, "SUMS", 4)
    objective = logistic()
    v = torch.ones(68, dtype=torch.float64)
    with on_workers(objective, Shards(tmp_path, 10, client)):
        found = Hessian(objective) @ v
    assert sorted(counted) == [(0, 50), (50, 100), (100, 150), (150, 200)]
    torch.testing.assert_close(found, Hessian(objective) @ v, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("solver", "tolerance"), [("cg", 1e-5), ("exact", 1e-10)])
def test_scores_are_those_made_here(tmp_path, client, counted, solver, tolerance, monkeypatch):
    monkeypatch.setattr(Curvature, "assembles", lambda A: A.has_matrix)  # a product for each parameter
    target = ObjectiveTarget(logistic())
    expected = Influence(solver=solver, seed=0).explain(target)
    assert not counted
    found = Influence(solver=solver, seed=0, shards=Shards(tmp_path, 64, client)).explain(target)
    assert len(counted) >= 4
    largest = float(expected.scores.abs().max())
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=tolerance * largest)
    assert found.checks["residual"] < 1e-6


def test_the_driver_takes_no_second_derivative_of_a_streamed_set(tmp_path, client, counted, monkeypatch):
    data, target = Generated(40, features=600), asked(600)
    bounded(monkeypatch.setattr)
    expected = influence(data).explain(target)
    own = []
    real = Curvature._linear_maps
    monkeypatch.setattr(Curvature, "_linear_maps", lambda A: own.append(A) or real(A))
    found = influence(data, tmp_path, client).explain(target)
    largest = float(expected.scores.abs().max())  # three steps in single precision, which rounds sums in another order
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5 * largest)
    assert not own
    assert set(counted) == {(0, SIZE), (SIZE, 2 * SIZE), (2 * SIZE, 40)}


def test_after_an_error_products_are_made_here_again(tmp_path, client):
    objective = half_trained()
    v = torch.ones(130, dtype=torch.float64)
    with pytest.raises(KeyboardInterrupt), on_workers(objective, Shards(tmp_path, 7, client)):
        raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Totals, "__call__", lambda *_: pytest.fail("outside of its cluster"))
        assert (Hessian(objective) @ v).isfinite().all()


def test_threads_of_one_worker_wait_for_one_another():
    objective = half_trained()
    rows = torch.randn(3, 130, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    totals, asked = Totals(objective), [(Hessian, start, start + 5, rows) for start in range(0, 30, 5)]
    expected = [totals(each) for each in asked]
    with in_threads(threads=4) as client, Given(client, Totals(objective)) as given:
        found = given.results(asked * 10)
    for one, other in zip(found, expected * 10, strict=True):  # by vmap or row by row, whichever was faster then
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
