"""The judge of influence: models trained again in shards, held to a loop by hand, resumed, and what it refuses."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from shard_cases import in_threads
from torch import nn

import explain
from explain import Influence, NonFinite, Training, Unsupported
from explain.metrics import Retrainings, lds, one_out, subsets
from explain.parallel import Stale

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).double()
Y = (X @ torch.tensor([1.0, -2.0, 0.5]).double() + 0.3 * X[:, 0] ** 2)[:, None]


def fitted(kept, seed):
    """Ridge regression; the seed is of noise on the labels, so that seeds disagree."""
    noise = 0.1 * seed * torch.randn(12, 1, generator=torch.Generator().manual_seed(seed)).double()
    x, y = X[kept], (Y + noise)[kept]
    return {"weight": torch.linalg.solve(x.T @ x + 0.1 * torch.eye(3).double(), x.T @ y).T}


def together(kept, seed):
    return {"weight": torch.stack([fitted(one, seed)["weight"] for one in kept])}


@pytest.fixture
def targets():
    net = nn.Linear(3, 1, bias=False).double()
    net.weight.data.copy_(fitted(torch.ones(12).bool(), 0)["weight"])
    model = explain.wrap(net, task="regression", train=(X, Y), weight_decay=0.2 / 12)
    return [model.example(row) for row in torch.randn(5, 3, generator=torch.Generator().manual_seed(2)).double()]


def test_outcomes_are_those_of_a_loop_by_hand(targets, monkeypatch):
    kept = subsets(12, 7, seed=3)
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(2)).double()
    expected = torch.stack([torch.stack([rows @ fitted(s, seed)["weight"][0] for s in kept]) for seed in range(2)])
    before = targets[0].module.weight.clone()
    assert torch.allclose(Retrainings(fitted, kept, seeds=2).outcomes(targets), expected)
    monkeypatch.setattr("explain.metrics.retraining.ASKED", 2)  # questions in shards of two
    found = Retrainings(together, kept, seeds=2, together=3).outcomes(targets)
    assert torch.allclose(found, expected)
    assert torch.equal(targets[0].module.weight, before)


def test_a_score_a_ceiling_and_leave_one_out(targets):
    kept, ones = subsets(12, 20), one_out(12)
    whys = Influence(seed=0).explain_all(targets)
    outcomes = Retrainings(fitted, kept, seeds=3).outcomes(targets)
    found = lds(whys, kept, outcomes, resamples=50)
    assert found.mean == pytest.approx(lds(whys, kept, outcomes.mean(0), resamples=1).mean)
    pairs = [(outcomes[a, :, j], outcomes[b, :, j]) for a in range(3) for b in range(a) for j in range(5)]
    assert found.agreement == pytest.approx(sum(spearmanr(*pair).statistic for pair in pairs) / len(pairs))
    assert found.ceiling == pytest.approx(math.sqrt(3 * found.agreement / (1 + 2 * found.agreement)))
    assert math.isnan(lds(whys, kept, outcomes[:1], resamples=1).ceiling)
    left = lds(whys, ones, Retrainings(fitted, ones).outcomes(targets), resamples=1)
    assert left.mean > 0.95  # one example is a small change


def test_a_recipe_is_a_training():
    """`Training.trained` gives the parameters by the names of the question."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    target = explain.wrap(net, task="regression", train=(X, Y)).example(X[0] + 1)
    recipe = Training(net, steps=5, lr=0.05)
    kept = subsets(12, 3)
    found = Retrainings(lambda one, seed: recipe.trained(target, weights=one.double()), kept).outcomes([target])
    expected = [target.measured(recipe.trained(target, weights=one.double())) for one in kept]
    assert torch.allclose(found[0, :, 0], torch.stack(expected).detach())


def test_it_goes_on_from_the_folder(targets, tmp_path):
    kept, calls = subsets(12, 6), []

    def counted(one, seed):
        if len(calls) == 4 and not (tmp_path / "go on").exists():
            raise KeyboardInterrupt
        calls.append(seed)
        return fitted(one, seed)

    fresh = Retrainings(fitted, kept).outcomes(targets)
    again = Retrainings(_Named(counted), kept, folder=tmp_path / "models")
    with pytest.raises(KeyboardInterrupt):
        again.outcomes(targets)
    (tmp_path / "go on").touch()
    assert torch.equal(Retrainings(_Named(counted), kept, folder=tmp_path / "models").outcomes(targets), fresh)
    assert len(calls) == 6 + 1  # and one to see that it is the same twice
    Retrainings(_Named(counted), kept, folder=tmp_path / "models").outcomes(targets[:2])
    assert len(calls) == 7  # other questions train nothing
    with pytest.raises(Stale, match="subsets"):
        Retrainings(_Named(counted), ~kept, folder=tmp_path / "models").outcomes(targets)


class _Named:
    """A training whose content is its name: what it counts is not part of it."""

    def __init__(self, function):
        self.function = function

    def __call__(self, kept, seed):
        return self.function(kept, seed)

    def __reduce__(self):
        return _Named, ("fitted",)


def test_what_is_refused(targets):
    kept = subsets(12, 3)
    drawn = torch.Generator().manual_seed(0)
    for train, error, said in (
        (lambda one, seed: {"weight": torch.randn(1, 3, generator=drawn)}, Unsupported, "end apart"),
        (lambda one, seed: {"weight": torch.full((1, 3), torch.nan)}, NonFinite, "subset 0 with seed 0 diverged"),
        (lambda one, seed: {"bias": torch.ones(1)}, ValueError, r"train must give weight \[1, 3\].* got nothing"),
        (lambda one, seed: {"weight": torch.ones(3, 1)}, ValueError, r"got \[3, 1\]"),
    ):
        with pytest.raises(error, match=said):
            Retrainings(train, kept).outcomes(targets)
    with pytest.raises(ValueError, match="a row each"):
        Retrainings(lambda some, seed: {"weight": torch.ones(1, 1, 3)}, kept, together=3).outcomes(targets)
    for wrong in (kept.double(), kept[0], torch.zeros(2, 12).bool()):
        with pytest.raises(ValueError, match="subsets must be bool"):
            Retrainings(fitted, wrong)
    with pytest.raises(ValueError, match="seeds must be a whole number"):
        Retrainings(fitted, kept, seeds=0)
    with pytest.raises(ValueError, match="keep must leave out"):
        subsets(12, 3, keep=1.0)
    with pytest.raises(ValueError, match="between 1 and all"):
        one_out(12, 13)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_says_the_same(targets, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    kept = subsets(12, 4)
    with in_threads() as client:
        found = Retrainings(fitted, kept, seeds=2, folder=tmp_path, client=client).outcomes(targets)
    assert torch.equal(found, Retrainings(fitted, kept, seeds=2).outcomes(targets))
