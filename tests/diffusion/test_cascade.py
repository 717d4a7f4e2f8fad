"""Cascades: every coalition beside two sampling loops written by hand, and what cannot be chained."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional as F

import explain
from explain.diffusion.cascade import Cascade
from explain.shapley import Shapley
from explain.types import Unsupported

NOISE = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.labels = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(4, 1)

    def forward(self, x, t, label):
        return (self.layer(x) + self.labels(label)[..., None, None] + t.view(-1, 1, 1, 1) / 100).tanh()


class Large(Small):
    def forward(self, x, t, label, low):
        return (super().forward(x, t, label) + 0.5 * low).tanh()


def widened(samples):
    """Upsampled, with its conditioning augmentation drawn once."""
    return F.interpolate(samples, scale_factor=2, mode="nearest") + 0.1 * NOISE


def middle(samples):
    return samples[:, :, 2:5, 2:5].mean((1, 2, 3))


def parts(**second):
    torch.manual_seed(0)
    nets = Small().eval(), Large().eval()
    scheduler = DDIMScheduler(100, clip_sample=False)
    low = torch.zeros(1, 1, 8, 8)
    small = explain.wrap(nets[0], scheduler=scheduler, time="step", null=3, shape=(1, 4, 4))
    null = {"label": torch.tensor([3]), "low": low}
    large = explain.wrap(nets[1], scheduler=scheduler, time="step", null=null, shape=(1, 8, 8))
    first = small.trajectory(1, payoff=middle, steps=2, guidance=2.0, draws=2)
    asked = {"payoff": middle, "steps": 3, "guidance": 3.0, "seed": 7, "draws": 2} | second
    return nets, first, large.trajectory({"label": torch.tensor([1]), "low": low}, **asked)


@torch.no_grad()
def loop(net, x, weights, *low):
    """DDIM with the classifier-free guidance of each step."""
    scheduler = DDIMScheduler(100, clip_sample=False)
    scheduler.set_timesteps(len(weights))
    for t, w in zip(scheduler.timesteps, weights, strict=True):
        c, u = (net(x, t.expand(len(x)), torch.full((len(x),), label), *low) for label in (1, 3))
        x = scheduler.step(u + w * (c - u), t, x).prev_sample
    return x


def by_hand(nets, starts, *weights):
    sample = loop(nets[0], starts[0], weights[0])
    return float(middle(loop(nets[1], starts[1], weights[1], widened(sample))).mean())


def test_every_coalition_runs_both_stages():
    nets, first, last = parts()
    cascade, starts = Cascade([first, last], into="low", prepare=widened), (first.start, last.start)
    assert cascade.value() == pytest.approx(by_hand(nets, starts, [2, 2], [3, 3, 3]), rel=1e-5)
    stages = cascade.game("stages")(torch.tensor([[True, False], [False, True]]))
    expected = [by_hand(nets, starts, [2, 2], [0, 0, 0]), by_hand(nets, starts, [0, 0], [3, 3, 3])]
    assert stages.tolist() == pytest.approx(expected, rel=1e-5)
    steps = cascade.game("steps")(torch.tensor([[True, False, False, True, False]]))
    assert float(steps) == pytest.approx(by_hand(nets, starts, [2, 0], [0, 3, 0]), rel=1e-5)
    guidance = cascade.game("guidance")(torch.tensor([[True, False, False, True, False]]))
    assert float(guidance) == pytest.approx(by_hand(nets, starts, [2, 1], [1, 3, 1]), rel=1e-5)
    noise = cascade.game("noise")(torch.tensor([[True, False]]))
    starts = (first.start, last.other_start)
    assert float(noise) == pytest.approx(by_hand(nets, starts, [2, 2], [3, 3, 3]), rel=1e-5)


def test_credit_adds_up_and_is_named_by_stage():
    _, first, last = parts()
    cascade = Cascade([first, last], into="low", prepare=widened)
    why = Shapley("steps").explain(cascade)
    assert why.checks["efficiency_gap"] < 1e-9
    assert why.players.names[:3] == ("1: t=50", "1: t=0", "2: t=66")
    assert [len(one) for one in cascade.pictures()] == [2, 2]
    assert cascade.describe()["stages"][1]["steps"] == 3


def test_what_is_assumed_of_a_stage_stands_in_the_answer():
    net, _, last = parts(draws=1)
    betas = torch.linspace(1e-4, 0.02, 100)
    first = explain.wrap(net[0], betas=betas, time="step", null=3, shape=(1, 4, 4)).trajectory(
        1, payoff=middle, steps=2
    )
    assumed = Cascade([first, last], into="low", prepare=widened).describe()["assumed"]
    assert assumed["stage 1: prediction_type"].startswith("epsilon")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda first, last: Cascade([last], into="low"), "at least two"),
        (lambda first, last: Cascade([first, last], into="low_res", prepare=widened), "label="),
        (lambda first, last: Cascade([first, last], into="low", prepare=lambda x: x[:1]), "one row"),
        (
            lambda first, last: Cascade([first, last], into="low", prepare=lambda x: x + torch.randn_like(x)),
            "second call",
        ),
        (lambda first, last: Cascade([first, last], into="low", prepare=lambda x: x - x.mean()), "unlike alone"),
        (lambda first, last: Cascade([first, parts(draws=1)[2]], into="low", prepare=widened), "same draws"),
    ],
)
def test_what_cannot_be_chained_is_refused(make, words):
    _, first, last = parts()
    with pytest.raises(ValueError, match=words):
        make(first, last)


def test_players_of_a_picture_are_refused():
    _, first, last = parts()
    with pytest.raises(ValueError, match="stages, noise"):
        Shapley("patches").explain(Cascade([first, last], into="low", prepare=widened))
    with pytest.raises(Unsupported):
        Cascade([first, last], into="low", prepare=widened).differentiable("stages")
