"""Poisoned training images: exact answers of least squares, and frozen features under a logistic head on digits."""

from functools import cache

import pytest
import torch
from influence_cases import ObjectiveTarget, logistic, ridge, settled
from reference import influence as reference
from sklearn.datasets import load_digits
from torch import nn

import explain
from explain.influence import Attack, Box, Influence, Perturbation, attackability, poison, refit
from explain.influence.spectrum import Unsettled
from explain.types import NonFinite, Unsupported

WIDE = Box(grey=0.05, low=-10.0, high=10.0)


@cache
def threes_and_fives():
    """Images in whole levels of grey, a frozen random convolution, and the head trained on its features."""
    data, target = load_digits(return_X_y=True)
    chosen = (target == 3) | (target == 5)
    images = torch.tensor(data[chosen]).view(-1, 1, 8, 8) * 15 / 255  # 16 levels of 0 to 240
    y = torch.tensor(target[chosen] == 5).long()
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()).double().eval()
    with torch.no_grad():
        features = body(images)
    head = settled(nn.Linear(128, 1).double(), features[:60], y[:60], weight_decay=1e-3)
    return images, y, body, features, head


@cache
def uncertain():
    """The two test digits that the head is right about, but only just, as targets of the payoff "loss"."""
    _, y, _, features, head = threes_and_fives()
    with torch.no_grad():
        margin = head.module(features[60:])[:, 0] * (2 * y[60:] - 1)
    order = margin.where(margin > 0, torch.inf).argsort()[:2] + 60
    return [head.example(features[i], int(y[i]), payoff="loss") for i in order.tolist()]


def attack(**settings):
    return Attack(**{"features": threes_and_fives()[2], "engine": Influence(seed=0), **settings})


def test_every_step_goes_where_the_number_of_least_squares_rises():
    x, y, asked, model = ridge()
    found = poison(model.example(asked), [4, 9], Attack(step=0.05, iterations=3, box=WIDE))
    images, numbers = x.clone(), []
    for step in range(4):
        moving = images.clone().requires_grad_()
        number = (asked @ reference.ridge(moving, y, 0.1)).sum()
        numbers.append(float(number.detach()))
        if step < 3:
            number.backward()
            images[[4, 9]] += 0.05 * 0.05 * moving.grad[[4, 9]].sign()
    assert found.images.numpy() == pytest.approx(images[[4, 9]].numpy())
    assert found.numbers[:, 0].tolist() == pytest.approx(numbers, rel=1e-8)
    assert found.params["weight"].T.numpy() == pytest.approx(reference.ridge(images, y, 0.1).numpy(), rel=1e-6)
    assert found.predicted is None
    assert found.pixel_distance.equal(found.feature_distance)
    with pytest.raises(ValueError, match="predicts no classes"):
        found.flipped  # noqa: B018 - asking for it is the test


def test_attackability_of_least_squares_is_exact():
    x, y, asked, model = ridge()
    moving = x.clone().requires_grad_()
    (asked @ reference.ridge(moving, y, 0.1)).sum().backward()
    found = attackability(model.example(asked), Attack(box=WIDE))
    assert found.numpy() == pytest.approx(0.05 * 0.499 * moving.grad.abs().sum(1).numpy())
    one = Perturbation(3, engine=Influence(seed=0)).explain(model.example(asked)).scores.abs().sum()
    assert float(found[3]) == pytest.approx(0.05 * 0.499 * float(one))


@cache
def attacked():
    images, _, _, _, _ = threes_and_fives()
    target = uncertain()[0]
    best = attackability(target, attack(), images[:60]).argsort(descending=True)[:3]
    return best, poison(target, best, attack(step=0.05, iterations=12), images[best])


def test_unseen_changes_raise_the_loss_of_a_digit_that_was_right():
    best, found = attacked()
    assert (found.numbers[1:, 0] > found.numbers[:-1, 0]).all()
    assert (found.greys <= 0.5).all()
    assert found.greys[-1] == pytest.approx(0.499, abs=1e-9)
    assert not found.flipped.any()
    assert found.checks["same_when_saved"] is True
    assert ((found.images * 255).round() == (found.original * 255).round()).all()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.pixel_distance.shape == found.feature_distance.shape == (len(found.numbers), 3)
    assert not found.pixel_distance[0].any()
    assert (found.pixel_distance[1:] > 0).all()
    assert found.outputs.shape == (len(found.numbers), 1, 1)
    assert found.examples.equal(best)
    assert found.checks["residual"] < 1e-8


def test_the_parameters_are_those_trained_on_the_poisoned_images():
    _, y, body, features, _ = threes_and_fives()
    best, found = attacked()
    seen = features[:60].clone()
    with torch.no_grad():
        seen[best] = body(found.images)
    again = settled(nn.Linear(128, 1).double(), seen, y[:60], weight_decay=1e-3).module
    assert found.params["weight"].numpy() == pytest.approx(again.weight.detach().numpy(), abs=1e-6)
    away = (seen[best] - features[best]).norm(dim=1)
    assert found.feature_distance[-1].numpy() == pytest.approx(away.numpy())


def test_the_first_step_gains_what_attackability_predicts():
    images, _, _, _, _ = threes_and_fives()
    target, chosen = uncertain()[0], [3]
    free = Box(low=-1.0, high=2.0, radius=1e-3)
    tiny = attack(step=1e-3, iterations=1, box=free)
    promised = attackability(target, tiny, images[:60])[3]
    found = poison(target, chosen, tiny, images[chosen])
    assert float(found.numbers[1] - found.numbers[0]) == pytest.approx(float(promised), rel=0.02)  # of 3e-7


def test_two_digits_attacked_together():
    images, _, _, _, _ = threes_and_fives()
    targets = uncertain()
    both = attackability(targets, attack(), images[:60])
    best = both.argmax()
    found = poison(targets, best, attack(step=0.2, iterations=4), images[best][None])
    assert found.numbers.shape[1] == 2
    assert found.numbers[-1].sum() > found.numbers[0].sum()
    assert found.flipped.shape == (2,)


def test_it_stops_once_the_prediction_has_flipped():
    images, _, _, _, _ = threes_and_fives()
    coarse = attack(step=0.25, iterations=20, box=Box(grey=0.5))
    everyone = list(range(0, 60, 2))
    found = poison(uncertain()[0], everyone, coarse, images[everyone])
    assert found.flipped.all()
    assert len(found.numbers) < 21
    assert found.predicted[-2] == found.predicted[0]
    assert found.checks["same_when_saved"] is None  # 15/255 is no whole number of levels of 0.5


def test_a_user_s_own_training():
    x, _, asked, model = ridge()
    seen = []

    def retrain(objective):
        seen.append(objective.inputs[2].clone())
        return refit(objective)

    found = poison(model.example(asked), 2, Attack(step=0.1, iterations=2, box=WIDE, retrain=retrain))
    assert len(seen) == 2
    assert seen[-1].equal(found.images[0])
    assert not seen[0].equal(x[2])


def test_the_model_and_its_training_set_are_left_alone():
    images, _, body, features, head = threes_and_fives()
    before = {k: v.clone() for k, v in head.module.state_dict().items()}
    kept, shown = features.clone(), images.clone()
    attacked()
    assert all(v.equal(before[k]) for k, v in head.module.state_dict().items())
    assert features.equal(kept)
    assert images.equal(shown)
    assert all(p.grad is None for p in body.parameters())


@pytest.mark.parametrize(
    ("kind", "settings", "error"),
    [
        (Box, {"radius": 0.6}, ValueError),
        (Box, {"radius": 0.0}, ValueError),
        (Box, {"grey": 0.0}, ValueError),
        (Box, {"low": 1.0}, ValueError),
        (Attack, {"step": 0.0}, ValueError),
        (Attack, {"iterations": 0}, ValueError),
        (Attack, {"engine": "cg"}, TypeError),
    ],
)
def test_settings_are_checked_when_built(kind, settings, error):
    with pytest.raises(error):
        kind(**settings)


def test_bad_input():
    images = threes_and_fives()[0]
    target = uncertain()[0]
    with pytest.raises(ValueError, match="no target"):
        poison([], 0)
    with pytest.raises(TypeError, match="targets must be"):
        poison([3], 0)
    with pytest.raises(ValueError, match="of one model"):
        poison([target, ridge()[3].example(ridge()[2])], 0)
    with pytest.raises(IndexError, match="from 0 to 59"):
        poison(target, 60, attack(), images[:1])
    with pytest.raises(ValueError, match="belong together"):
        poison(target, 0, attack())
    with pytest.raises(ValueError, match="belong together"):
        poison(target, 0, Attack(), images[:1])
    with pytest.raises(ValueError, match="as many images"):
        poison(target, [0, 1], attack(), images[:1])
    with pytest.raises(ValueError, match="what the model was trained on"):
        poison(target, 0, attack(), images[5:6])
    with pytest.raises(ValueError, match=r"the images must be from 0\.5 to 1\.0"):
        poison(target, 0, attack(box=Box(low=0.5)), images[:1])
    with pytest.raises(Unsupported, match="inputs of their own"):
        poison(ObjectiveTarget(logistic()), 0)
    spoilt = attack(iterations=1, retrain=lambda objective: {k: v * torch.nan for k, v in objective.params.items()})
    with pytest.raises(NonFinite, match="after training"):
        poison(target, 0, spoilt, images[:1])


def test_training_again_that_does_not_settle_is_an_error():
    objective = ridge()[3].example(ridge()[2]).objective()
    far = {k: v + 100 for k, v in objective.params.items()}
    with pytest.raises(Unsettled, match="did not reach a minimum"):
        refit(objective.at({k: v * torch.nan for k, v in far.items()}))
    assert refit(objective.at(far))["weight"].numpy() == pytest.approx(objective.params["weight"].numpy(), rel=1e-6)


def test_it_stops_where_no_pixel_has_room_left():
    _, _, asked, model = ridge()
    found = poison(model.example(asked), 7, Attack(step=0.2, iterations=50, box=WIDE))
    assert len(found.numbers) == 4  # the way of 0.499 is done in three steps
    assert found.greys.tolist() == pytest.approx([0, 0.2, 0.4, 0.499])


def test_single_precision_is_warned_about():
    images, y, body, features, _ = threes_and_fives()
    head = settled(nn.Linear(128, 1), features[:60].float(), y[:60], weight_decay=1e-3)
    target = head.example(features[60].float(), payoff="loss", label=int(y[60]))
    single = attack(features=body.float(), iterations=4, step=0.1)
    try:
        with pytest.warns(UserWarning, match=r"lost in its rounding. Use model.double"):
            found = poison(target, list(range(20)), single, images[:20].float())
    finally:
        body.double()
    assert found.checks["dtype"] == "float32"
    assert found.numbers[-1] > found.numbers[0]
    assert found.checks["same_when_saved"] is True


def test_a_probability_is_flipped_at_a_half():
    """A single output that is a probability is above zero whatever it predicts."""
    images, y, _, features, head = threes_and_fives()
    net = nn.Sequential(head.module, nn.Sigmoid())
    said = explain.wrap(net, task="classification", train=(features[:60], y[:60]), weight_decay=1e-3)
    target = said.example(features[60], int(y[60]), payoff="loss")
    found = poison(target, [0], attack(step=0.25, iterations=1), images[[0]])
    assert found.predicted[0, 0] == int(found.outputs[0, 0, 0] > 0.5)
    assert {int(net(x[None]) > 0.5) for x in features} == {0, 1}
    no = next(i for i in range(60, len(features)) if net(features[i][None]) < 0.5)
    found = poison(
        said.example(features[no], int(y[no]), payoff="loss"), [0], attack(step=0.25, iterations=1), images[[0]]
    )
    assert found.predicted[0, 0] == 0
