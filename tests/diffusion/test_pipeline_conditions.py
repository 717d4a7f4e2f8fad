"""What a pipeline's call is given as players: every coalition is the pipeline called without the others."""

import itertools

import pytest
import torch
from tiny_pipelines import CASES, NEGATIVE, PROMPT

import explain


def brightness(pictures):
    return pictures.mean((1, 2, 3))


def test_prompt_negative_prompt_and_a_controlnet():
    case = CASES["controlnet"]
    pipeline = case.build()
    asked = {"payoff": brightness, "steps": 3, "seed": 3, "draws": 2}
    run = explain.wrap(pipeline).trajectory(PROMPT, negative=NEGATIVE, **asked, **case.call)
    players = run.players("conditions")
    assert players.names == ("prompt", "negative prompt", "ControlNet")
    masks = torch.tensor(list(itertools.product([False, True], repeat=3)))
    expected = []
    for prompt, negative, control in masks.tolist():
        own = {"negative_prompt": NEGATIVE if negative else "", "controlnet_conditioning_scale": float(control)}
        own |= {"num_inference_steps": 3, "output_type": "pt", **case.call}
        seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        pictures = [pipeline(PROMPT if prompt else "", generator=seed, **own).images for seed in seeds]
        expected.append(float(brightness(torch.cat(pictures)).mean()))
    found = run.game(players)(masks)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run.game(players)(masks.flip(0)), found.flip(0), rtol=1e-5, atol=1e-6)


def test_a_call_that_is_given_nothing():
    with pytest.raises(ValueError, match="is given no prompt"):
        explain.wrap(CASES["ddpm"].build()).trajectory(steps=2, payoff=brightness).players("conditions")
