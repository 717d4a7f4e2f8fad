"""Named conditions as players: every coalition is the network asked with the nulls of those that are absent."""

import itertools

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

import explain
from explain import Shapley
from explain.diffusion.players import condition_players

NULL = {"text": torch.zeros(1, 3, 2), "style": 0, "size": torch.zeros(1, 2)}
GIVEN = {"text": torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(1)), "style": 2, "size": torch.ones(1, 2)}
X0 = torch.linspace(-1, 1, 16).view(1, 4, 4)


class Net(nn.Module):
    """Conditions that multiply each other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.styles, self.conv = nn.Embedding(4, 1), nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t, text, style, size):
        beside = text.sum((1, 2)).sin() * self.styles(style)[:, 0] + size.prod(1) * text[:, 0, 0] + size[:, 0]
        return self.conv(x).tanh() * (1 + beside.view(-1, 1, 1, 1)) + t.view(-1, 1, 1, 1) / 100


def model(net=None):
    scheduler = DDIMScheduler(50, clip_sample=False)
    return explain.wrap(net or Net().eval(), scheduler=scheduler, time="step", null=NULL, shape=(1, 4, 4))


def mixed(present):
    return {name: GIVEN[name] if here else NULL[name] for name, here in zip(GIVEN, present, strict=True)}


def payoff(x):
    return x[:, 0, :2].square().mean((1, 2))


def asked(made, condition, kind, guidance):
    if kind == "run":
        return made.trajectory(condition, steps=3, guidance=guidance, seed=1, draws=2, payoff=payoff)
    return made.step(X0, [5, 30], condition, guidance=guidance, draws=2, seed=1, payoff=kind)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["error", "evidence", "norm", "run"])
def test_every_coalition_is_the_network_with_the_nulls_of_the_absent(kind, guidance):
    made = model()
    target = asked(made, GIVEN, kind, guidance)
    players = target.players("conditions")
    assert players.names == tuple(GIVEN)
    masks = torch.tensor(list(itertools.product([False, True], repeat=3)))
    expected = torch.tensor([asked(made, mixed(mask), kind, guidance).value() for mask in masks.tolist()])
    torch.testing.assert_close(target.game(players)(masks).float(), expected, rtol=1e-5, atol=1e-6)
    why = Shapley("conditions").explain(target)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, abs=1e-6)


def test_conditions_need_names_and_nulls():
    with pytest.raises(ValueError, match="conditions play where there are several"):
        condition_players({"text": GIVEN["text"]}, {"text": NULL["text"]})
    partial = {"time": "step", "null": {"text": NULL["text"]}, "shape": (1, 4, 4)}
    step = explain.wrap(Net().eval(), scheduler=DDIMScheduler(50), **partial).step(X0, 5, GIVEN)
    with pytest.raises(ValueError, match="what stands for no style and no size"):
        step.players("conditions")
