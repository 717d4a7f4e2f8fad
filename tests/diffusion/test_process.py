"""Noise and its inverse, in every parameterisation."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.diffusion.process import PREDICTIONS, Gaussian
from explain.diffusion.schedules import gaussian_of


def _process(prediction):
    if prediction == "flow_prediction":
        return Gaussian(None, 50, prediction)
    return Gaussian(torch.linspace(0.999, 0.01, 50, dtype=torch.float64).sqrt(), 50, prediction)


@settings(max_examples=40, deadline=None)
@given(prediction=st.sampled_from(PREDICTIONS), t=st.integers(1, 49), seed=st.integers(0, 1000))
def test_a_right_prediction_gives_back_image_and_noise(prediction, t, seed):
    process = _process(prediction)
    generator = torch.Generator().manual_seed(seed)
    x0, e = torch.randn(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    times = torch.full((3,), t)
    x = process.noised(x0, e, times)
    wanted = process.wanted(x0, e, times)
    torch.testing.assert_close(process.clean(x, wanted, times), x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(process.noise_in(x, wanted, times), e, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_process_is_the_schedulers(kind):
    scheduler = DDPMScheduler(100, prediction_type=kind)
    process = gaussian_of(scheduler, kind)
    x0, e, t = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.tensor([0, 10, 50, 99])
    torch.testing.assert_close(process.noised(x0, e, t), scheduler.add_noise(x0, e, t))
    if kind == "v_prediction":
        torch.testing.assert_close(process.wanted(x0, e, t), scheduler.get_velocity(x0, e, t))
    scheduler.set_timesteps(100)
    t = torch.tensor(50)
    prediction = torch.randn(1, 1, 8, 8).clamp(-0.1, 0.1)
    x = process.noised(x0[:1], e[:1], t[None])
    plain = DDIMScheduler(100, prediction_type=kind, clip_sample=False)
    plain.set_timesteps(100)
    found = plain.step(prediction, 50, x).pred_original_sample
    torch.testing.assert_close(process.clean(x, prediction, t[None]), found, rtol=1e-4, atol=1e-5)


def test_flow_matching():
    scheduler = FlowMatchEulerDiscreteScheduler(1000)
    process = gaussian_of(scheduler, None)
    x0, e = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    t = torch.tensor([250.0, 750.0])
    torch.testing.assert_close(
        process.noised(x0, e, t),
        0.75 * x0 * torch.tensor([1.0, 1 / 3]).view(-1, 1, 1, 1) + e * torch.tensor([0.25, 0.75]).view(-1, 1, 1, 1),
    )
    assert process.prediction == "flow_prediction"


def test_another_prediction_type_is_refused():
    with pytest.raises(ValueError, match=r"the model predicts 'v_prediction'.*configured for 'epsilon'"):
        gaussian_of(DDIMScheduler(10), "v_prediction")
    assert gaussian_of(EulerDiscreteScheduler(10), None).steps == 10


@pytest.mark.parametrize("t", [-1, 50, 3.5, True])
def test_steps_outside_the_schedule(t):
    with pytest.raises(ValueError, match="t must be a step of the schedule, from 0 to 49"):
        _process("epsilon").checked_step(t)
