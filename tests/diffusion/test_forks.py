"""Forks and commit times: which step decides, against closed forms of a linear denoiser."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler
from diffusion_cases import STEPS, tiny_net

from explain.diffusion.commit import commit_times
from explain.diffusion.model import DiffusionModel
from explain.types import Unsupported


def _first(x):
    return x[:, 0, 0, 0]


def _linear(scheduler, **options):
    """``e_hat = 0.6 x``: every step is linear in ``x_t`` with a factor of its own."""
    model = DiffusionModel(lambda x, t: 0.6 * x, scheduler=scheduler, time="step", shape=(1, 2, 2))
    return model.trajectory(payoff=_first, **options)


def _written_out(steps):
    """DDPM's factor and deviation of each step, with the posterior's variance (Ho et al. 2020, eq. 7)."""
    scheduler = DDPMScheduler(STEPS, clip_sample=False)
    scheduler.set_timesteps(steps)
    kept, times = scheduler.alphas_cumprod.double(), scheduler.timesteps.tolist()
    found = []
    for t in times:
        before = kept[t - STEPS // steps] if t >= STEPS // steps else torch.ones((), dtype=torch.float64)
        alpha = kept[t] / before
        clean = (1 - (1 - kept[t]).sqrt() * 0.6) / kept[t].sqrt()
        factor = before.sqrt() * (1 - alpha) / (1 - kept[t]) * clean + alpha.sqrt() * (1 - before) / (1 - kept[t])
        variance = (1 - before) / (1 - kept[t]) * (1 - alpha) if t > 0 else 0.0
        found.append((float(factor), float(variance)))
    return found


def test_the_variance_of_forks_is_that_of_the_noise_to_come():
    steps, draws = 4, 3000
    run = _linear(DDPMScheduler(STEPS, clip_sample=False), steps=steps)
    found = run.decided(draws=draws)
    each = _written_out(steps)
    explained = [variance * math.prod(factor**2 for factor, _ in each[i + 1 :]) for i, (_, variance) in enumerate(each)]
    expected = torch.tensor([sum(explained[i:]) for i in range(steps)], dtype=torch.float64)
    spread = expected * (2 / draws) ** 0.5  # the deviation of a normal sample's variance
    assert ((found.variance - expected).abs() <= 5 * spread + 1e-9).all()
    torch.testing.assert_close(found.explained.sum(), found.variance[0])
    assert found.t.tolist() == run.timesteps


def test_forks_share_the_run_up_to_their_step():
    """At step 2 the run is at one ``x_t``: what the scheduler makes of it is its mean and noise of each fork's own."""
    model = DiffusionModel(tiny_net(), time="step", scheduler=DDPMScheduler(STEPS), null=10, shape=(1, 8, 8))
    run = model.trajectory(3, steps=4, guidance=2.0, payoff=_first)
    middle, moment = run.forks(2, draws=3), list(run.moments(run.weights, 1))[2]
    x = list(run.moments(run.weights, 1))[1].after
    for sample in middle:
        scheduler = DDPMScheduler(STEPS)
        scheduler.set_timesteps(4)
        ends = []
        for seed in torch.randint(2**62, (3,), generator=torch.Generator().manual_seed(0x9E3779B97F4A7C)).tolist():
            noise = torch.Generator().manual_seed(seed ^ 0x5DEECE66)
            after = scheduler.step(moment.prediction, moment.t, x, generator=noise).prev_sample
            t = scheduler.timesteps[3]
            with torch.no_grad():
                c, u = (model.denoiser.net(after, t[None], torch.tensor([label])).sample for label in (3, 10))
            ends.append(scheduler.step(u + 2.0 * (c - u), t, after, generator=noise).prev_sample[0])
        assert any(torch.allclose(sample, end, atol=1e-5) for end in ends)
    assert len({float(sample.sum()) for sample in middle}) == 3
    assert torch.equal(run.forks(2, draws=3), middle)  # of the seed
    assert torch.equal(run.forks(3, draws=3), run.run().expand(3, -1, -1, -1))  # the last step, at t = 0, adds none


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [(DDIMScheduler, {"eta": 1.0}), (EulerAncestralDiscreteScheduler, {})],
)
def test_noise_in_the_steps_of_other_schedulers(scheduler, options):
    run = _linear(scheduler(STEPS), steps=3, **options)
    assert run.forks(0, draws=2).std(0).max() > 1e-3
    assert run.decided(draws=4).variance.shape == (3,)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
def test_eta_is_given_to_the_steps():
    run = _linear(DDIMScheduler(STEPS, clip_sample=False), steps=3, eta=0.7, seed=5)
    scheduler = DDIMScheduler(STEPS, clip_sample=False)
    scheduler.set_timesteps(3)
    x, generator = run.start, torch.Generator().manual_seed(5 ^ 0x5DEECE66)
    for t in scheduler.timesteps:
        x = scheduler.step(0.6 * x, t, x, eta=0.7, generator=generator).prev_sample
    torch.testing.assert_close(run.run(), x)
    assert run.describe()["eta"] == 0.7
    with pytest.raises(ValueError, match="eta must be from 0"):
        _linear(DDIMScheduler(STEPS), eta=2.0)
    with pytest.raises(ValueError, match="the steps of HeunDiscreteScheduler take no eta"):
        _linear(HeunDiscreteScheduler(STEPS), eta=1.0)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize("scheduler", [DDIMScheduler, HeunDiscreteScheduler])
def test_without_noise_there_are_no_forks(scheduler):
    run = _linear(scheduler(STEPS), steps=3)
    with pytest.raises(Unsupported, match=r"add no noise here.*eta=1"):
        run.forks(1)
    with pytest.raises(Unsupported, match="everything is decided with x_T"):
        run.decided()


def test_forks_that_cannot_be():
    run = _linear(DDPMScheduler(STEPS), steps=3)
    for at in (3, -1, 1.5):
        with pytest.raises(ValueError, match="at must be a step of the run, from 0 to 2"):
            run.forks(at)
    with pytest.raises(ValueError, match="draws must be at least 2"):
        run.decided(draws=1)


def test_commit_times_are_the_first_steps_that_stay():
    foreseen = torch.tensor([[[0.0, 1.0, 0.9], [1.0, 1.0, 1.0]], [[1.0, 0.2, 1.0], [1.0, 1.0, 0.0]], [[1.0] * 3] * 2])
    assert commit_times(foreseen, torch.ones(2, 3), 0.15).tolist() == [1, 2, 2]
    assert commit_times(foreseen[:2], torch.ones(2, 3), 0.15).tolist() == [1, 2, 2]  # never: the number of steps
    run = _linear(DDIMScheduler(STEPS, clip_sample=False), steps=5)
    images, sample = run.images(), run.run()[0]
    times = run.commit_times(0.2)
    assert times.shape == (2, 2)
    for place in ((0, 0), (1, 1)):
        near = [float((image[0][place] - sample[0][place]).abs()) <= 0.2 for image in images]
        assert int(times[place]) == next(k for k in range(6) if all(near[k:]))
    for tolerance in (0, -1, True, "wide", float("nan")):
        with pytest.raises(ValueError, match="tolerance must be a number above 0"):
            run.commit_times(tolerance)
