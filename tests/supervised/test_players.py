"""Players divide what they are made of, and what cannot matter gets nothing: for every size."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from explain.shapley import Shapley
from explain.supervised import SupervisedModel
from explain.supervised.players import owner_of, patches
from explain.types import Players

sizes = st.integers(1, 12)


@given(channels=st.integers(1, 3), height=sizes, width=sizes, data=st.data())
def test_patches_divide_the_picture(channels, height, width, data):
    size = data.draw(st.integers(1, max(height, width)))
    players = patches(torch.zeros(channels, height, width), size)
    labels = players.geometry["labels"]
    assert len(players) == math.ceil(height / size) * math.ceil(width / size)
    areas = torch.bincount(labels.flatten(), minlength=len(players))
    assert areas.min() >= 1
    assert areas.max() <= size**2
    for player, (row, column) in enumerate(players.index.tolist()):
        inside = labels[size * row : size * row + size, size * column : size * column + size]
        assert (inside == player).all()
        assert inside.numel() == areas[player]
    owner = owner_of(players, torch.Size([channels, height, width]))
    assert owner.shape == (channels, height, width)
    assert (owner == labels).all()


@given(groups=st.lists(st.integers(-1, 3), min_size=1, max_size=10))
def test_groups_own_what_they_say(groups):
    owner = torch.tensor(groups)
    owned = tuple((owner == player).nonzero().view(-1) for player in range(4))
    players = Players("groups", torch.arange(4), groups=owned)
    assert torch.equal(owner_of(players, owner.shape), owner)


@settings(max_examples=20, deadline=None)
@given(
    features=st.integers(2, 6),
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    payoff=st.sampled_from(["logit", "probability", "log_probability", "loss"]),
)
def test_efficiency_dummy_and_symmetry(features, rows, seed, payoff):
    torch.manual_seed(seed)
    weight = torch.randn(3, features, dtype=torch.float64)
    weight[:, 0] = 0  # the first feature never matters
    net = nn.Sequential(nn.Linear(features, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    net[0].weight.data = weight
    x, background = torch.randn(features).double(), torch.randn(rows, features).double()
    if features > 2:  # the last two are interchangeable
        weight[:, -1], x[-1], background[:, -1] = weight[:, -2], x[-2], background[:, -2]
    target = SupervisedModel(net, task="classification", background=background).example(x, label=1, payoff=payoff)
    why = Shapley("features", estimator="exact").explain(target)
    scale = max(float(why.scores.abs().max()), 1e-6)
    assert abs(float(why.scores.sum()) - (why.value - why.base)) <= 1e-9 * max(scale, abs(why.value))
    assert abs(float(why.scores[0])) <= 1e-9 * max(scale, abs(why.value))
    if features > 2:
        assert abs(float(why.scores[-1] - why.scores[-2])) <= 1e-9 * max(scale, abs(why.value))
