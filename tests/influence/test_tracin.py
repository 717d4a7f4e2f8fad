"""TracIn against the training that it retells, and what it does with checkpoints."""

import pytest
import safetensors.torch
import torch
from influence_cases import ObjectiveTarget, digits, half_trained, logistic, module_objective
from reference import influence as reference
from torch import nn

import explain
from explain import TracIn
from explain.influence.checkpoints import at_checkpoint
from explain.types import NonFinite

RATE = 0.02


@pytest.fixture(scope="module")
def training():
    """Plain gradient descent on the whole training set, and the state before each step."""
    torch.manual_seed(0)
    x, y, others, _ = digits()
    x, y = x[:30], y[:30]
    net = nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    states = []
    for _ in range(40):
        states.append({name: p.detach().clone() for name, p in net.state_dict().items()})
        gradients = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), gradients, strict=True):
                p -= RATE * g
    return net, (x, y), others[0], states


def test_every_step_retold_sums_to_what_the_number_moved(training):
    net, data, asked, states = training
    target = explain.wrap(net, task="classification", train=data).example(asked, label=1)
    found = TracIn(states, RATE).explain(target)
    moved = found.checks["moved"]
    assert moved == pytest.approx(found.value - found.checks["values"][0])
    assert abs(moved) > 0.03
    assert found.checks["sum"] == pytest.approx(moved, rel=0.02)  # first order in the rate
    assert found.players.kind == "train"
    assert found.parts["checkpoints"].shape == (40, 30)
    torch.testing.assert_close(found.parts["checkpoints"].sum(0), found.scores)


def test_paper_form(training):
    net, (x, y), asked, states = training
    chosen, rates = [states[3], states[20], net.state_dict()], [0.1, 0.5, 2.0]
    found = TracIn(chosen, rates, train=(x, y)).explain(
        explain.wrap(net, task="classification").example(asked, label=2)
    )
    expected = 0.0
    for state, rate in zip(chosen, rates, strict=True):
        moved = nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 4)).double()
        moved.load_state_dict(state)
        objective = module_objective(moved, x, y, asked=asked[None], output=2)
        expected = expected + rate * reference.influence(objective, torch.eye(109, dtype=torch.float64))
    torch.testing.assert_close(found.scores, expected)


def test_one_checkpoint_is_the_gradient_dot_product():
    objective = logistic()
    found = TracIn().explain(ObjectiveTarget(objective))
    torch.testing.assert_close(found.scores, reference.influence(objective, torch.eye(68, dtype=torch.float64)))


def test_many_targets_at_once(training):
    net, data, _, states = training
    model = explain.wrap(net, task="classification", train=data)
    targets = [model.example(x, label=1) for x in digits()[2][:6]]
    tracer = TracIn(states[::10], RATE)
    for one, target in zip(tracer.explain_all(targets), targets, strict=True):
        torch.testing.assert_close(one.scores, tracer.explain(target).scores)
    with pytest.raises(ValueError, match="at least one target"):
        tracer.explain_all([])
    other = explain.wrap(nn.Linear(16, 4).double(), task="classification", train=data)
    with pytest.raises(ValueError, match="all of the same model"):
        tracer.explain_all([targets[0], other.example(digits()[2][0], label=1)])
    with pytest.raises(TypeError, match="needs targets"):
        tracer.explain_all([3])


def test_checkpoints_from_files(training, tmp_path):
    net, data, asked, states = training
    target = explain.wrap(net, task="classification", train=data).example(asked, label=1)
    path = tmp_path / "step.safetensors"
    safetensors.torch.save_file(states[5], path)
    before = {name: p.clone() for name, p in net.state_dict().items()}
    found = TracIn([path], 0.5).explain(target)
    torch.testing.assert_close(found.scores, TracIn([states[5]], 0.5).explain(target).scores)
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())
    torch.save(states[5], tmp_path / "pickle.pt")
    with pytest.raises(ValueError, match="is no safetensors file"):
        TracIn([tmp_path / "pickle.pt"], 0.5).explain(target)
    with pytest.raises(FileNotFoundError):
        TracIn([tmp_path / "missing.safetensors"], 0.5).explain(target)


def test_buffers_are_those_of_the_checkpoint():
    """A normalisation that has seen other data since."""
    torch.manual_seed(0)
    x, y, others, _ = digits()
    net = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 4)).double()
    net(x)
    then = {name: value.clone() for name, value in net.state_dict().items()}
    alone = TracIn(train=(x, y)).explain(explain.wrap(net.eval(), task="classification").example(others[0], label=0))
    net.train()(5 * x)
    model = explain.wrap(net.eval(), task="classification")
    found = TracIn([then], 1.0, train=(x, y)).explain(model.example(others[0], label=0))
    torch.testing.assert_close(found.scores, alone.scores)
    now = TracIn(train=(x, y)).explain(model.example(others[0], label=0))
    assert not torch.allclose(now.scores, alone.scores)


def test_a_wrapped_network_is_found_by_its_own_names():
    from diffusion_cases import digits_like, tiny_net

    from explain.diffusion.model import DiffusionModel

    net = tiny_net()
    model = DiffusionModel(net, time="step", betas=torch.linspace(1e-3, 0.1, 100), shape=(1, 8, 8), draws=2)
    train = digits_like(3, seed=1), torch.tensor([1, 2, 3])
    step = model.step(digits_like()[0], t=20, label=3)
    found = TracIn([net.state_dict()], 1.0, train=train).explain(step)
    torch.testing.assert_close(found.scores, TracIn(train=train).explain(step).scores)


def test_checkpoints_of_another_model():
    objective = half_trained()
    with pytest.raises(ValueError, match=r"needs 0\.weight \[6, 16\], got nothing"):
        at_checkpoint(objective, {"weight": torch.zeros(6, 16)})
    state = {name: p.clone() for name, p in objective.params.items()}
    with pytest.raises(ValueError, match=r"needs 0\.bias \[6\], got \[2\]"):
        at_checkpoint(objective, {**state, "0.bias": torch.zeros(2)})
    with pytest.raises(NonFinite, match=r"NaN or infinity in 0\.bias"):
        at_checkpoint(objective, {**state, "0.bias": torch.full((6,), torch.nan)})


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "no checkpoints", {"checkpoints": []}),
        (TypeError, "must be a list", {"checkpoints": "a.safetensors"}),
        (TypeError, "state dictionary or a path", {"checkpoints": [3]}),
        (ValueError, "rates must be above 0", {"rates": 0.0}),
        (ValueError, "2 checkpoints need as many rates", {"checkpoints": ["a", "b"], "rates": [1.0]}),
    ],
)
def test_settings(error, message, settings):
    with pytest.raises(error, match=message):
        TracIn(**settings)
