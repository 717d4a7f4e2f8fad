"""Calls with functions of the user's, several prompts, arguments that are asked for otherwise, and runs that travel."""

import pickle

import pytest
import torch
from pipeline_calls import built, ink
from tiny_pipelines import CASES, PROMPT, picture

import explain
from explain.types import Unsupported


def brightness(pictures):
    return pictures.mean((1, 2, 3))


def guidance_off(pipeline, step, t, tensors):
    """As diffusers' own cut-off of guidance: from the second step on the condition alone."""
    if step == 1:
        pipeline._guidance_scale = 0.0
        tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
    return tensors


def test_a_callback_that_switches_guidance_off():
    pipeline = CASES["sd"].build()
    callback = {"callback_on_step_end": guidance_off}
    callback["callback_on_step_end_tensor_inputs"] = ["latents", "prompt_embeds"]
    asked = {"payoff": brightness, "steps": 4, "guidance": 5.0, "seed": 3}
    run = explain.wrap(pipeline).trajectory(PROMPT, **asked, **callback)
    masks = torch.tensor([[1, 0, 1, 0, 1, 1], [1] * 6, [0] * 6]).bool()
    expected = []
    for mask in masks.tolist():
        text = " ".join(word for word, here in zip(PROMPT.split(), mask, strict=True) if here)
        own = {"num_inference_steps": 4, "guidance_scale": 5.0, "output_type": "pt", **callback}
        expected.append(float(brightness(pipeline(text, generator=torch.Generator().manual_seed(3), **own).images)))
    torch.testing.assert_close(run.game("words")(masks).float(), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    with pytest.raises(Unsupported, match="joins its branches otherwise"):
        run.game("steps")


def test_a_branch_without_weight_cannot_be_weighed_anew():
    run = explain.wrap(CASES["ldm text"].build()).trajectory(PROMPT, steps=2, guidance=0.0, payoff=brightness)
    with pytest.raises(Unsupported, match="guidance of 0 in this call"):
        run.game("guidance")


def test_several_prompts_are_several_runs_of_one_call():
    pipeline, prompts = CASES["sd"].build(), ["a red fox", "deep snow"]
    model = explain.wrap(pipeline)
    runs = model.trajectories(prompts, seeds=[3, 5], steps=2, payoff=brightness)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 5)]
    own = pipeline(prompts, generator=generators, num_inference_steps=2, output_type="pt").images
    for run, made in zip(runs, own, strict=True):
        torch.testing.assert_close(run.picture(), made, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match="several prompts, got 'a red fox'"):
        model.trajectories("a red fox")
    with pytest.raises(ValueError, match="2 prompts need 2 seeds"):
        model.trajectories(prompts, seeds=[1])
    with pytest.raises(TypeError, match="trajectories"):
        model.trajectory(prompts)


def test_what_the_call_takes_and_is_asked_for_otherwise():
    model = explain.wrap(built("sd"))
    for settings, remedy in {
        ("num_images_per_prompt", 2): "draws=",
        ("output_type", "latent"): "space='pixels' or 'latents'",
        ("generator", torch.Generator()): "seed=",
        ("return_dict", False): r"run\.picture",
    }.items():
        with pytest.raises(TypeError, match=remedy):
            model.trajectory("a red fox", **dict([settings]))
    one = model.trajectory("a red fox", steps=2, num_images_per_prompt=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = model.trajectory("a red fox", steps=2)
    assert torch.equal(one.picture(), within.picture())
    assert within.describe()["assumed"]["autocast"].startswith("off within the run")
    assert "autocast" not in one.assumed


def test_a_callback_that_remembers_makes_no_number():
    calls = []

    def fading(pipeline, step, t, tensors):
        calls.append(step)
        return {"latents": tensors["latents"] * (1 - 0.1 * len(calls))}

    def halved(pipeline, step, t, tensors):
        return {"latents": tensors["latents"] / 2}

    model = explain.wrap(built("sd"))
    with pytest.raises(ValueError, match="given as callback_on_step_end remembers or draws"):
        model.trajectory(PROMPT, steps=2, callback_on_step_end=fading)
    assert model.trajectory(PROMPT, steps=2, callback_on_step_end=halved).alike
    with pytest.raises(Unsupported, match="callback_on_step_end= acts between the steps of a run"):
        model.step(torch.rand(3, 16, 16), 500, PROMPT, callback_on_step_end=halved)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_runs_and_steps_travel(name):
    model, call = explain.wrap(built(name)), {"height": 16, "width": 16}
    call |= {"max_sequence_length": 16} if name == "flux" else {}
    run = model.trajectory(PROMPT, payoff=ink, steps=2, **call)
    step = model.step(picture()[0], 500, PROMPT, draws=1, **call)
    for question in (run, step):
        other = pickle.loads(pickle.dumps(question))
        assert other.value() == question.value()
        assert other.describe() == question.describe()
