"""Real pictures: gone back to their noise, there and back measured, and refused where it does not lead back."""

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusion_cases import STEPS, digits_like, tiny_unet

from explain.diffusion.inversion import inverted
from explain.diffusion.model import DiffusionModel
from explain.shapley import Shapley
from explain.types import Unsupported

IMAGE = digits_like()[0]


def _mean(x):
    return x.mean((1, 2, 3))


def _plain(**options):
    return DDIMScheduler(STEPS, clip_sample=False, **options)


def test_a_linear_denoiser_is_inverted_in_closed_form():
    """With ``e_hat = c x`` a step multiplies by ``sqrt(k') (1 - c s) / sqrt(k) + c s'``."""
    c, steps = 0.4, 10
    model = DiffusionModel(lambda x, t: c * x, scheduler=_plain(), time="step")
    scheduler = _plain()
    scheduler.set_timesteps(steps)
    kept, times = scheduler.alphas_cumprod.double(), scheduler.timesteps.tolist()
    product = 1.0
    for i, t in enumerate(times):
        after = kept[times[i + 1]] if i + 1 < steps else torch.ones((), dtype=torch.float64)
        product *= float(after.sqrt() * (1 - c * (1 - kept[t]).sqrt()) / kept[t].sqrt() + c * (1 - after).sqrt())
    run = model.invert(IMAGE, steps=steps, iterations=40)
    torch.testing.assert_close(run.start[0], IMAGE / product, rtol=1e-4, atol=1e-5)
    assert run.proofs["reconstruction"] < 1e-5
    torch.testing.assert_close(run.run()[0], IMAGE, rtol=1e-4, atol=1e-4)
    assert run.value() == pytest.approx(0, abs=1e-8)


def test_one_iteration_is_ddim_inversion():
    model = DiffusionModel(tiny_unet(), scheduler=_plain(timestep_spacing="trailing"), null=10)
    run = model.trajectory(3, steps=10, payoff=_mean)
    found = inverted(run, IMAGE)
    backwards = DDIMInverseScheduler(STEPS, clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    backwards.set_timesteps(10)
    x = IMAGE[None]
    for t in backwards.timesteps:  # the step to ``t``, asked with the image before it
        with torch.no_grad():
            e = model.denoiser.net(x, t[None], torch.tensor([3])).sample
        x = backwards.step(e, t, x).prev_sample
    torch.testing.assert_close(found.start[None], x, rtol=1e-3, atol=1e-4)


def test_iterations_and_steps_bring_the_picture_back():
    model = DiffusionModel(tiny_unet(), scheduler=_plain(), null=10)
    errors = {
        (steps, iterations): inverted(model.trajectory(3, steps=steps, payoff=_mean), IMAGE, iterations).error
        for steps, iterations in ((4, 1), (16, 1), (4, 6))
    }
    assert errors[16, 1] < errors[4, 1] / 2
    assert errors[4, 6] < errors[4, 1] / 10


def test_a_real_picture_is_explained_at_its_own_noise():
    model = DiffusionModel(tiny_unet(), scheduler=_plain(), null=10)
    run = model.invert(IMAGE, 3, steps=5)
    why = Shapley("steps").explain(run)
    assert why.checks["reconstruction"] < 0.05
    assert why.value == pytest.approx(run.value(), rel=1e-3)  # of squares near 0
    assert abs(why.value) < 1e-4  # with every step on its label the run ends in the picture
    assert why.base < why.value
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, rel=1e-4)
    assert run.describe()["latents"] == "given"
    bright = model.invert(IMAGE, 3, steps=5, payoff=_mean)
    assert bright.value() == pytest.approx(float(IMAGE.mean()), abs=0.01)


def test_what_does_not_lead_back_is_refused():
    model = DiffusionModel(tiny_unet(), scheduler=_plain(), null=10)
    with pytest.raises(ValueError, match=r"misses the picture by .* more than tolerance=1e-06.*more steps than 3"):
        model.invert(IMAGE, 3, steps=3, tolerance=1e-6, iterations=1)
    for tolerance in ("small", -1, True, float("nan")):
        with pytest.raises(ValueError, match="tolerance must be a number above 0"):
            model.invert(IMAGE, 3, steps=3, tolerance=tolerance)
    wild = DiffusionModel(lambda x, t, y: 3.0 * x * y.view(-1, 1, 1, 1), scheduler=_plain(), time="step", null=0)
    with pytest.raises(ValueError, match=r"guidance=1 \(not 5\)"):
        wild.invert(IMAGE, torch.tensor([1]), steps=3, guidance=5.0)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize(
    ("scheduler", "time"),
    [
        (EulerDiscreteScheduler(STEPS), "step"),
        (FlowMatchEulerDiscreteScheduler(STEPS), "unit"),
        (EDMEulerScheduler(num_train_timesteps=STEPS), "log_sigma"),
    ],
)
def test_other_first_order_samplers(scheduler, time):
    model = DiffusionModel(lambda x, t: 0.2 * x, scheduler=scheduler, time=time)
    run = model.invert(IMAGE, steps=6, iterations=60, tolerance=1e-3)
    torch.testing.assert_close(run.run()[0], IMAGE, rtol=1e-2, atol=2e-3)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize("scheduler", [DDPMScheduler(STEPS), DPMSolverMultistepScheduler(STEPS), DDIMScheduler(STEPS)])
def test_steps_that_cannot_be_gone_backwards(scheduler):
    model = DiffusionModel(tiny_unet(), scheduler=scheduler, null=10)
    with pytest.raises(Unsupported, match=r"adds noise, clips.*DDIMScheduler\(\.\.\., clip_sample=False\)"):
        model.invert(IMAGE, 3, steps=5)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
def test_latents_are_the_runs_start():
    model = DiffusionModel(tiny_unet(), scheduler=EulerDiscreteScheduler(STEPS), null=10)
    latents = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    run = model.trajectory(3, steps=3, payoff=_mean, draws=2, latents=latents)
    torch.testing.assert_close(run.start, latents)
    one = model.trajectory(3, steps=3, payoff=_mean, latents=latents[0])
    torch.testing.assert_close(run.samples(run.weights)[:1], one.run())
    for wrong in (latents[:, :, :4], "noise", latents * float("nan")):
        with pytest.raises(ValueError, match=r"latents must be finite numbers, one start a draw, \[2, 1, 8, 8\]"):
            model.trajectory(3, steps=3, payoff=_mean, draws=2, latents=wrong)
