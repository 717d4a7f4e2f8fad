"""What a network is given at a step: its own unit of time, or a question to its user."""

from itertools import pairwise

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    RePaintScheduler,
    ScoreSdeVeScheduler,
)
from diffusion_cases import digits_like, tiny_unet, unet_model
from torch import nn

import explain
from explain.diffusion.model import DiffusionModel
from explain.types import NonFinite, Unsupported

BETAS = torch.linspace(1e-4, 0.02, 1000)
DEVIATION = 0.5


def _mean(x):
    return x.mean((1, 2, 3))


class Exact(nn.Module):
    """``D(x_0 + sigma e, sigma)`` of data ``N(0, d^2)``."""

    def __init__(self, deviation=1.0):
        super().__init__()
        self.deviation = deviation

    def forward(self, x, sigma):
        return x * self.deviation**2 / (self.deviation**2 + sigma.view(-1, 1, 1, 1) ** 2)


def test_a_network_on_sigma_is_given_sigma_and_the_unscaled_image():
    image, t = digits_like()[0], 300
    step = explain.wrap(Exact(), betas=BETAS, time="sigma", prediction_type="sample").step(image, t=t, payoff="x0")
    kept = (1 - BETAS.double()).cumprod(0)[t]
    sigma = ((1 - kept) / kept).sqrt()
    expected = (step.noised.double() / kept.sqrt() / (1 + sigma**2)).mean()
    assert step.value() == pytest.approx(float(expected), rel=1e-4)


def test_a_network_on_the_unit_interval():
    def net(x, t):
        return x * t.view(-1, 1, 1, 1)

    step = explain.wrap(net, betas=BETAS, time="unit").step(digits_like()[0], t=300, payoff="norm", draws=1)
    assert step.value() == pytest.approx(float((0.3 * step.noised).square().sum()), rel=1e-5)
    assert step.describe()["assumed"]["time"] == "t / 1000"
    later = explain.wrap(net, betas=BETAS, time=lambda t: (t + 1) / 1000)
    found = later.step(digits_like()[0], t=299, payoff="norm", draws=1)
    assert found.value() == pytest.approx(float((0.3 * found.noised).square().sum()), rel=1e-5)


def test_nobody_guesses_the_unit():
    for schedule in ({"betas": BETAS}, {"scheduler": DDIMScheduler(10)}):
        with pytest.raises(TypeError, match=r"in which unit does Exact take its time\? Say time='step'"):
            explain.wrap(Exact(), **schedule)
    with pytest.raises(TypeError, match="time='log_sigma'"):
        explain.wrap(Exact(), scheduler=EDMEulerScheduler())
    with pytest.raises(ValueError, match="time must be one of step, unit, sigma, log_sigma"):
        explain.wrap(Exact(), betas=BETAS, time="seconds")
    with pytest.raises(TypeError, match="what does the network answer"):
        explain.wrap(Exact(), betas=BETAS, time="sigma")


def test_edm_by_its_own_preconditioning_or_by_the_schedulers():
    """Of data ``N(0, d^2)`` the preconditioned network has nothing to say: ``D = c_skip x``."""
    scheduler = EDMEulerScheduler(num_train_timesteps=100, sigma_data=DEVIATION)
    inside = DiffusionModel(lambda x, c: 0 * x, scheduler=scheduler, time="log_sigma", shape=(1, 8, 8))
    whole = DiffusionModel(
        Exact(DEVIATION), scheduler=scheduler, time="sigma", prediction_type="sample", shape=(1, 8, 8)
    )
    steps = [model.step(digits_like()[0], t=50, payoff="x0", draws=1) for model in (inside, whole)]
    t = torch.tensor([50])
    sigma = float(inside.process.sigma(t))
    image = steps[0].noised / inside.process.levels(t, steps[0].noised)[0]
    expected = float((image * DEVIATION**2 / (sigma**2 + DEVIATION**2)).mean())
    for step in steps:
        assert step.value() == pytest.approx(expected, rel=1e-4)
    runs = [model.trajectory(steps=5, payoff=_mean) for model in (inside, whole)]
    assert runs[0].value() == pytest.approx(runs[1].value(), rel=1e-4)


def test_a_run_is_the_pipelines_own():
    pipeline = DDPMPipeline(tiny_unet(classes=None), DDIMScheduler(100, clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)
    run = explain.wrap(pipeline).trajectory(steps=4, seed=3, payoff=_mean)
    expected = pipeline(generator=torch.Generator().manual_seed(3), num_inference_steps=4, output_type="pt").images
    assert "the pipeline's own" in run.describe()["assumed"]["picture"]
    torch.testing.assert_close(run.picture(), expected[0], rtol=0, atol=0)
    torch.testing.assert_close(run.run(), expected, rtol=0, atol=0)


def test_a_pipeline_with_a_call_of_its_own_is_refused():
    class Mine(DDPMPipeline):
        def __call__(self):
            return None

    with pytest.raises(TypeError, match="the runs of Mine are not followed here"):
        explain.wrap(Mine(tiny_unet(), DDIMScheduler(100))).step(digits_like()[0], t=5)


def test_a_pipeline_with_more_parts_or_another_unit_is_refused():
    class Guided(DDPMPipeline):
        def __init__(self, unet, scheduler, controlnet):
            super().__init__(unet, scheduler)
            self.register_modules(controlnet=controlnet)

    with pytest.raises(TypeError, match="has controlnet beside network and scheduler"):
        explain.wrap(Guided(tiny_unet(), DDIMScheduler(100), nn.Linear(1, 1))).step(digits_like()[0], t=5)
    with pytest.raises(ValueError, match="DDPMPipeline gives its network the time as 'step'"):
        explain.wrap(DDPMPipeline(tiny_unet(), DDIMScheduler(100)), time="unit").step(digits_like()[0], t=5)


def test_times_of_more_dimensions_and_by_keyword():
    def net(x, *, t):
        return x * t[:, :1, None, None]

    step = DiffusionModel(net, betas=BETAS, time=lambda t: (t / 1000)[:, None]).step(digits_like()[0], t=300, draws=1)
    found = step.numbers(step.noised[None])
    assert float(found) == pytest.approx(-float((step.noise - 0.3 * step.noised).square().sum()), rel=1e-5)


def test_an_own_last_answer_is_no_label():
    class Told(nn.Module):
        def forward(self, x, t, x_self_cond=None):
            return x if x_self_cond is None else x + x_self_cond

    model = DiffusionModel(Told(), betas=BETAS, time="step", shape=(1, 8, 8))
    with pytest.raises(TypeError, match="takes no label"):
        model.step(digits_like()[0], t=3, label=1)
    assert "x_self_cond" in model.step(digits_like()[0], t=3).describe()["assumed"]["arguments"]
    with pytest.raises(Unsupported, match="reads its own last answer"):
        model.trajectory(steps=2, payoff=_mean)


def test_a_whole_diffusion_is_refused_with_its_network_named():
    class GaussianDiffusion(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.objective = tiny_unet(), "pred_v"
            self.register_buffer("betas", BETAS)

    with pytest.raises(TypeError, match=r"wrap\(GaussianDiffusion\.model, \.\.\.\).*prediction_type='v_prediction'"):
        explain.wrap(GaussianDiffusion(), betas=BETAS)


def test_painting_around_a_mask_is_not_followed():
    model = DiffusionModel(tiny_unet(), scheduler=RePaintScheduler(100), null=10)
    with pytest.raises(ValueError, match="it needs the picture and the mask"):
        model.trajectory(3, steps=2, payoff=_mean)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        *(({"seed": seed}, ValueError, "seed must be a whole number") for seed in (None, 1.5, "a", 2**70)),
        *(({"draws": draws}, ValueError, "draws must be a whole number") for draws in (None, 2.0, True)),
        *(({"guidance": w}, ValueError, "guidance must be a finite number") for w in (None, "7.5", float("nan"))),
        *(({"batch_size": size}, ValueError, "batch_size") for size in (0, -1, "all")),
        ({"region": "left"}, ValueError, "region must be bool"),
        ({"region": torch.zeros(8, 8)}, ValueError, "at least one pixel, got none"),
        ({"region": torch.full((8, 8), 0.3)}, ValueError, "other numbers than 0 and 1"),
        ({"reference": "mean"}, ValueError, "reference must be images"),
        ({"x0": "picture"}, TypeError, "x0 must be one image"),
        ({"x0": torch.zeros(1, 8, 8, dtype=torch.uint8)}, TypeError, r"images\.float\(\) / 127\.5 - 1"),
        ({"x0": torch.zeros(3, 8, 8)}, ValueError, "must have the 1 channels"),
        ({"label": None}, ValueError, "cannot do without class_labels, a class from 0 to 10"),
        ({"label": 3.0}, TypeError, "a class is a whole number"),
        ({"label": True}, TypeError, "a class is a whole number"),
        ({"label": {"colour": torch.zeros(1)}}, ValueError, "no condition 'colour'"),
    ],
)
def test_wrong_settings_are_named(options, error, message):
    with pytest.raises(error, match=message):
        unet_model().step(**{"x0": digits_like()[0], "t": 3, "label": 3, **options})


def test_words_are_read_by_a_text_encoder():
    with pytest.raises(TypeError, match="null must be a class or a tensor, got the text ''"):
        DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(100), null="")
    with pytest.raises(TypeError, match="captions are given as a text encoder reads them"):
        unet_model().step(digits_like()[0], t=3, label=3).objective((digits_like(2), ["a cat", "a dog"]))


class AcrossRows(nn.Module):
    def forward(self, x, t):
        return x - x.mean(0)


class FirstTime(nn.Module):
    def forward(self, x, t):
        return x * t[0] / 1000


class OneTime(nn.Module):
    def forward(self, x, t):
        return x * t.item() / 1000


class DropsLabels(nn.Module):
    def forward(self, x, t, classes=None, p_uncond=0.5):
        return x + (torch.rand(len(x)) > p_uncond).view(-1, 1, 1, 1)


class FirstLabel(nn.Module):
    def forward(self, x, t, y):
        return x * (y[0] + 1)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (AcrossRows(), "otherwise than alone"),
        (FirstTime(), "otherwise than alone"),
        (OneTime(), r"one image and not a batch.*no t\.item\(\)"),
        (DropsLabels(), "not deterministic"),
    ],
)
@pytest.mark.parametrize("question", ["step", "trajectory"])
def test_a_row_is_answered_by_itself(net, message, question):
    model = DiffusionModel(net, betas=BETAS, time="step", shape=(1, 8, 8))
    with pytest.raises(ValueError, match=message):
        model.step(digits_like()[0], t=3) if question == "step" else model.trajectory(steps=2, payoff=_mean)


def test_training_images_are_answered_each_with_its_own_label():
    step = DiffusionModel(FirstLabel(), betas=BETAS, time="step").step(digits_like()[0], t=3, label=1)
    with pytest.raises(ValueError, match="otherwise than alone"):
        step.objective((digits_like(3), torch.tensor([0, 2, 1])))


def test_a_network_may_write_into_what_it_is_given():
    class InPlace(nn.Module):
        def forward(self, x, t, y):
            t.add_(1)
            y.mul_(2)
            return x.mul_(0.5)

    def plain(x, t, y):
        return 0.5 * x

    label = torch.tensor([3])
    models = [DiffusionModel(net, betas=BETAS, time="step", shape=(1, 8, 8)) for net in (InPlace(), plain)]
    steps = [model.step(digits_like()[0], t=[100, 500], label=label) for model in models]
    runs = [model.trajectory(label, steps=3, payoff=_mean, draws=2) for model in models]
    for own, expected in (steps, runs):
        assert own.value() == expected.value() == own.value()
    assert label.tolist() == [3]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (digits_like(4) * 127 + 127, torch.arange(4), "training images reach 2.*divide or shift"),
        (digits_like(4), torch.tensor([0, 11, 1, 2]), "knows the labels 0 to 10, got 11"),
        (digits_like(4), {"class_labels": ["a", "b", "c", "d"]}, "captions"),
    ],
)
def test_training_images_that_the_network_was_not_trained_on(images, labels, message):
    with pytest.raises((ValueError, TypeError), match=message):
        unet_model().step(digits_like()[0], t=3, label=3).objective((images, labels))


def test_named_arguments_of_training_images_may_be_lists():
    step = unet_model().step(digits_like()[0], t=3, label=3)
    found, expected = (step.objective((digits_like(2), labels)) for labels in ({"class_labels": [1, 2]}, [1, 2]))
    batch = torch.arange(2)
    torch.testing.assert_close(found.train_loss(found.params, batch), expected.train_loss(expected.params, batch))


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        (lambda images: _mean(images) - _mean(images).mean(), "looks across rows"),
        (lambda images: _mean(images) + torch.rand(len(images)), "payoff is random"),
        (lambda images: images.mean(), "payoff must give one number a row"),
    ],
)
@pytest.mark.parametrize("question", ["step", "trajectory"])
def test_a_payoff_reads_each_image_by_itself(payoff, message, question):
    model = unet_model()
    asked = {
        "step": lambda: model.step(digits_like()[0], t=3, label=3, payoff=payoff),
        "trajectory": lambda: model.trajectory(3, steps=2, payoff=payoff),
    }
    with pytest.raises(ValueError, match=message):
        asked[question]()


class Learned(nn.Module):
    """A small network that sees its time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x, t):
        return self.conv(torch.cat([x, t.view(-1, 1, 1, 1).expand_as(x)], 1)).tanh()


class Preconditioned(Learned):
    """``D(x, sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4)``, as Karras et al. wrap their networks."""

    def forward(self, x, sigma):
        sigma = sigma.view(-1, 1, 1, 1)
        scale = (sigma**2 + DEVIATION**2).rsqrt()
        inside = super().forward(scale * x, sigma.log().flatten() / 4)
        return (DEVIATION * scale) ** 2 * x + sigma * DEVIATION * scale * inside


def _karras_euler(net, x, sigmas):
    for sigma, after in pairwise(sigmas):
        x = x + (after - sigma) * (x - net(x, sigma[None])) / sigma
    return x


def _ddim_of_sigma(net, x, kept):
    """DDIM in the user's own words: the picture on ``x / a``, and ``sigma = s / a``."""
    for now, after in pairwise(kept):
        clean = net(x / now.sqrt(), ((1 - now) / now).sqrt()[None])
        x = after.sqrt() * clean + (1 - after).sqrt() * (x - now.sqrt() * clean) / (1 - now).sqrt()
    return x


@torch.no_grad()
def test_runs_are_those_of_the_users_own_loops():
    edm = EDMEulerScheduler(num_train_timesteps=100, sigma_data=DEVIATION)
    options = {"time": "sigma", "prediction_type": "sample", "shape": (1, 8, 8)}
    run = DiffusionModel(Preconditioned(), scheduler=edm, **options).trajectory(steps=6, payoff=_mean)
    own = EDMEulerScheduler(num_train_timesteps=100, sigma_data=DEVIATION)
    own.set_timesteps(6)  # to the smallest sigma, .002
    sample = _karras_euler(Preconditioned(), run.start * own.init_noise_sigma, own.sigmas)
    torch.testing.assert_close(run.run(), sample, rtol=1e-4, atol=1e-5)

    run = DiffusionModel(Preconditioned(), betas=BETAS, **options).trajectory(steps=6, payoff=_mean)
    kept = (1 - BETAS).cumprod(0)[torch.tensor(run.timesteps).long()]
    sample = _ddim_of_sigma(Preconditioned(), run.start, torch.cat([kept, torch.ones(1)]))
    torch.testing.assert_close(run.run(), sample, rtol=1e-3, atol=1e-4)

    flow = FlowMatchEulerDiscreteScheduler(1000)
    run = DiffusionModel(Learned(), scheduler=flow, time="unit", shape=(1, 8, 8)).trajectory(steps=6, payoff=_mean)
    x, times = run.start, [t / 1000 for t in run.timesteps] + [0.0]
    for now, after in pairwise(times):
        x = x + (after - now) * Learned()(x, torch.tensor([now]))
    torch.testing.assert_close(run.run(), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scheduler": ScoreSdeVeScheduler()}, TypeError, "ScoreSdeVeScheduler has no step: its noise is not followed"),
        ({"scheduler": DDIMScheduler(10), "prediction_type": "noise"}, ValueError, "must be one of epsilon, sample"),
        ({"betas": 1 - BETAS}, ValueError, "betas = 1 - alphas"),
        ({"betas": (1 - BETAS).cumprod(0)}, ValueError, "of alphas_cumprod betas_t"),
        ({"betas": BETAS, "weight_decay": "some"}, ValueError, "weight_decay must be a number"),
        ({"betas": BETAS, "loss": "bce"}, ValueError, "loss must be one of mse, mae, huber, a function"),
    ],
)
def test_schedules_and_trainings_that_are_none(options, error, message):
    with pytest.raises(error, match=message):
        explain.wrap(tiny_unet(), **options)


def test_steps_that_a_scheduler_cannot_make():
    with pytest.raises(ValueError, match="PNDMScheduler cannot make a run of 3 steps"):
        DiffusionModel(tiny_unet(classes=None), scheduler=PNDMScheduler()).trajectory(steps=3, payoff=_mean)


def test_a_loss_is_no_denoiser():
    class Trainer(nn.Module):
        def __init__(self):
            super().__init__()
            self.eps_theta = tiny_unet(classes=None)

        def forward(self, x):
            return self.eps_theta(x, 3).sample.square().mean()

    with pytest.raises(TypeError, match="give the network inside"):
        explain.wrap(Trainer(), betas=BETAS, time="step")
    with pytest.raises(ValueError, match="give the network inside"):
        DiffusionModel(lambda x, t: x.mean(), betas=BETAS, time="step").step(digits_like()[0], t=3)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        ((digits_like(4), torch.ones(4, dtype=torch.bool)), TypeError, "got bools"),
        ((digits_like(4), torch.arange(4), torch.rand(4)), ValueError, "several conditions go by name"),
        ((digits_like(4) * float("nan"), torch.arange(4)), NonFinite, "training images hold NaN"),
    ],
)
def test_training_images_of_another_kind(train, error, message):
    with pytest.raises(error, match=message):
        unet_model().step(digits_like()[0], t=3, label=3).objective(train)
