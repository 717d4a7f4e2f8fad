"""Calls whose guidance changes on the way: words play as always, steps are refused in words."""

import pytest
import torch
from tiny_pipelines import CASES, PROMPT

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
    for run, picture in zip(runs, own, strict=True):
        torch.testing.assert_close(run.picture(), picture, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match="several prompts, got 'a red fox'"):
        model.trajectories("a red fox")
    with pytest.raises(ValueError, match="2 prompts need 2 seeds"):
        model.trajectories(prompts, seeds=[1])
    with pytest.raises(TypeError, match="trajectories"):
        model.trajectory(prompts)
    with pytest.raises(TypeError, match="draws="):
        model.trajectory("a red fox", num_images_per_prompt=2)
