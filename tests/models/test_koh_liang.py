"""The rows of Koh and Liang's table, at a reduced size, and those that are fast in full too."""

import os
import warnings

import pytest
import torch

from models.koh_liang import sizes
from models.koh_liang.data import ones_and_sevens, ten_digits, two_digits
from models.koh_liang.rows import Row, table

DATA = pytest.mark.skipif("EXPLAIN_DATA" not in os.environ, reason="EXPLAIN_DATA does not name a data folder")
SIZES = [pytest.param(False, id="reduced"), pytest.param(True, id="full", marks=DATA)]


@pytest.fixture(autouse=True)
def _one_thread():
    """Several threads wait for each other on such small problems."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def met(found) -> bool:
    """Whether every row of an experiment is."""
    return [row.name for row in found.rows() if not row.met] == []


@pytest.mark.parametrize("full", SIZES)
def test_k1_k2_terms(full):
    found = sizes.terms(full)
    assert met(found)
    assert found.looked_helpful["without_curvature"] == found.looked_helpful["without_both"] == 1.0  # exactly
    assert found.looked_helpful["full"] < 0.9
    assert found.overestimates > 10
    assert len(found.harmful_same) == 5
    assert found.same[found.harmful_same].all()
    torch.testing.assert_close(found.why.scores, found.terms.full, rtol=1e-6, atol=1e-12)


def test_k3_k4_leave_one_out():
    found = sizes.leave_one_out(False)
    assert met(found)
    assert found.r >= 0.98
    assert 1.0 < found.slope < 1.2  # the first order understates
    assert (found.stochastic["ours"].r, found.stochastic["ours"].distance) >= (0.999, 0)
    assert found.stochastic["ours"].distance <= 0.02
    for name in ("ten repeats", "one repeat"):
        checks = found.stochastic[name].why.checks
        assert checks["repeats"] * checks["depth"] <= checks["examples"]
        assert found.stochastic[name].r >= 0.95


def test_k5_k6_a_network_that_is_no_minimum():
    found = sizes.nonconvex(False)
    assert met(found)
    assert found.why.checks["hessian_lambda_min"] < 0
    assert found.why.checks["parameters"] == 2616
    assert found.repeats_agree > 0.9
    assert set(found.r) == {("hessian", 0.1), ("ggn", 0.01)}


@pytest.mark.parametrize("full", SIZES)
def test_k7_k8_hinge(full):
    with pytest.warns(UserWarning, match="influence on the hinge loss at temperature 0 agrees.*only to r"):
        found = sizes.hinge(full)
    assert met(found)
    plain = found.predictions[0.0]
    checks = plain.why.checks
    assert checks["lambda_min"] == pytest.approx(checks["lambda_max"])  # nothing but the penalty
    for t in (0.001, 0.1):
        assert found.predictions[t].r >= 0.91
        assert found.predictions[t].r > plain.r
    if full:
        assert plain.r <= 0.7


def test_k9_kernels():
    found = sizes.kernels(False)
    assert met(found)
    assert found.rbf.rank_correlation < -0.7
    assert found.rbf.sign_follows_class > found.deep.sign_follows_class + 0.2
    assert found.deep.first_of_other_class < found.rbf.first_of_other_class


def test_k10_k11_k12_poisoning():
    found = sizes.attack(False)
    assert met(found)
    assert 0 < found.greys <= 0.5
    assert found.joint.checks["same_when_saved"]
    assert found.rates == sorted(found.rates)
    assert found.rates[-1] > 0
    assert found.joint.numbers[-1].sum() > found.joint.numbers[0].sum()


@pytest.mark.parametrize("full", SIZES)
def test_k13_domain(full):
    found = sizes.domain(full)
    assert met(found)
    assert found.top_is_planted
    assert float(found.ratios.min()) >= 10
    assert len(found.planted) == 4
    assert (found.why.scores[found.planted] > 0).tolist() == [True, True, True, False]  # the one like it helps
    assert found.crossed > 0


def test_k14_wrong_labels():
    found = sizes.wrong_labels(False)
    assert met(found)
    area = {name: float(repeats.mean()) for name, repeats in found.area.items()}
    assert len(found.area["loss"]) >= 20
    assert area["self_influence"] >= area["loss"] > area["random"]
    assert area["random"] == pytest.approx(0.5, abs=0.05)
    assert found.accuracy["self_influence"][:, -1].mean() > found.accuracy["random"][:, -1].mean()


def test_k15_costs():
    found = sizes.costs(False)
    assert met(found)
    assert found.scale >= found.largest
    assert all(found.errors[name][-1] < found.errors[name][0] for name in found.errors)


def test_the_table_is_in_order():
    rows = [Row(name, "item", "paper", "ours", "why", ok) for name, ok in (("K10", True), ("K2", False), ("K1", None))]
    found = table(rows)
    assert found.index.tolist() == ["K1", "K2", "K10"]
    assert found["met"].tolist() == ["-", "no", "yes"]


def test_data_is_brightness_in_two_parts():
    split = ten_digits("digits", 50)
    assert split.x.dtype == torch.float64
    assert (float(split.x.min()), float(split.x.max())) == (0.0, 1.0)
    assert len(split.x) == len(split.y) == 50
    pair = ones_and_sevens("digits")
    assert set(pair.y.tolist()) == set(pair.test_y.tolist()) == {0, 1}
    whole = ten_digits("digits")
    assert torch.equal(pair.x, whole.x[(whole.y == 1) | (whole.y == 7)])
    assert int(pair.y.sum()) == int((whole.y == 7).sum())
    assert len(two_digits("digits", 4, 9, 10).x) == 10
    with pytest.raises(ValueError, match="data must be one of"):
        ten_digits("letters")


def test_nothing_else_is_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes.terms(False)
        sizes.domain(False)
