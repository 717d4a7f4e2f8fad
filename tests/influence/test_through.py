"""Influence through a recipe and through recorded loops: against central differences of whole retrainings."""

import copy

import numpy as np
import pytest
import torch
from reference.training import descend, retrained, slopes
from through_cases import CASES, OPTIMIZERS, close, denoiser, differences, nodes, recorded_run, table
from torch.nn.functional import cross_entropy

import explain
from explain import Influence, NonFinite, Training, Unsupported
from explain.influence.through import backwards, recording
from explain.influence.through.proof import Proof


@pytest.mark.parametrize(
    ("name", "make", "steps", "count"),
    [
        *(("table", make, 15, 5) for make in OPTIMIZERS),
        ("nodes", "adam", 6, None),
        ("graphs", "momentum", 6, 4),
        *(("pictures", make, 10, 4) for make in ("momentum", "adamw")),
        *(("denoiser", make, 7, 4) for make in ("momentum", "adamw")),
    ],
)
def test_a_recorded_loop_is_its_retrainings(name, make, steps, count):
    case = CASES[name]()
    batches = case.batches(steps, count)
    net, run = recorded_run(case, make, batches)
    why = Influence(through=run, train=case.train, seed=0).explain(case.asked(net))
    expected = differences(case, make, batches)
    assert close(why.scores, expected)
    assert float(expected.abs().max()) > 1e-3
    assert why.checks["replay_gap"] <= 1e-12
    assert torch.allclose(why.parts["steps"].sum(0), why.scores)
    assert why.value == pytest.approx(case.number(net))


def test_schedules_and_clipping_are_followed():
    case = table()
    batches = case.batches(12, 5)
    options = {"clip": 0.3, "schedule": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)}
    net, run = recorded_run(case, "momentum", batches, **options)
    rates = [step.updates[0].lr for step in run.steps]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 12
    why = Influence(through=run, seed=0).explain(case.asked(net))
    assert close(why.scores, differences(case, "momentum", batches, **options))


RECIPES = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.3, weight_decay=0.01), {"optimizer": "sgd", "lr": 0.3}),
    "momentum": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.01),
        {"optimizer": "momentum", "lr": 0.1, "momentum": 0.8},
    ),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01), {"optimizer": "adam", "lr": 0.02}),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.01), {"optimizer": "adamw", "lr": 0.02}),
}


def epochs(size, count, steps, seed):
    """Positions of each step of a recipe: passes in an order of their own, the last batch of each what is left."""
    generator, found = torch.Generator().manual_seed(seed), []
    while len(found) < steps:
        found += torch.randperm(size, generator=generator).split(count)
    return found[:steps]


@pytest.mark.parametrize("make", RECIPES)
def test_a_recipe_is_its_retrainings(make):
    case = table(dropout=0.0)
    optimizer, settings = RECIPES[make]
    recipe = Training(case.net, steps=12, **settings, weight_decay=0.01, batch_size=3, seed=4)
    net = copy.deepcopy(case.net)
    target = case.asked(net)
    recipe.fit(target)
    why = Influence(through=recipe, seed=0).explain(target)

    def train(net, weights):
        descend(net, optimizer(net.parameters()), epochs(8, 3, 12, 4), case.losses, weights)

    weights = torch.ones(8).double()
    assert why.value == pytest.approx(case.number(retrained(case.net, train, weights)), abs=1e-12)
    assert close(why.scores, slopes(lambda weights: case.number(retrained(case.net, train, weights)), 8))


def test_a_denoiser_by_its_own_fixed_draws():
    case = denoiser()
    net = copy.deepcopy(case.net)
    target = case.asked(net)
    recipe = Training(net, steps=8, optimizer="adam", lr=0.02, schedule="cosine", warmup=3, clip=1.0, batch_size=4)
    recipe.fit(target, case.train)
    why = Influence(through=recipe, train=case.train, seed=0).explain(target)

    def number(weights):
        return float(target.measured(recipe.trained(target, case.train, weights)))

    assert close(why.scores, slopes(number, case.size))


def test_the_nodes_of_a_graph_by_a_recipe():
    case = nodes()
    net = copy.deepcopy(case.net).eval()
    target = case.asked(net)
    recipe = Training(net, steps=12, optimizer="momentum", lr=0.1)
    recipe.fit(target)
    why = Influence(through=recipe, seed=0).explain(target)

    def train(net, weights):
        descend(
            net.eval(),
            torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
            [torch.arange(6)] * 12,
            case.losses,
            weights,
        )

    assert close(why.scores, slopes(lambda weights: case.number(retrained(case.net, train, weights)), case.size))


def test_fewer_states_and_graphs_kept_give_the_same(monkeypatch):
    """Of a recorded run, whose states are those seen while it went, and of a recipe, which is taken again first."""
    case = table()
    steps, net = 30, copy.deepcopy(case.net).eval()
    target = case.asked(net)
    recipe = Training(net, steps=steps, batch_size=4, optimizer="adam", lr=0.02)
    recipe.fit(target)
    few = 5 * steps  # evaluations: taken again, between the states, of each step, pulled back, and two for the check
    for memory, runs in {
        2**26: [("recorded", 30, few - steps), ("recipe", 30, few - steps)],
        0: [("recorded", 8, few - steps), ("recipe", 6, few)],
    }.items():
        monkeypatch.setattr(recording, "MEMORY", memory)
        monkeypatch.setattr(backwards, "MEMORY", memory)
        trained, run = recorded_run(case, "adam", case.batches(steps, 4))
        asked = {"recorded": (run, case.asked(trained)), "recipe": (recipe, target)}
        for name, states, calls in runs:
            through, about = asked[name]
            one = backwards._graph_bytes(through.course(about.objective()))
            full = Influence(through=through, seed=0).explain(about)
            assert (full.checks["states_kept"], full.calls) == (states, calls)
            again = {"recorded": 0 if memory else 7, "recipe": 27 if memory else 2 * 6}[name]
            for graphs, more in {3 * one: again, 0: steps}.items():
                monkeypatch.setattr(backwards, "GRAPHS", graphs)
                some = Influence(through=through, seed=0).explain(about)
                assert torch.equal(full.scores, some.scores)
                assert torch.equal(full.parts["steps"], some.parts["steps"])
                assert some.calls == full.calls + more
            monkeypatch.setattr(backwards, "GRAPHS", 2**26)


@pytest.mark.parametrize("numbers", [1, 3])
def test_a_loss_that_writes_into_memory_of_its_own_is_built_again(numbers, monkeypatch):
    """A graph that was kept while the next step's noise came into the same memory is of no use."""
    monkeypatch.setattr(recording, "MEMORY", 0)
    x, y = torch.randn(6, 3).double(), torch.randint(0, 3, (6,))
    net, room = torch.nn.Linear(3, 3).double(), torch.empty(2, 3).double()
    start = copy.deepcopy(net)

    def losses(at):
        return cross_entropy(net(x[at]) * room.normal_(), y[at], reduction="none")

    def train(run):
        for t in range(5):
            optimizer.zero_grad()
            run(torch.tensor([t, t + 1])).backward()
            optimizer.step()

    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    torch.manual_seed(0)
    with explain.recorded(optimizer, net) as run:
        train(lambda at: run.loss(at, losses))
    model = explain.wrap(net, task="classification", train=(x, y))
    targets = [model.example(x[0], label=k) for k in range(numbers)]
    whys = Influence(through=run, seed=0).explain_all(targets)

    def number(weights):
        torch.manual_seed(0)
        net.load_state_dict(start.state_dict())
        train(lambda at: (weights[at] * losses(at)).mean())
        return targets[-1].value()

    end = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    expected = slopes(number, 6)
    net.load_state_dict(end)
    assert close(whys[-1].scores, expected)
    assert whys[-1].calls == 2 * 5 + 2 + 2 * 5  # of two states in three one step each is built again


def test_numbers_together_are_each_by_itself():
    case = table()
    net, run = recorded_run(case, "sgd", case.batches(15, 4))
    model = explain.wrap(net, task="classification", train=case.train)
    targets = [model.example(torch.randn(3).double(), label=k) for k in (0, 1, 2, 0, 1)]
    together = Influence(through=run, seed=0).explain_all(targets)
    for target, found in zip(targets, together, strict=True):
        alone = Influence(through=run, seed=0).explain(target)
        assert torch.allclose(found.scores, alone.scores, rtol=1e-10, atol=1e-14)
        assert found.checks["smoothness_gap"] == pytest.approx(alone.checks["smoothness_gap"], rel=1e-6)


def test_an_example_matters_when_it_is_trained_on():
    case = table(dropout=0.0)
    batches = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([0, 4])]
    net, run = recorded_run(case, "sgd", batches)
    steps = Influence(through=run, seed=0).explain(case.asked(net)).parts["steps"]
    seen = torch.zeros(3, 8, dtype=torch.bool)
    for t, at in enumerate(batches):
        seen[t, at] = True
    assert torch.equal(steps != 0, seen)


def test_losses_drawn_outside_are_given():
    """Augmentation: what was drawn before the loss is kept, and drawn within it is drawn again."""
    case, generator = table(dropout=0.0), torch.Generator().manual_seed(3)
    x, y = case.train
    net = copy.deepcopy(case.net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)

    def losses(at, noise):
        own = torch.randn(len(at), 3, generator=generator, dtype=torch.float64)
        return cross_entropy(net(x[at] + noise + 0.1 * own), y[at], reduction="none")

    with explain.recorded(optimizer, net, generators=[generator]) as run:
        for at in case.batches(10, 4):
            optimizer.zero_grad()
            run.loss(at, losses, 0.1 * torch.randn(4, 3).double()).backward()
            optimizer.step()
    before = generator.get_state()
    assert Influence(through=run, seed=0).explain(case.asked(net)).checks["replay_gap"] <= 1e-12
    assert torch.equal(generator.get_state(), before)


def test_the_model_is_as_it_was():
    case = table()
    net, run = recorded_run(case, "adam", case.batches(8, 4))
    net.train()
    state, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    with pytest.warns(UserWarning, match="in training mode"):
        Influence(through=run, seed=0).explain(case.asked(net))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert net[2].training
    assert all(p.requires_grad for p in net.parameters())


def test_an_unstable_training_is_doubted():
    torch.manual_seed(0)
    x, y = torch.randn(40, 3).double(), torch.randn(40, 1).double()
    net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()
    target = explain.wrap(net, task="regression", train=(x, y)).example(x[0])
    recipe = Training(net, steps=60, optimizer="momentum", lr=0.15, batch_size=4)
    recipe.fit(target)
    with pytest.warns(UserWarning, match=r"the training is not smooth: .* What helps: fewer steps"):
        why = Influence(through=recipe, seed=0).explain(target)
    assert why.checks["smoothness_gap"] > 0.3
    assert any("not smooth" in said for said in why.doubts)


def other_optimizer(case, net):
    with explain.recorded(torch.optim.Adagrad(net.parameters()), net):
        pass


def amsgrad(case, net):
    with explain.recorded(torch.optim.Adam(net.parameters(), amsgrad=True), net):
        pass


def loop(case, net, between=lambda t: None, run_loss=None, through=None):
    """Four steps with something done before each, then the question."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    with explain.recorded(optimizer, net) as run:
        for t, at in enumerate(case.batches(4, 4)):
            between(t)
            optimizer.zero_grad()
            (run_loss or (lambda run, at: run.loss(at, lambda at: case.losses(net, at)).backward()))(run, at)
            optimizer.step()
    Influence(through=run, seed=0).explain(case.asked(net))


def frozen_midway(case, net):
    loop(case, net, lambda t: net[0].requires_grad_(t < 2))


def undrawn(case, net):
    """Noise from a generator that nobody was told of."""
    generator = torch.Generator().manual_seed(0)
    x, y = case.train
    noisy = lambda at: cross_entropy(net(x[at] + torch.randn(3, generator=generator)), y[at], reduction="none")  # noqa: E731
    loop(case, net, run_loss=lambda run, at: run.loss(at, noisy).backward())


def changed_data(case, net):
    x = case.train[0]
    loop(case, net, lambda t: x.add_(0.1) if t == 2 else None)


def unrecorded(case, net):
    loop(case, net, run_loss=lambda run, at: case.losses(net, at).mean().backward())


def hand_clipped(case, net):
    def step(run, at):
        run.loss(at, lambda at: case.losses(net, at)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.01)

    loop(case, net, run_loss=step)


def mean_loss(case, net):
    loop(case, net, run_loss=lambda run, at: run.loss(at, lambda at: case.losses(net, at).mean()).backward())


def mask_given(case, net):
    loop(case, net, run_loss=lambda run, at: run.loss(torch.ones(8).bool(), lambda at: case.losses(net, at)).backward())


def diverged(case, net):
    loop(case, net, lambda t: net[0].weight.data.fill_(torch.inf) if t == 2 else None)


def grown(case, net):
    """A second group of parameters from the third step on."""
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.3)
    with explain.recorded(optimizer, net) as run:
        for t, at in enumerate(case.batches(4, 4)):
            if t == 2:
                optimizer.add_param_group({"params": list(net[3].parameters())})
            optimizer.zero_grad()
            run.loss(at, lambda at: case.losses(net, at)).backward()
            optimizer.step()


def trained_on(case, net):
    net_, run = recorded_run(case, "sgd", case.batches(3, 4))
    with torch.no_grad():
        net_[0].weight.add_(0.1)
    Influence(through=run, seed=0).explain(case.asked(net_))


def another_model(case, net):
    _, run = recorded_run(case, "sgd", case.batches(3, 4))
    Influence(through=run, seed=0).explain(case.asked(net))


def smaller_set(case, net):
    net_, run = recorded_run(case, "sgd", case.batches(3))
    x, y = case.train
    Influence(through=run, train=(x[:4], y[:4]), seed=0).explain(case.asked(net_))


def broken_off(case, net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    try:
        with explain.recorded(optimizer, net) as run:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    Influence(through=run, seed=0).explain(case.asked(net))


def unfitted(case, net):
    Influence(through=Training(net, steps=5), seed=0).explain(case.asked(net))


def other_initial(case, net):
    Training(torch.nn.Linear(3, 3), steps=5).fit(case.asked(net))


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (other_optimizer, Unsupported, "those of Adagrad are not"),
        (amsgrad, Unsupported, "amsgrad=True of Adam is not known"),
        (frozen_midway, Unsupported, r"other parameters are trained than at the first step \(0.bias, 0.weight\)"),
        (grown, Unsupported, "the optimizer's parameters changed during the run"),
        (undrawn, Unsupported, r"ends elsewhere.* from step 1 of 4 on.*generators"),
        (changed_data, Unsupported, "ends elsewhere.* than the recorded run did"),
        (unrecorded, Unsupported, "a step of the optimizer without a loss"),
        (hand_clipped, Unsupported, r"from step 2 of 4 on.* clipped by run\.clip"),
        (mean_loss, ValueError, r'one loss an example, \[4\], got \[\]: .*reduction="none"'),
        (mask_given, TypeError, "examples must be int64 positions"),
        (diverged, NonFinite, "diverged|NaN or infinity"),
        (trained_on, Unsupported, "the model was changed after the recorded run"),
        (another_model, Unsupported, "trained another module"),
        (smaller_set, ValueError, "example 7 was trained on, and the training set has 4"),
        (broken_off, Unsupported, "has not ended"),
        (unfitted, Unsupported, r"ends elsewhere.* than the model is now: .*recipe.fit\(target\)"),
        (other_initial, ValueError, "a checkpoint of this model needs"),
    ],
)
def test_what_cannot_be_followed_is_refused(wrong, error, said):
    case = table(dropout=0.0)
    with pytest.raises(error, match=said):
        wrong(case, copy.deepcopy(case.net))


def test_a_recipe_that_diverges_leaves_the_model_as_it_was():
    case = table(dropout=0.0)
    net = copy.deepcopy(case.net)
    x = case.train[0]
    target = explain.wrap(net, task="regression", train=(x, x)).example(x[0], label=1)
    recipe = Training(net, steps=200, lr=1e6)
    with pytest.raises(NonFinite, match=r"diverged: NaN or infinity within 200 steps; the model is as it was"):
        recipe.fit(target)
    assert all(torch.equal(value, case.net.state_dict()[name]) for name, value in net.state_dict().items())


def test_running_statistics_are_refused():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer, x = torch.optim.SGD(net.parameters(), lr=0.1), torch.randn(4, 2)

    def trained():
        with explain.recorded(optimizer, net) as run:
            run.loss(torch.arange(4), lambda at: net(x[at]).square().sum(1)).backward()
            optimizer.step()

    with pytest.raises(Unsupported, match=r"'1\.running_mean' changed during the run"):
        trained()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"steps": 3, "optimizer": "lion"}, "optimizer must be sgd, momentum, adam, adamw, got 'lion'"),
        ({"steps": 3, "lr": 0}, "lr must be above 0"),
        ({"steps": 3, "schedule": "step"}, "schedule must be constant, linear, cosine"),
        ({"steps": 3, "betas": (0.9, 1.0)}, "betas must be from 0 to below 1"),
        ({"steps": 3, "batch_size": 0}, "batch_size must be"),
        ({"steps": 3, "clip": -1.0}, "clip must be above 0"),
        ({"steps": 3, "weight_decay": -1.0}, "weight_decay must be 0 or more"),
    ],
)
def test_settings_of_a_recipe(settings, said):
    with pytest.raises(ValueError, match=said):
        Training(torch.nn.Linear(1, 1), **settings)


def test_no_curvature_beside_a_training():
    recipe = Training(torch.nn.Linear(1, 1), steps=1)
    with pytest.raises(ValueError, match="leave out solver, damping"):
        Influence(through=recipe, solver="cg", damping=0.1)
    with pytest.raises(ValueError, match="remove='labels' only, got 'nodes'"):
        Influence(through=recipe, remove="nodes")
    with pytest.raises(TypeError, match=r"explain\.Training\(\.\.\.\) or the run of explain\.recorded"):
        Influence(through="adam")


@pytest.mark.parametrize("make", ["momentum", "adam"])
def test_a_momentum_that_was_set_by_hand_is_refused(make):
    case = table()

    def loop(reset):
        net = copy.deepcopy(case.net).eval()
        optimizer = OPTIMIZERS[make](net.parameters())
        with explain.recorded(optimizer, net) as run:
            for t, at in enumerate(case.batches(9, 4)):
                optimizer.zero_grad()
                run.loss(at, lambda at: case.losses(net, at)).backward()
                if t == 5 and reset:
                    for state in optimizer.state.values():
                        state[list(state)[-1]].zero_()
                optimizer.step()
        return Influence(through=run, seed=0).explain(case.asked(net))

    assert loop(False).checks["replay_gap"] == 0
    with pytest.raises(Unsupported, match="was changed before step 6 other than by its own steps"):
        loop(True)


def looped(net, losses, steps=12, lr=0.1, **options):
    """Two batches of four in turn, recorded."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, **options)
    with explain.recorded(optimizer, net) as run:
        for t in range(steps):
            optimizer.zero_grad()
            run.loss(torch.arange(4) + 4 * (t % 2), losses).backward()
            optimizer.step()
    return run


def regression(net, run, x, y):
    return Influence(through=run, seed=0).explain(explain.wrap(net, task="regression", train=(x, y)).example(x[0] + 1))


def eight():
    torch.manual_seed(0)
    return torch.randn(8, 3).double(), torch.randn(8, 1).double()


def mlp(first=None):
    torch.manual_seed(1)
    return torch.nn.Sequential(first or torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()


@pytest.mark.parametrize("memory", [0, 2**26])
def test_memory_that_torch_does_not_see_written_is_found_out(memory, monkeypatch):
    """The graphs kept would hold the last batch in place of their own."""
    monkeypatch.setattr(recording, "MEMORY", memory)
    (x, y), room = eight(), np.zeros((4, 3))

    def written(net):
        def losses(at):
            np.take(x.numpy(), at.numpy(), axis=0, out=room)
            return (net(torch.from_numpy(room)) - y[at]).square().mean(1)

        return losses

    one, other = mlp(), mlp()
    found = regression(one, looped(one, written(one)), x, y)
    plain = regression(other, looped(other, lambda at: (other(x[at]) - y[at]).square().mean(1)), x, y)
    torch.testing.assert_close(found.scores, plain.scores)


class Detached(torch.autograd.Function):
    """Its backward reads what it saved detached, so that the second derivative is zero."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        return g * (1 - ctx.x.tanh() ** 2)


class Apart(torch.nn.Linear):
    def forward(self, x):
        return Detached.apply(super().forward(x))


@pytest.mark.filterwarnings("ignore:the training is not smooth")
def test_a_wrong_second_derivative_is_found_out():
    x, y = eight()
    net = mlp(Apart(3, 4))
    with pytest.raises(Unsupported, match=r"derivative through step .* is wrong"):
        regression(net, looped(net, lambda at: (net(x[at]) - y[at]).square().mean(1)), x, y)
    target = explain.wrap(net, task="regression", train=(x, y)).example(x[0] + 1)
    recipe = Training(net, steps=10, lr=0.1)
    recipe.fit(target)
    with pytest.raises(Unsupported, match=r"derivative through step .* is wrong"):
        Influence(through=recipe, seed=0).explain(target)


def test_a_normalised_weight_is_differentiated_plainly():
    """Torch's own fused one has a wrong second derivative."""
    x, y = eight()
    net = mlp(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 4)))
    start = copy.deepcopy(net)
    run = looped(net, lambda at: (net(x[at]) - y[at]).square().mean(1))
    found = regression(net, run, x, y)

    def number(weights):
        made = copy.deepcopy(start)
        optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
        for t in range(12):
            at = torch.arange(4) + 4 * (t % 2)
            optimizer.zero_grad()
            (weights[at] * (made(x[at]) - y[at]).square().mean(1)).mean().backward()
            optimizer.step()
        return float(made(x[:1] + 1).detach())

    assert close(found.scores, slopes(number, 8))
    assert found.checks["hvp_error"] < 1e-4


class Again(torch.nn.Sequential):
    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)


def test_a_recipe_of_a_block_that_is_computed_again_is_refused():
    x, y = eight()
    net = mlp(torch.nn.Sequential(torch.nn.Linear(3, 3), Again(torch.nn.Linear(3, 4), torch.nn.Tanh()))).double()
    before = copy.deepcopy(net.state_dict())
    target = explain.wrap(net, task="regression", train=(x, y)).example(x[0])
    with pytest.raises(Unsupported, match="Train without checkpoints"):
        Training(net, steps=10, lr=0.5).fit(target)
    assert all(torch.equal(before[name], p) for name, p in net.state_dict().items())


def test_a_run_that_diverged_says_where():
    x, y = eight()
    net = mlp()
    with pytest.raises(NonFinite, match=r"the run diverged: the loss of step \d+ of 400 is NaN or infinity"):
        looped(net, lambda at: (net(x[at]) - y[at]).square().mean(1), steps=400, lr=1e6)


def test_losses_that_are_looked_at_alone_and_closures():
    x, y = eight()
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = lambda at: (net(x[at]) - y[at]).square().mean(1)  # noqa: E731
    with explain.recorded(optimizer, net) as run:
        run.loss(torch.arange(4), losses).backward()
        with torch.no_grad():
            run.loss(torch.arange(8), losses)
        optimizer.step()
    assert [len(batch.positions) for step in run.steps for batch in step.batches] == [4]
    with explain.recorded(optimizer, net) as run, pytest.raises(Unsupported, match="a step with a closure"):
        optimizer.step(lambda: run.loss(torch.arange(4), losses))


def test_steps_of_any_size_hold_little(monkeypatch):
    """A bound by the first of them would be none."""
    net = torch.nn.Linear(3, 1).double()
    rows = [2, *[2000] * 59]
    x, y = torch.randn(2000, 3).double(), torch.randn(4).double()

    def losses(at, count):
        return (net(x[:count]).mean() - y[at]).square()

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with explain.recorded(optimizer, net) as run:
        for count in rows:
            optimizer.zero_grad()
            run.loss(torch.arange(4), losses, count).backward()
            optimizer.step()
    target = explain.wrap(net, task="regression", train=(x[:4], y[:, None])).example(x[0])
    assert backwards._graph_bytes(run.course(target.objective())) > 2000 * 8


def test_a_derivative_that_no_difference_speaks_about_has_no_error():
    assert Proof().checks() == {"hvp_error": None}
    bent = Proof(note="a kink")
    assert bent.and_(Proof(1e-9)).checks() == {"hvp_error": 1e-9, "hvp_note": "a kink"}
    assert bent.and_(Proof()).checks() == {"hvp_error": None, "hvp_note": "a kink"}
