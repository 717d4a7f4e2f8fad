"""Influence of training images on everything that can be asked of a denoiser, each against a loop in paper form."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from diffusion_cases import STEPS, digits_like, tiny_net
from reference import influence as reference

from explain.diffusion.model import DiffusionModel
from explain.influence import Influence
from explain.influence.scores import measured_gradient

DAMPING = 0.05


@pytest.fixture(scope="module")
def model():
    scheduler = DDIMScheduler(STEPS, clip_sample=False)
    return DiffusionModel(tiny_net().double(), time="step", scheduler=scheduler, null=10, draws=1, shape=(1, 8, 8))


@pytest.fixture(scope="module")
def train():
    return digits_like(4, seed=2).double(), torch.tensor([1, 0, 3, 3])


@pytest.fixture(scope="module")
def image():
    return digits_like(seed=7)[0].double()


@pytest.fixture(scope="module")
def matrix(model, train, image):
    """The damped Gauss-Newton matrix in paper form: the same whatever is asked."""
    found = reference.gauss_newton(model.step(image, t=0, label=3).objective(train))
    return found + DAMPING * torch.eye(len(found), dtype=torch.float64)


@pytest.fixture(scope="module")
def solved(model, train, image, matrix):
    """``A^-1 grad loss_i``, ``[n, p]``."""
    objective = model.step(image, t=0, label=3).objective(train)
    return torch.linalg.solve(matrix, reference.loss_gradients(objective).T).T


def explained(train, *targets):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model is not at a minimum")
        engine = Influence(train, solver="exact", curvature="ggn", damping=DAMPING, seed=0)
        return engine.explain_all(targets)


def by_hand(model, solved, number):
    """Scores of a number of the network, ``number(net) -> scalar``, by plain autograd."""
    net = model.denoiser.net
    with torch.enable_grad():
        gradients = torch.autograd.grad(number(net), list(net.parameters()))
    return -solved @ torch.cat([g.reshape(-1) for g in gradients]) / len(solved)


def noised(model, target, image, k):
    signal = model.scheduler.alphas_cumprod[int(target.times[k])].double()
    return signal.sqrt() * image + (1 - signal).sqrt() * target.noise[k]


@pytest.mark.parametrize("payoff", ["error", "norm"])
@pytest.mark.parametrize("t", [30, [10, 50, 90]])
def test_the_error_and_the_norm(model, train, image, solved, payoff, t):
    """The loss at one step and over several, and ``|e_hat|^2``, what D-TRAK measures."""
    target = model.step(image, t=t, label=3, payoff=payoff, draws=2, seed=4)

    def number(net):
        total = 0.0
        for k in range(len(target.times)):
            e_hat = net(noised(model, target, image, k)[None], target.times[k : k + 1], torch.tensor([3])).sample[0]
            wanted = target.noise[k] if payoff == "error" else torch.zeros_like(e_hat)
            total = total + (wanted - e_hat).square().sum() / len(target.times)
        return -total if payoff == "error" else total

    (found,) = explained(train, target)
    torch.testing.assert_close(found.scores, by_hand(model, solved, number))
    assert found.value == pytest.approx(float(number(model.denoiser.net).detach()))
    assert found.checks["residual"] < 1e-9


def test_a_payoff_of_ones_own(model, train, image, solved):
    def top(clean):
        return clean[:, :, :4].mean((1, 2, 3))

    target = model.step(image, t=30, label=3, payoff=top, draws=1, seed=4)
    signal = model.scheduler.alphas_cumprod[30].double()
    x = noised(model, target, image, 0)

    def number(net):
        e_hat = net(x[None], torch.tensor([30]), torch.tensor([3])).sample
        return top((x - (1 - signal).sqrt() * e_hat) / signal.sqrt())[0]

    (found,) = explained(train, target)
    torch.testing.assert_close(found.scores, by_hand(model, solved, number))


def test_a_payoff_at_the_end_of_a_run(model, train, solved):
    def brightness(sample):
        return sample.mean((1, 2, 3))

    target = model.trajectory(3, steps=4, payoff=brightness, seed=1)

    def number(net):
        scheduler = DDIMScheduler(STEPS, clip_sample=False)
        scheduler.set_timesteps(4)
        x = target.start
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t[None], torch.tensor([3])).sample, t, x).prev_sample
        return brightness(x)[0]

    (found,) = explained(train, target)
    torch.testing.assert_close(found.scores, by_hand(model, solved, number))


def test_where_in_the_trajectory_an_image_matters(model, train, image):
    whole = model.step(image, t=[10, 50, 90], label=3, draws=2, seed=4)
    whole.game("patches")  # what was made of all the draws is not that of one step
    _ = whole.absent
    each = whole.each_step()
    assert [step.steps for step in each] == [(10,), (50,), (90,)]
    assert sum(step.value() for step in each) / 3 == pytest.approx(whole.value())
    assert each[1].absent.shape == (2, 1, 8, 8)
    torch.testing.assert_close(torch.cat([step.absent for step in each]), whole.absent)
    together, *alone = explained(train, whole, *each)
    torch.testing.assert_close(torch.stack([one.scores for one in alone]).mean(0), together.scores)
    assert not torch.allclose(alone[0].scores, alone[2].scores)
    assert [one.target["t"] for one in alone] == [[10.0], [50.0], [90.0]]


@pytest.mark.parametrize(
    ("loss", "of_torch"), [(None, F.mse_loss), ("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", F.huber_loss)]
)
def test_the_trained_loss_is_torchs_and_said(model, train, image, loss, of_torch):
    def losses(given):
        same = {"time": "step", "scheduler": model.scheduler, "null": 10, "draws": 1}
        target = DiffusionModel(model.denoiser.net, loss=given, **same).step(image, t=30, label=3, seed=4)
        objective = target.objective(train)
        return target.told, objective.train_loss(objective.params, torch.arange(2))

    told, found = losses(loss)
    _, expected = losses(lambda predictions, wanted: of_torch(predictions, wanted, reduction="none").mean((1, 2, 3, 4)))
    torch.testing.assert_close(found, expected)
    assert told["loss"] == (loss or "mse")
    assert ("assumed" in told) == (loss is None)


def test_the_norm_as_the_trained_loss_too(model, train, image, matrix):
    """D-TRAK's measurement on both sides with the curvature of the engine: the Gauss-Newton matrix stays the same."""
    normed = DiffusionModel(
        model.denoiser.net,
        time="step",
        scheduler=model.scheduler,
        null=10,
        draws=1,
        loss=lambda predictions, wanted: predictions.square().flatten(1).mean(1),
    )
    target = normed.step(image, t=30, label=3, payoff="norm", seed=4)
    objective = target.objective(train)
    (found,) = explained(train, target)
    _, gradient = measured_gradient(objective)
    norms = reference.loss_gradients(objective)
    usual = torch.linalg.solve(matrix, gradient)
    torch.testing.assert_close(found.scores, -norms @ usual / 4)
