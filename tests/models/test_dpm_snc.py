"""DPM-SNC on the ladder: what features say nothing of is found by denoising all labels together."""

from dataclasses import replace

import pytest
import torch

import explain
from models.dpm_snc import DPMSNC, LADDER, Recipe, cosine_betas, on_cora, on_ladder, sample, sinusoids
from models.ladder import ladder

SMALL = replace(LADDER, steps=400, warm=200, lr=0.003, decay=False, renewed=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    before = torch.get_rng_state()
    found = on_ladder(0, 30, SMALL, 20, folder=tmp_path_factory.mktemp("cache"), progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    return found


def test_the_ladder_is_solved_where_features_alone_are_at_chance(small):
    assert small.facts["one_run"] >= 0.9
    assert small.facts["test_accuracy"] >= 0.7  # runs with noise are harder after so little training
    assert small.facts["features_alone"] <= 0.65


def test_explained_it_runs_as_in_the_paper_and_hangs_on_labels_nearby(small):
    data, betas = ladder(30), cosine_betas(20)
    model = explain.wrap(small.module, data, betas=betas, time="step")
    assert model.assumed["prediction"].startswith("epsilon, of one-hot labels 0/1")
    known = torch.where(data.train_mask, data.y, -1)
    ends = sample(small.module, data, known, torch.Generator().manual_seed(0), betas, 2, 0.0).argmax(1)
    node = int((data.test_mask & (ends == data.y)).nonzero()[0])
    run = model.trajectory(node, draws=1, temperature=0.0, payoff="state")
    assert torch.equal(run.labels()[0], ends)
    why = explain.Occlusion("known_labels").explain(run)
    near = torch.isin(why.players.index, run.players("known_labels", hops=5).index)
    assert why.scores[near].abs().mean() > 1.5 * why.scores[~near].abs().mean()  # all are in the correction's length
    plain = model.trajectory(node, draws=1, temperature=0.0, payoff="state", constrained=False)
    alone = explain.Occlusion("known_labels").explain(plain)  # now heard along edges alone
    assert alone.scores.abs().sum() > 0.05
    assert alone.scores[near].abs().sum() >= 0.95 * alone.scores.abs().sum()
    assert why.scores[near].abs().sum() < 0.95 * why.scores.abs().sum()


def test_the_schedule_and_the_time_are_those_of_the_paper():
    kept = (1 - cosine_betas(80)).cumprod(0)
    t = torch.arange(1, 60).double()
    expected = (
        torch.cos(torch.pi / 2 * (t / 80 + 0.015) / 1.015).square()
        / torch.cos(torch.tensor(torch.pi / 2 * 0.015 / 1.015).double()).square()
    )
    torch.testing.assert_close(kept[:59], expected)
    assert 0.001 <= float(cosine_betas(80).min()) < float(cosine_betas(80).max()) == 0.999
    assert sinusoids(torch.tensor([0.0, 4.0])).shape == (2, 128)
    assert sinusoids(torch.tensor([0.0]))[0].tolist() == [0.0] * 64 + [1.0] * 64


def test_the_ladder():
    data = ladder(6, known=0.5, localized=True)
    assert data.train_mask.view(2, 6).tolist() == [[True] * 3 + [False] * 3] * 2
    assert bool((data.train_mask.int() + data.val_mask.int() + data.test_mask.int() == 1).all())
    degrees = torch.bincount(data.edge_index[1])
    assert sorted(degrees.tolist()) == [2] * 4 + [3] * 8
    with pytest.raises(ValueError, match="columns must be at least 2"):
        ladder(1)
    with pytest.raises(ValueError, match="known leave somebody"):
        ladder(5, known=1.0)


def test_copies_that_share_features_are_denoised_as_one_by_one():
    torch.manual_seed(0)
    net, data = DPMSNC(1, 2, hidden=4, layers=2).eval(), ladder(4)
    noised, t = torch.randn(3, 8, 2), torch.tensor([0, 3, 7])
    edges = torch.cat([data.edge_index + 8 * i for i in range(3)], 1)
    together = net(data.x.to_sparse(), noised.flatten(0, 1), t.repeat_interleave(8), edges).view(3, 8, 2)
    for own, time, expected in zip(noised, t, together, strict=True):
        torch.testing.assert_close(net(data.x, own, time[None], data.edge_index), expected)


def test_subgraphs_are_judged_beside_the_mean_field(tmp_path):
    few = Recipe(steps=20, warm=10, buffer=4, renewed=1, every=10, mean_field=10, times=2)
    facts = on_cora(0, ladder(6), few, 10, folder=tmp_path, progress=False).facts
    assert 0 <= facts["subgraph_accuracy"] <= facts["test_accuracy"] <= 1
    assert 0 <= facts["subgraph_alone"] <= facts["alone"] <= 1
