"""Networks in the form of denoising_diffusion_pytorch, k-diffusion and EDM: as their own loops, or refused in words.

Each is a small network with the interface of those packages; the loops beside them follow theirs line by line.
"""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from torch import nn

import explain
from explain.diffusion.model import DiffusionModel
from explain.shapley import Shapley
from explain.types import Unsupported

T = 100
BETAS = torch.linspace(1e-4, 0.05, T)
SHAPE = (1, 4, 4)


def _mean(x):
    return x.mean((1, 2, 3))


def _image(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).tanh()


class Unet(nn.Module):
    """``Unet.forward(x, time, x_self_cond=None)``; with learned variances it has twice the channels."""

    def __init__(self, self_condition=False, learned_variance=False):
        super().__init__()
        torch.manual_seed(0)
        self.self_condition, self.channels = self_condition, 1
        self.first = nn.Conv2d(2 if self_condition else 1, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2 if learned_variance else 1, 3, padding=1)

    def forward(self, x, time, x_self_cond=None):
        if self.self_condition:
            x_self_cond = torch.zeros_like(x) if x_self_cond is None else x_self_cond
            x = torch.cat((x_self_cond, x), dim=1)
        return self.last((self.first(x) + time.view(-1, 1, 1, 1) / T).tanh())


class GaussianDiffusion(nn.Module):
    """The network with its schedule and objective; forward answers the loss, ``ddim_sample`` an image."""

    def __init__(self, model, objective="pred_v"):
        super().__init__()
        self.model, self.objective = model, objective
        self.register_buffer("betas", BETAS)
        self.register_buffer("alphas_cumprod", (1 - BETAS.double()).cumprod(0).float())

    def model_predictions(self, x, t):
        a, s = self.alphas_cumprod[t].sqrt().view(-1, 1, 1, 1), (1 - self.alphas_cumprod[t]).sqrt().view(-1, 1, 1, 1)
        output = self.model(x, t)[:, :1]
        if self.objective == "pred_v":
            return s * x + a * output, a * x - s * output
        if self.objective == "pred_x0":
            return (x - a * output) / s, output
        return output, (x - s * output) / a

    @torch.no_grad()
    def ddim_sample(self, image, steps):
        times = list(reversed(torch.linspace(-1, T - 1, steps=steps + 1).int().tolist()))
        for time, after in pairwise(times):
            noise, start = self.model_predictions(image, torch.full((len(image),), time))
            if after < 0:
                image = start
                continue
            kept = self.alphas_cumprod[after]
            image = start * kept.sqrt() + (1 - kept).sqrt() * noise
        return image


NAMES = {"pred_v": "v_prediction", "pred_x0": "sample", "pred_noise": "epsilon"}


@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize("learned_variance", [False, True])
def test_runs_are_their_own_ddim_loop(objective, learned_variance):
    diffusion = GaussianDiffusion(Unet(learned_variance=learned_variance), objective).eval()
    scheduler = DDIMScheduler(
        T,
        trained_betas=diffusion.betas.numpy(),
        clip_sample=False,
        prediction_type=NAMES[objective],
        timestep_spacing="trailing",
    )
    model = explain.wrap(diffusion.model, scheduler=scheduler, time="step", shape=SHAPE)
    run = model.trajectory(steps=5, payoff=_mean, draws=2)
    expected = diffusion.ddim_sample(run.start, 5)
    torch.testing.assert_close(run.samples(run.weights), expected, rtol=1e-3, atol=1e-4)
    assumed = run.describe()["assumed"]
    assert ("as learned variances" in assumed.get("output", "")) == learned_variance
    step = model.step(_image(), 40, draws=2)
    with torch.no_grad():
        e, _ = diffusion.model_predictions(step.noised, step.times)
    assert step.value() == pytest.approx(-float((step.noise - e).square().sum((1, 2, 3)).mean()), rel=1e-4)


def test_a_whole_diffusion_names_its_network_and_objective():
    with pytest.raises(TypeError, match=r"wrap\(GaussianDiffusion\.model.*betas=GaussianDiffusion\.betas.*'v_pred"):
        explain.wrap(GaussianDiffusion(Unet()), betas=BETAS)


def test_learned_variances_are_not_taken_for_another_run():
    scheduler = DDPMScheduler(T, variance_type="learned_range")
    model = explain.wrap(Unet(learned_variance=True), scheduler=scheduler, time="step", shape=SHAPE)
    with pytest.raises(ValueError, match="learned variances, which are not followed"):
        model.trajectory(steps=3, payoff=_mean)


def test_an_own_last_answer_is_needed_where_it_is_read():
    plain = explain.wrap(Unet(), betas=BETAS, time="step", shape=SHAPE)
    assert plain.trajectory(steps=2, payoff=_mean).value() == plain.trajectory(steps=2, payoff=_mean).value()
    told = explain.wrap(Unet(self_condition=True), betas=BETAS, time="step", shape=SHAPE)
    with pytest.raises(Unsupported, match=r"reads its own last answer \(x_self_cond\)"):
        told.trajectory(steps=2, payoff=_mean)
    assert "x_self_cond" in told.step(_image(), 3).describe()["assumed"]["arguments"]


class Guided(nn.Module):
    """``classifier_free_guidance.Unet``: labels are dropped by an argument, at random unless it is given."""

    def __init__(self, along=True):
        super().__init__()
        torch.manual_seed(0)
        self.classes_emb, self.null_classes_emb = nn.Embedding(5, 4), nn.Parameter(torch.randn(4))
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.cond_drop_prob, self.along = 0.5, along

    def forward_with_cond_scale(self, *args, cond_scale=1.0, **kwargs):
        logits = self.forward(*args, cond_drop_prob=0.0, **kwargs)
        if cond_scale == 1:
            return logits
        null_logits = self.forward(*args, cond_drop_prob=1.0, **kwargs)
        update = logits - null_logits
        if not self.along:  # remove_parallel_component, the package's own default
            unit = nn.functional.normalize(logits.flatten(1), dim=-1)
            update = update - ((update.flatten(1) * unit).sum(-1, keepdim=True) * unit).view_as(update)
        return logits + update * (cond_scale - 1), null_logits

    def forward(self, x, time, classes, cond_drop_prob=None):
        share = self.cond_drop_prob if cond_drop_prob is None else cond_drop_prob
        known = self.classes_emb(classes)
        if share > 0:
            kept = torch.zeros(len(x)).float().uniform_(0, 1) < 1 - share
            known = torch.where(kept[:, None], known, self.null_classes_emb)
        return self.last((self.first(x) + known[:, :, None, None] + time.view(-1, 1, 1, 1) / T).tanh())


def test_labels_that_an_argument_drops():
    net = Guided().eval()
    scheduler = DDIMScheduler(T, clip_sample=False)
    model = explain.wrap(net, scheduler=scheduler, time="step", shape=SHAPE)
    run = model.trajectory(3, steps=4, guidance=2.5, payoff=_mean)
    assumed = run.describe()["assumed"]
    assert assumed["cond_drop_prob"] == "0 with the label, 1 for none"
    assert assumed["guidance"] == "u + w (c - u), as forward_with_cond_scale"
    own = DDIMScheduler(T, clip_sample=False)
    own.set_timesteps(4)
    for scale, value in ((2.5, run.value()), (1.0, model.trajectory(3, steps=4, payoff=_mean).value())):
        x = run.start
        for t in own.timesteps:
            with torch.no_grad():
                found = net.forward_with_cond_scale(x, t[None], torch.tensor([3]), cond_scale=scale)
            x = own.step(found if scale == 1 else found[0], t, x).prev_sample
        assert value == pytest.approx(float(x.mean()), rel=1e-3, abs=1e-5)
    step = model.step(_image(), 40, 3, payoff="evidence", draws=3)
    with torch.no_grad():
        c, u = (net(step.noised, step.times, torch.full((3,), 3), cond_drop_prob=p) for p in (0.0, 1.0))
    squares = [(step.noise - found).square().sum((1, 2, 3)).mean() for found in (u, c)]
    assert step.value() == pytest.approx(float(squares[0] - squares[1]), rel=1e-4, abs=1e-5)
    labels = Shapley("labels").explain(step)
    assert float(labels.scores) == pytest.approx(step.value(), rel=1e-4, abs=1e-5)
    plain = Shapley("labels").explain(model.step(_image(), 40, 3, draws=3))
    assert float(plain.scores) == pytest.approx(float(squares[0] - squares[1]), rel=1e-4, abs=1e-5)
    steps = Shapley("steps").explain(run)
    assert steps.value == pytest.approx(run.value(), rel=1e-4)
    objective = step.objective((torch.stack([_image(1), _image(2)]), torch.tensor([0, 4])))
    losses = objective.train_loss(objective.params, torch.arange(2))
    assert torch.equal(losses, objective.train_loss(objective.params, torch.arange(2)))


def test_another_guidance_than_the_textbooks_is_refused():
    model = explain.wrap(Guided(along=False).eval(), scheduler=DDIMScheduler(T), time="step", shape=SHAPE)
    assert model.trajectory(3, steps=2, payoff=_mean).value() is not None
    for ask in (
        lambda: model.trajectory(3, steps=2, guidance=3.0, payoff=_mean),
        lambda: model.step(_image(), 3, 3, guidance=3.0),
    ):
        with pytest.raises(ValueError, match=r"forward_with_cond_scale\(cond_scale=3\) of this network is not u \+ w"):
            ask()


class EDMPrecond(nn.Module):
    """NVIDIA's preconditioner: ``(x, sigma, class_labels)``, labels one-hot, of a network inside."""

    def __init__(self, sigma_data=0.5, label_dim=3):
        super().__init__()
        torch.manual_seed(0)
        self.sigma_data, self.label_dim, self.sigma_min, self.sigma_max = sigma_data, label_dim, 0.002, 80.0
        self.model = nn.Conv2d(1, 1, 3, padding=1)
        self.labels = nn.Linear(label_dim, 1)

    def forward(self, x, sigma, class_labels=None):
        sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        known = torch.zeros(1, self.label_dim) if class_labels is None else class_labels.reshape(-1, self.label_dim)
        c_skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        c_out = sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()
        c_in = 1 / (self.sigma_data**2 + sigma**2).sqrt()
        inside = self.model(c_in * x) + self.labels(known)[:, :, None, None] + sigma.log() / 4
        return c_skip * x + c_out * inside.tanh()


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize("labelled", [False, True])
def test_preconditioned_networks_run_as_karras_et_al_write(labelled):
    net = EDMPrecond().eval()
    scheduler = EDMEulerScheduler(num_train_timesteps=T, sigma_data=0.5, sigma_min=0.002, sigma_max=80.0)
    model = explain.wrap(net, scheduler=scheduler, time="sigma", prediction_type="sample", shape=SHAPE)
    label = torch.tensor([0.0, 1.0, 0.0]) if labelled else None
    run = model.trajectory(label, steps=5, payoff=_mean)
    own = EDMEulerScheduler(num_train_timesteps=T, sigma_data=0.5, sigma_min=0.002, sigma_max=80.0)
    own.set_timesteps(5)
    x = run.start * own.init_noise_sigma
    for sigma, after in zip(own.sigmas[:-1], own.sigmas[1:], strict=True):
        with torch.no_grad():
            slope = (x - net(x, sigma[None], None if label is None else label[None])) / sigma
        x = x + (after - sigma) * slope
    torch.testing.assert_close(run.run(), x, rtol=1e-3, atol=1e-3)
    step = model.step(_image(), 50, label, payoff="x0", draws=2)
    sigma = float(model.process.sigma(torch.tensor([50])))
    with torch.no_grad():
        found = net(_image() + sigma * step.noise, torch.full((2,), sigma), None if label is None else label[None])
    assert step.value() == pytest.approx(float(found.mean()), rel=1e-3, abs=1e-5)


def test_a_class_for_a_network_of_one_hot_labels_is_no_label():
    scheduler = EDMEulerScheduler(num_train_timesteps=T)
    model = explain.wrap(EDMPrecond(), scheduler=scheduler, time="sigma", prediction_type="sample", shape=SHAPE)
    with pytest.raises(ValueError, match="cannot be called with x_t"):
        model.step(_image(), 50, 1)


class Velocity(nn.Module):
    """A flow on [0, 1], noise at 1 as in rectified flow: ``(x, t) -> noise - image``."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t):
        return (self.layer(x) + t.view(-1, 1, 1, 1)).tanh()


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
def test_networks_on_the_unit_interval_run_as_eulers_method():
    net = Velocity()
    forwards = explain.wrap(net, scheduler=FlowMatchEulerDiscreteScheduler(T), time="unit", shape=SHAPE)
    # the other way round, data at 1: what it says is said of 1 - t with the other sign
    turned = explain.wrap(
        lambda x, t: -net(x, 1 - t), scheduler=FlowMatchEulerDiscreteScheduler(T), time="unit", shape=SHAPE
    )
    own = FlowMatchEulerDiscreteScheduler(T)
    own.set_timesteps(5)
    for model, sign in ((forwards, 1), (turned, -1)):
        run = model.trajectory(steps=5, payoff=_mean)
        x = run.start
        for t, after in zip(own.sigmas[:-1], own.sigmas[1:], strict=True):
            with torch.no_grad():
                x = x + (after - t) * (net(x, t[None]) if sign == 1 else -net(x, 1 - t[None]))
        torch.testing.assert_close(run.run(), x, rtol=1e-4, atol=1e-5)
        assert "0 the image and 1 the noise" in run.describe()["assumed"]["time"]
    with pytest.raises(TypeError, match="in which unit does Velocity take its time"):
        DiffusionModel(net, scheduler=FlowMatchEulerDiscreteScheduler(T), shape=SHAPE)
