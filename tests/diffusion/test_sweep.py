"""A sweep of guidance: every weight is the run asked for with it."""

import pytest
import torch
from diffusion_cases import unet_model
from matplotlib import pyplot as plt
from tiny_pipelines import CASES, PROMPT

import explain
from explain import plot

WEIGHTS = [4.0, 0.0, 1.0]


def brightness(pictures):
    return pictures.mean((1, 2, 3))


@pytest.mark.parametrize("name", ["sd", "flux", "dit"])
def test_of_a_pipeline(name):
    case = CASES[name]
    pipeline = case.build()
    asked = {"payoff": brightness, "steps": 2, "draws": 2, "seed": 3, **case.call}
    asked.pop("guidance_scale", None)
    condition = {"prompt": PROMPT} if case.asks == "words" else {"label": 3}
    model = explain.wrap(pipeline)
    found = model.trajectory(**condition, **asked).sweep(WEIGHTS)
    assert found.weights == sorted(WEIGHTS)
    for weight, number, picture in zip(found.weights, found.numbers, found.images, strict=True):
        run = model.trajectory(**condition, guidance=weight, **asked)
        assert float(number) == pytest.approx(run.value(), rel=1e-4)
        torch.testing.assert_close(picture, run.picture(), rtol=1e-4, atol=1e-5)
    assert plot.sweep(**found._asdict()) is not None
    plt.close("all")


def test_of_a_network():
    model = unet_model()
    asked = {"payoff": lambda x: x.mean((1, 2, 3)), "steps": 3, "draws": 2, "seed": 1}
    found = model.trajectory(2, **asked).sweep(WEIGHTS)
    for weight, number in zip(found.weights, found.numbers, strict=True):
        assert float(number) == pytest.approx(model.trajectory(2, guidance=weight, **asked).value(), rel=1e-4)
    with pytest.raises(ValueError, match="guidance must be a finite number"):
        model.trajectory(2, **asked).sweep(["much"])
