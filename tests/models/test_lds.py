"""The linear datamodelling experiment, much reduced: halves, retraining all at once, and the table."""

import pandas as pd
import pytest
import torch
from torch.func import functional_call

from models import lds, retrained
from models.retrained import Recipe, halves

SMALL = Recipe(images=24, subsets=16, seeds=1, hidden=6, iterations=150, lr=1e-2, draws=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("halves")


@pytest.fixture(scope="module")
def found(folder):
    return retrained.load_or_train(SMALL, folder=folder, progress=False)


def test_halves_are_halves():
    masks = halves(24, 200, torch.Generator().manual_seed(0))
    assert masks.shape == (200, 24)
    assert (masks.sum(1) == 12).all()
    assert ((masks.double().mean(0) - 0.5).abs() < 0.2).all()
    assert len(masks.unique(dim=0)) == 200


def test_all_at_once_is_one_by_one(found):
    """The model of one half, trained alone by an ordinary loop."""
    recipe, subset = Recipe(**{**vars(SMALL), "iterations": 20}), 3
    weights, _ = retrained.train(recipe, found.data, found.masks, 0, progress=False)
    model = retrained._untrained(recipe, 0)
    net = model.denoiser.net.float()
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.iterations)
    generator = torch.Generator().manual_seed(1000)
    inside = found.masks[subset]
    for _ in range(recipe.iterations):
        noise = torch.randn(found.data.images.shape, generator=generator)
        t = retrained._spread(24, 100, generator)
        x = model.process.noised(found.data.images, noise, t)[inside]
        optimizer.zero_grad()
        (net(x, t[inside], found.data.labels[inside]) - noise[inside]).square().mean().backward()
        optimizer.step()
        schedule.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(weights[name][subset], p.detach(), rtol=1e-3, atol=1e-4)


def test_training_learns_and_is_kept(found, folder):
    (facts,) = found.facts
    start = retrained._untrained(SMALL, 0)
    assert facts["loss_of_all"] < 0.9
    again = retrained.load_or_train(SMALL, folder=folder, progress=False)
    assert again.facts == found.facts
    one, whole = found.model(subset=2), found.model()
    x, t, label = found.data.images[:2], torch.tensor([10, 50]), found.data.labels[:2]
    alone = functional_call(start.denoiser.net.float(), {n: w[2] for n, w in found.weights[0].items()}, (x, t, label))
    torch.testing.assert_close(one.denoiser.net(x, t, label), alone)
    assert not torch.allclose(whole.denoiser.net(x, t, label), alone)


def test_the_experiment_reduced(found, folder, monkeypatch):
    """That the scores are those of the methods, chosen on other images than reported; which is best takes full size."""
    monkeypatch.setattr(lds, "DAMPINGS", (1e-3, 1e-2, 1e-1, 1.0))
    monkeypatch.setattr(lds, "FACTORS", (1.0, 10.0))
    experiment = lds.run(SMALL, images=6, folder=folder, progress=False)
    table, sweep = experiment.table(), experiment.sweep
    assert set(table.index) == set(lds.METHODS)
    assert table["LDS"].is_monotonic_decreasing
    assert (table["low"] <= table["LDS"]).all()
    assert (table["LDS"] <= table["high"]).all()
    assert table["below best"].iloc[0] == 0
    for row in experiment.rows:
        own = sweep[sweep["method"] == row.method]
        assert own.loc[own["chosen by"].idxmax(), "setting"] == row.setting
        assert len(row.reported.each) == 3
    best = {row.method: row.reported.mean for row in experiment.rows}
    assert best["influence, Gauss-Newton"] > 0.2
    assert pd.isna(experiment.agreement)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_the_scores_are_those_of_the_explainers(found):
    from explain import Influence

    model, train = found.model(), (found.data.images, found.data.labels)
    scores = lds.METHODS["influence, Gauss-Newton"](model, train, found, 2)["damping 0.1"]
    engine = Influence(train, solver="exact", curvature="ggn", damping=0.1, seed=0)
    for row, target in zip(scores, lds.asked(model, found, 2), strict=True):
        torch.testing.assert_close(row, engine.explain(target).scores, rtol=1e-4, atol=1e-7)


def test_the_ceiling():
    truth, noise = torch.randn(40, 6), torch.randn(3, 40, 6)
    agreement, ceiling = lds._reliability(truth + noise)
    assert 0 < agreement < ceiling < 1
    assert lds._reliability(truth.expand(3, 40, 6))[1] == pytest.approx(1)
