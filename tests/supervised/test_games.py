"""A coalition's value is what the module says about the filled example, written out one coalition at a time."""

import itertools

import pytest
import torch
from reference.shapley import by_pairs, of_masks
from torch import nn

from explain.supervised import Background, Conditional, Reference, SupervisedModel
from explain.types import Players


@pytest.fixture(name="table")
def table_of_six():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double().eval()
    rows = torch.randn(20, 6, dtype=torch.float64)
    return net, rows, torch.randn(6, dtype=torch.float64)


def every_mask(players):
    return torch.tensor(list(itertools.product([False, True], repeat=players)))


@pytest.mark.parametrize("baseline", ["zeros", "mean", "tensor"])
def test_one_reference_by_hand(table, baseline):
    net, rows, x = table
    reference = {"zeros": torch.zeros(6), "mean": rows.mean(0), "tensor": rows[3]}[baseline]
    asked = rows[3] if baseline == "tensor" else baseline
    target = SupervisedModel(net, task="classification", background=rows).example(x, label=1, baseline=asked)
    masks = every_mask(6)
    by_hand = torch.stack([net(torch.where(mask, x, reference.double()))[1] for mask in masks])
    torch.testing.assert_close(target.game("features")(masks), by_hand.detach(), rtol=1e-12, atol=1e-12)


def test_a_background_is_averaged_by_hand(table):
    net, rows, x = table
    target = SupervisedModel(net, task="classification").example(x, label=0, payoff="probability", baseline=rows)
    game, masks = target.game("features"), every_mask(6)
    by_hand = torch.stack(
        [torch.stack([net(torch.where(mask, x, row)).softmax(0)[0] for row in rows]).mean() for mask in masks]
    )
    torch.testing.assert_close(game(masks), by_hand.detach(), rtol=1e-12, atol=1e-12)
    assert game.checks["background"] == 20
    assert "interventional" in game.checks["value_function"]


def test_a_background_is_the_default_where_there_is_one(table):
    net, rows, x = table
    with_rows = SupervisedModel(net, task="classification", background=rows).example(x)
    assert isinstance(with_rows.baseline, Background)
    without = SupervisedModel(net, task="classification").example(x)
    assert isinstance(without.baseline, Reference)
    assert without.describe()["baseline"] == "zeros"


@pytest.mark.parametrize("batch_size", [1, 7, 100, None])
def test_batch_size_never_changes_a_value(table, batch_size):
    net, rows, x = table
    model = SupervisedModel(net, task="classification", background=rows, batch_size=batch_size)
    expected = SupervisedModel(net, task="classification", background=rows).example(x).game("features")
    masks = every_mask(6)
    torch.testing.assert_close(model.example(x).game("features")(masks), expected(masks), rtol=1e-12, atol=1e-12)


def test_shapley_of_groups_is_that_of_the_enumeration(table):
    net, rows, x = table
    groups = (torch.tensor([0, 3]), torch.tensor([1]), torch.tensor([2, 5]))  # feature 4 has no owner: always present
    players = Players("features", torch.arange(3), ("a", "b", "c"), groups)
    game = SupervisedModel(net, task="classification").example(x, label=2, baseline=rows[0]).game(players)

    def value(coalition):
        keep = [4] + [int(atom) for player in coalition for atom in groups[player]]
        filled = rows[0].clone()
        filled[keep] = x[keep]
        return net(filled)[2].item()

    masks = every_mask(3)
    torch.testing.assert_close(by_pairs(of_masks(game, 3), 3), by_pairs(value, 3), rtol=1e-10, atol=1e-12)
    assert float(game(masks[-1:])) == pytest.approx(net(x)[2].item())


def test_patches_of_an_image_by_hand():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 3 * 5, 4)).eval()
    x = torch.rand(2, 5, 7)
    target = SupervisedModel(net, task="classification").example(x, baseline="zeros")
    players = target.players("patches", size=3)  # rows of 3, 2 pixels; columns of 3, 3, 1
    assert len(players) == 6
    assert players.index.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert torch.bincount(players.geometry["labels"].flatten()).tolist() == [9, 9, 3, 6, 6, 2]
    masks = every_mask(6)
    by_hand = []
    for mask in masks:
        image = torch.zeros(2, 5, 7)
        for (row, column), keep in zip(players.index.tolist(), mask.tolist(), strict=True):
            place = (slice(None), slice(3 * row, 3 * row + 3), slice(3 * column, 3 * column + 3))
            if keep:
                image[place] = x[place]
        by_hand.append(net(image[None])[0, target.label])
    values = target.game(players)(masks)
    torch.testing.assert_close(values, torch.stack(by_hand).detach().double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_superpixels_follow_the_picture(channels):
    x = torch.zeros(channels, 16, 16)
    x[:, :, 6:] = 1
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, 2))
    target = SupervisedModel(net, task="classification").example(x)
    players = target.players("superpixels", segments=8)
    labels = players.geometry["labels"]
    assert len(players) == int(labels.max()) + 1 >= 2
    for player in range(len(players)):
        assert len(x[0][labels == player].unique()) == 1
    assert target.game(players).ends()[1] == pytest.approx(target.value(), rel=1e-6)


def test_pixels_may_be_grouped_by_position():
    x = torch.rand(3, 2, 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    target = SupervisedModel(net, task="classification").example(x, label=0)
    corners = Players("pixels", torch.arange(4))
    values = target.game(corners)(torch.eye(4).bool())
    by_hand = (net[1].weight[0].view(3, 4) * x.view(3, 4)).sum(0)
    torch.testing.assert_close(values, by_hand.detach().double(), rtol=1e-5, atol=1e-6)


def test_features_take_their_names(table):
    net, _, x = table
    model = SupervisedModel(net, task="classification", feature_names=list("abcdef"))
    assert model.example(x).players("features").names == tuple("abcdef")


@pytest.mark.parametrize("baseline", ["zeros", "mean", "background", "conditional"])
def test_the_gradient_question_is_the_same_number(table, baseline):
    net, rows, x = table
    target = SupervisedModel(net, task="classification", background=rows).example(x, label=1, baseline=baseline)
    if baseline in ("background", "conditional"):
        with pytest.warns(UserWarning, match="the mean stands for"):
            inputs, start, f, owner, *_ = target.differentiable("features")
    else:
        inputs, start, f, owner, *_ = target.differentiable("features")
    assert owner.tolist() == [0, 1, 2, 3, 4, 5]
    assert f(inputs).item() == pytest.approx(target.value())
    torch.testing.assert_close(start[0], torch.zeros_like(x) if baseline == "zeros" else rows.mean(0))
    moved = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(moved).sum(), moved)
    (by_hand,) = torch.autograd.grad(net(moved)[0, 1], moved)
    torch.testing.assert_close(slope, by_hand)


def test_what_was_asked_is_plain_json(table):
    import json

    net, rows, x = table
    target = SupervisedModel(net, task="classification").example(x, payoff=lambda out: out[:, 0], baseline=rows)
    asked = target.describe()
    assert json.loads(json.dumps(asked)) == asked
    assert (asked["family"], asked["removal"]) == ("supervised", "interventional")


def test_one_conditional_can_be_made_by_hand(table):
    net, rows, x = table
    made = Conditional(rows, samples=64, seed=3)
    target = SupervisedModel(net, task="classification").example(x, baseline=made)
    assert target.game("features").checks["conditional_samples"] == 64
