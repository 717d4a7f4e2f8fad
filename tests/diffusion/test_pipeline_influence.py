"""Derivatives through a pipeline's own call, and the training images behind its picture."""

import pytest
import torch
from tiny_pipelines import CASES, PROMPT

import explain
from explain import Influence
from explain.types import Unsupported


def brightness(pictures):
    return pictures.mean((1, 2, 3))


def asked(name, steps=2, **call):
    prompt = {"prompt": PROMPT} if CASES[name].asks == "words" else {}
    pipeline = CASES[name].build()
    return pipeline, explain.wrap(pipeline).trajectory(**prompt, steps=steps, seed=3, payoff=brightness, **call)


@pytest.mark.parametrize("name", ["sd", "ddim"])
@pytest.mark.parametrize("way", ["autograd", "func"])
def test_derivatives_are_those_of_the_pipeline_itself(name, way):
    pipeline, run = asked(name)
    params = {f"net.{key}": value.detach().clone() for key, value in pipeline.unet.named_parameters()}
    if way == "func":
        found = torch.func.grad(run.measured)(params)
    else:
        leaves = {key: value.requires_grad_() for key, value in params.items()}
        found = dict(zip(leaves, torch.autograd.grad(run.measured(leaves), list(leaves.values())), strict=True))
    own = {"generator": torch.Generator().manual_seed(3), "num_inference_steps": 2, "output_type": "pt"}
    call = type(pipeline).__call__.__wrapped__
    pictures = call(pipeline, *([PROMPT] if name == "sd" else []), **own).images
    parameters = list(pipeline.unet.parameters())
    expected = torch.autograd.grad(brightness(pictures)[0], parameters)
    for gradient, value in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in parameters)


def test_training_images_behind_a_picture():
    """Leave-one-out of a ridge: the last layer alone is linear in its parameters, so that the matrix can be written."""
    _, run = asked("ddim")
    images = torch.randn(4, *run.like.shape, generator=torch.Generator().manual_seed(0))
    chosen = ("conv_out.bias",)
    with pytest.warns(UserWarning, match="not at a minimum"):  # it was never trained
        why = Influence(train=images, parameters=chosen, solver="exact", damping=0.1).explain(run)
    objective = run.objective(images)
    own = {"net.conv_out.bias": objective.params["net.conv_out.bias"]}

    def at(params):
        return {**objective.params, **params}

    def gradient(number):
        return torch.func.grad(number)(own)["net.conv_out.bias"].double()

    each = [gradient(lambda p, i=i: objective.train_loss(at(p), torch.tensor([i]))[0]) for i in range(4)]
    mean = lambda p: objective.train_loss(at(p), torch.arange(4)).mean()  # noqa: E731
    matrix = torch.func.hessian(mean)(own)["net.conv_out.bias"]["net.conv_out.bias"].double()
    solved = torch.linalg.solve(matrix + 0.1 * torch.eye(len(matrix)), gradient(lambda p: objective.measurement(at(p))))
    expected = torch.stack([-(solved @ one) / 4 for one in each])
    torch.testing.assert_close(why.scores, expected, rtol=1e-3, atol=1e-9)
    assert run.value() == pytest.approx(float(objective.measurement(objective.params)), rel=1e-5)


def test_a_call_that_leaves_torch_is_refused():
    _, run = asked("pndm", steps=4)
    with pytest.raises(Unsupported, match="leaves torch"):
        run.measured({f"net.{key}": value for key, value in run.module.named_parameters()})
