"""Influence through trainings of more kinds of networks and with more settings, against whole retrainings."""

import copy

import pytest
import torch
from reference.training import descend, retrained, slopes
from through_cases import close, differences, graphs, pictures, recorded_run, table
from torch.nn.functional import cross_entropy

import explain
from explain import Influence, Training
from explain.influence.through import recording

RECIPES = {
    "graphs": (graphs, {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.05, "batch_size": 3}),
    "pictures": (pictures, {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.05, "clip": 0.5, "batch_size": 4}),
}


def halved(t: int) -> float:
    """Half the rate from the fifth step on."""
    return 1.0 if t < 4 else 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_with_a_schedule_of_ones_own(name):
    """AdamW, batches, warm-up, a rate that is a function of the step, and its decay off the parameters."""
    make, settings = RECIPES[name]
    case = make()
    recipe = Training(case.net, steps=9, **settings, schedule=halved, warmup=2, seed=3)
    net = copy.deepcopy(case.net).eval()
    target = case.asked(net)
    recipe.fit(target)
    why = Influence(through=recipe, seed=0).explain(target)

    def train(net, weights):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 3) * halved(t))
        generator, batches = torch.Generator().manual_seed(3), []
        while len(batches) < 9:
            batches += torch.randperm(case.size, generator=generator).split(settings["batch_size"])
        descend(
            net.eval(),
            optimizer,
            batches[:9],
            case.losses,
            weights,
            clip=settings.get("clip"),
            schedule=schedule,
        )

    whole = retrained(case.net, train, torch.ones(case.size).double())
    assert why.value == pytest.approx(case.number(whole), abs=1e-12)
    expected = slopes(lambda weights: case.number(retrained(case.net, train, weights)), case.size)
    assert close(why.scores, expected)
    assert float(expected.abs().max()) > 1e-3


@pytest.mark.parametrize("make", ["adam", "adamw"])
def test_clipping_with_a_schedule(make):
    """Gradients near and beyond the norm, with few states kept."""
    case = table()
    batches = case.batches(20, 5)
    options = {"clip": 0.4, "schedule": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 6, 0.5)}
    net, run = recorded_run(case, make, batches, **options)
    why = Influence(through=run, seed=0).explain(case.asked(net))
    assert close(why.scores, differences(case, make, batches, **options))


def test_a_weight_that_stands_at_two_places(monkeypatch):
    """Tied layers, followed through every state and through few."""
    case = table(dropout=0.2)
    torch.manual_seed(0)
    first, last = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    last.weight = first.weight
    tied = case._replace(net=torch.nn.Sequential(first, torch.nn.Tanh(), torch.nn.Dropout(0.2), last).double())
    batches = tied.batches(16, 5)
    monkeypatch.setattr(recording, "MEMORY", 0)
    net, run = recorded_run(tied, "momentum", batches)
    why = Influence(through=run, seed=0).explain(tied.asked(net))
    assert why.checks["states_kept"] == 4
    assert why.checks["parameters"] == 9 + 3 + 3
    assert close(why.scores, differences(tied, "momentum", batches))
    assert net[0].weight is net[3].weight
    assert all(isinstance(p, torch.nn.Parameter) for p in net[3]._parameters.values())


def test_parameters_are_back_after_an_error():
    """Of a loss that fails when it is taken again."""
    case, calls = table(dropout=0.0), []
    net = copy.deepcopy(case.net)
    own = dict(net.named_parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def losses(at):
        calls.append(at)
        if len(calls) > 2:
            raise RuntimeError("the data is gone")
        return case.losses(net, at)

    with explain.recorded(optimizer, net) as run:
        for at in case.batches(2, 4):
            optimizer.zero_grad()
            run.loss(at, losses).backward()
            optimizer.step()
    with pytest.raises(RuntimeError, match="the data is gone"):
        Influence(through=run, seed=0).explain(case.asked(net))
    assert all(p is own[name] for name, p in net.named_parameters())


def test_rounding_is_named_where_losses_are_as_recorded():
    """A run in float32 that ends elsewhere by less than its losses show."""
    case = table(dropout=0.0)
    small = case._replace(net=case.net.float(), train=(case.train[0].float(), case.train[1]))
    x, y = small.train
    net = copy.deepcopy(small.net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with explain.recorded(optimizer, net) as run:
        for at in case.batches(3, 4):
            optimizer.zero_grad()
            run.loss(at, lambda at: cross_entropy(net(x[at]), y[at], reduction="none")).backward()
            optimizer.step()
    with torch.no_grad():
        net[0].weight[0, 0] += 1e-5
    run.end = {name: p.detach().clone() for name, p in net.named_parameters()}
    target = explain.wrap(net.eval(), task="classification", train=small.train).example(x[0], label=0)
    with pytest.raises(explain.Unsupported, match=r"elsewhere, by up to 1e-05 \(each loss is as recorded, .*float32"):
        Influence(through=run, seed=0).explain(target)
