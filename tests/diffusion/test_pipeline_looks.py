"""Steps of an unconditional pipeline's run: every coalition as its user would make it, by a scheduler that holds."""

import pytest
import torch
from tiny_pipelines import CASES

import explain
from explain.shapley import Shapley

STEPS = 3


def brightness(pictures):
    return pictures.mean((1, 2, 3))


class Holding:
    """The scheduler's step, given the noise that the image foreseen at the last look implies where nobody looks."""

    def __init__(self, scheduler, looks):
        self.own, self.kept, self.looks, self.clean = scheduler.step, scheduler.alphas_cumprod, iter(looks), 0.0

    def __call__(self, model_output, timestep, sample, *args, **kwargs):
        a, s = self.kept[timestep].sqrt(), (1 - self.kept[timestep]).sqrt()
        if next(self.looks):
            self.clean = (sample - s * model_output) / a
        return self.own((sample - a * self.clean) / s, timestep, sample, *args, **kwargs)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_every_coalition_of_steps_is_the_pipeline_that_holds(name):
    run = explain.wrap(CASES[name].build()).trajectory(steps=STEPS, seed=3, payoff=brightness)
    masks = torch.tensor([[bool(code >> i & 1) for i in range(STEPS)] for code in range(2**STEPS)])
    game = run.game("steps")
    assert game.checks["removal"] == "the image foreseen before, zeros at first"
    expected = []
    for mask in masks:
        pipeline = CASES[name].build()
        pipeline.scheduler.step = Holding(pipeline.scheduler, mask.tolist())
        generator = torch.Generator().manual_seed(3)
        pictures = pipeline(generator=generator, num_inference_steps=STEPS, output_type="pt").images
        expected.append(float(torch.as_tensor(pictures).mean()))
    torch.testing.assert_close(game(masks), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-5)
    assert float(game(masks[-1:])) == pytest.approx(run.value(), rel=1e-5)


def test_credit_of_looks_is_shared():
    run = explain.wrap(CASES["ddim"].build()).trajectory(steps=STEPS, seed=3, payoff=brightness, draws=2)
    why = Shapley("steps").explain(run)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, abs=1e-6)
