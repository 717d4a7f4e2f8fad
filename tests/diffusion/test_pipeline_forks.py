"""Forks of a pipeline's run: the same start, other noise from a step on, and when each pixel is settled."""

import pytest
import torch
from tiny_pipelines import CASES, PROMPT

import explain
from explain.types import Unsupported

STEPS = 4


def brightness(pictures):
    return pictures.mean((1, 2, 3))


def asked(name, **call):
    prompt = {"prompt": PROMPT} if CASES[name].asks == "words" else {}
    return explain.wrap(CASES[name].build()).trajectory(**prompt, steps=STEPS, seed=3, payoff=brightness, **call)


class Swapped:
    """The pipeline's own noise up to a step, as its users would swap it: by reseeding the generator in between."""

    def __init__(self, scheduler, at, seed, generator):
        self.own, self.at, self.seed, self.generator, self.count = scheduler.step, at, seed, generator, 0

    def __call__(self, *args, **kwargs):
        if self.count == self.at:
            self.generator.manual_seed(self.seed)
        self.count += 1
        return self.own(*args, **kwargs)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_forks_are_the_pipeline_with_its_generator_seeded_anew(at):
    run = asked("ddpm")
    seen = []
    original = run.forked
    run.forked = lambda fork: seen.append(fork) or original(fork)
    found = run.forks(at, 2)
    for i, seed in enumerate(seen[-1].seeds):
        pipeline, generator = CASES["ddpm"].build(), torch.Generator().manual_seed(3)
        pipeline.scheduler.step = Swapped(pipeline.scheduler, at, seed, generator)
        expected = pipeline(generator=generator, num_inference_steps=STEPS, output_type="pt").images[0]
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-5)


def test_what_the_noise_of_each_step_explains():
    found = asked("sd", eta=1.0).decided(6)
    assert found.variance[0] > found.variance[-1]
    torch.testing.assert_close(found.explained.sum(), found.variance[0])


def test_pixels_are_settled_when_what_is_foreseen_keeps_to_the_picture():
    run = asked("sd")
    times, foreseen = run.commit_times(0.02), run.images()
    apart = (foreseen - run.picture()).abs().amax(1)
    for k in range(STEPS):
        assert bool((apart[k][times <= k] <= 0.02).all())
    before = apart.gather(0, (times - 1).clamp_min(0)[None])[0]
    assert bool((before[times > 0] > 0.02).all())


def test_a_run_without_noise_has_no_forks():
    with pytest.raises(Unsupported, match="add no noise"):
        asked("sd").forks(0)
    with pytest.raises(ValueError, match="from 0 to 3, got 4"):
        asked("sd", eta=1.0).forks(4)
