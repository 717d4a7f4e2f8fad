"""The linear datamodelling experiment, much reduced: settings, retraining all at once, methods and the table."""

from functools import partial

import pytest
import torch
from torch.func import functional_call

from explain.influence import GaussNewton
from explain.metrics import lds
from models.lds import experiment, methods, shares
from models.lds.retraining import Again, recorded
from models.lds.settings import DeepDenoiser, DigitsMLP, ReadyGCN, classifier, denoiser

SMALL = partial(classifier, "small", kind=DigitsMLP, size=40, batch=20, steps=15)


@pytest.mark.parametrize(
    "make", [SMALL, lambda: denoiser("small", DeepDenoiser, labelled=False, size=12, steps=6)], ids=["mlp", "denoiser"]
)
def test_all_at_once_is_one_by_one(make):
    """With weights 0 for those left out, by an ordinary loop."""
    setting = make()
    kept = torch.rand(3, setting.size, generator=torch.Generator().manual_seed(0)) < 0.5
    found = Again(setting)(torch.cat([kept, torch.ones_like(kept[:1])]), 0)
    net = setting.net(0)
    optimizer = setting.optimizer(net.parameters())
    schedule = setting.schedule(optimizer)
    for _, (at, drawn) in zip(range(setting.steps), setting.batches(0), strict=False):
        optimizer.zero_grad()
        (kept[1][at] * setting.losses(net, at, *drawn)).mean().backward()
        optimizer.step()
        schedule.step()
    whole, run = recorded(setting)
    assert len(run.steps) == setting.steps
    for name, p in net.named_parameters():
        torch.testing.assert_close(found[name][1], p.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[name][3], whole.state_dict()[name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(found[name][1], found[name][3])


def test_outcomes_are_what_the_networks_say(tmp_path):
    setting = SMALL()
    found = experiment.outcomes(setting, models=4, left_out=2, folder=tmp_path)
    assert {name: len(part.subsets) for name, part in found.items()} == {"half": 4, "95 %": 4, "one out": 2}
    assert found["95 %"].subsets.sum(1).tolist() == [38] * 4
    net = setting.net(1)
    params = Again(setting)(found["half"].subsets[:1], 1)
    said = [
        target.measured({name: value[0] for name, value in params.items()}).double() for target in setting.asked(net)
    ]
    assert torch.allclose(found["half"].numbers[1, 0], torch.stack(said), atol=1e-5)
    x = functional_call(net, {name: value[0] for name, value in params.items()}, (torch.zeros(1, 1, 8, 8),))
    assert x.shape == (1, 10)


def test_the_mean_eigenvalue():
    setting = SMALL(kind=lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
    A = GaussNewton(setting.asked(setting.net(0))[0].objective())
    assert methods.mean_eigenvalue(A) == pytest.approx(float(A.dense().trace()) / A.size, rel=0.2)


def test_the_experiment_reduced(tmp_path, monkeypatch):
    """That what follows the training foretells it best; how well takes full size."""
    few = {name: methods.METHODS[name] for name in ("through training", "gradient dot product")}
    monkeypatch.setattr(methods, "METHODS", few)
    monkeypatch.setattr(experiment, "lds", partial(lds, resamples=20))
    monkeypatch.setitem(experiment.SETTINGS, "small", SMALL)
    setting, rows = experiment.run("small", models=12, left_out=3, folder=tmp_path)
    assert rows[0].method == "through training"
    assert rows[0].same["95 %"].mean > 0.9
    assert rows[0].seeds.ceiling == pytest.approx(rows[1].seeds.ceiling)
    text = experiment.section(["small"], lambda name: (setting, rows))
    lines = text.splitlines()
    assert lines[0].startswith("| setting | method | half | 95 % | one out |")
    assert [line.split(" | ")[1] for line in lines[2:]] == [row.method for row in rows]
    assert str(rows[0].same["half"]) in lines[2]


@pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:the training is not smooth")
def test_first_order_carries_less_far_the_more_is_left_out():
    rows = shares.carried(SMALL(steps=30), (0.05, 0.5, 0.8), models=10)
    through = {row.dropped: row for row in rows if row.method == "through training"}
    assert len(rows) == 6
    assert through[0.05].r > 0.9
    assert through[0.05].r > through[0.8].r
    assert through[0.05].times == pytest.approx(1, abs=0.25)
    assert len(shares.table(rows).splitlines()) == 6


def test_how_far_amounts_fall_short():
    foretold = torch.randn(8, 3).double()
    assert shares._fit(foretold, 2 * foretold) == pytest.approx((1, 2))
    assert shares._fit(foretold, -foretold) == pytest.approx((-1, -1))


def test_the_graph_with_its_sums_ready_says_the_same():
    net, x = ReadyGCN(5, 3, smooth=True).double(), torch.randn(9, 5).double()
    edges = torch.tensor([[0, 1, 2, 3, 3, 8], [1, 2, 0, 4, 5, 8]])
    at = torch.tensor([1, 4, 7, 8])
    assert torch.allclose(net(*net.ready(x, edges, at)), net.eval()(x, edges)[at], atol=1e-12)
