"""The trained loss that families hand over."""

import pytest
import torch
import torch.nn.functional as F
from influence_cases import digits, half_trained, module_objective
from torch import nn

from explain.training import TrainingObjective, example_loss, trainable
from explain.types import Objective, Players


def test_frozen_parameters_are_left_out_and_tied_ones_counted_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    net[1].weight = net[0].weight
    net[2].bias.requires_grad_(False)
    params = trainable(net)
    assert list(params) == ["0.weight", "0.bias", "1.bias", "2.weight"]
    assert not any(p.requires_grad for p in params.values())


def test_a_frozen_model_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"requires_grad_\(True\)"):
        trainable(nn.Linear(2, 2).requires_grad_(False))


def test_a_tied_parameter_moves_everywhere_at_once():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    objective = module_objective(net, torch.eye(3), torch.tensor([0, 1, 2]), asked=torch.ones(1, 3))
    moved = {"0.weight": torch.eye(3) * 2}
    assert objective.outputs(moved, torch.arange(3)).allclose(torch.eye(3) * 4)


def test_the_usual_losses():
    outputs, classes = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    assert example_loss(outputs, classes).allclose(F.cross_entropy(outputs, classes, reduction="none"))
    bits = torch.tensor([0, 1, 1, 0, 1])
    expected = F.binary_cross_entropy_with_logits(outputs[:, 0], bits.float(), reduction="none")
    assert example_loss(outputs[:, :1], bits).allclose(expected)
    assert example_loss(outputs, torch.zeros(5, 3)).allclose(outputs.square().mean(1))
    assert example_loss(outputs[:, :1], torch.ones(5)).allclose((outputs[:, 0] - 1).square())


def test_taking_an_example_away_keeps_n_and_leaves_the_original():
    objective = half_trained()
    everyone = torch.arange(objective.size)
    before = objective.train_loss(objective.params, everyone)
    without = objective.edited(3).edited(7)
    after = without.train_loss(objective.params, everyone)
    expected = before.clone()
    expected[[3, 7]] = 0
    assert after.equal(expected)
    assert without.size == objective.size
    assert objective.train_loss(objective.params, everyone).equal(before)
    with pytest.raises(IndexError, match="from 0 to 29"):
        objective.edited(30)


def test_batches_cover_every_example_once():
    objective = half_trained()
    assert torch.cat(list(objective.batches(7))).equal(torch.arange(30))
    shuffled = torch.cat(list(objective.batches(7, torch.Generator().manual_seed(0))))
    assert not shuffled.equal(torch.arange(30))
    assert shuffled.sort().values.equal(torch.arange(30))


def test_it_is_an_objective():
    found: Objective = half_trained()
    assert found.size == 30
    assert found.measurement(found.params).shape == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(3)}, "need as many labels"),
        ({"weights": torch.ones(3)}, "need as many weights"),
        ({"players": Players("train", torch.arange(0)), "labels": torch.zeros(0)}, "no training examples"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_settings(change, message):
    settings = {
        "params": {"w": torch.zeros(1)},
        "players": Players("train", torch.arange(2)),
        "predict": lambda p, at: p["w"].expand(len(at), 1),
        "labels": torch.zeros(2),
        "number": lambda p: p["w"].sum(),
    }
    with pytest.raises(ValueError, match=message):
        TrainingObjective(**{**settings, **change})


def test_a_loss_that_was_reduced_is_refused():
    x, y, others, _ = digits(10)
    net = nn.Linear(16, 4).double()
    objective = module_objective(net, x, y, asked=others[:1], loss_of=F.cross_entropy)
    with pytest.raises(ValueError, match=r"one number an example.*reduction=.none."):
        objective.train_loss(objective.params, torch.arange(10))


def test_a_measurement_of_many_numbers_is_refused():
    objective = TrainingObjective(
        {"w": torch.zeros(2)},
        Players("train", torch.arange(1)),
        lambda p, at: p["w"].expand(len(at), 2),
        torch.zeros(1, 2),
        lambda p: p["w"],
    )
    with pytest.raises(ValueError, match="must be one number"):
        objective.measurement(objective.params)
