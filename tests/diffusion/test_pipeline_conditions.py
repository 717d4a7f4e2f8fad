"""What a pipeline's call is given as players: every coalition is the pipeline called without the others."""

import itertools

import pytest
import torch
from pipeline_calls import asked, built, ink, own
from tiny_pipelines import CASES, NEGATIVE, PROMPT, picture

import explain
from explain.types import Unsupported

# the arithmetic of a scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_an_embedded_prompt_is_the_prompt_but_for_its_words(name):
    pipeline = built(name)
    read = pipeline.encode_prompt(PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    embedded = dict(zip(names, read, strict=False))
    whole = explain.wrap(pipeline).trajectory(**asked(name, payoff=ink, negative=None, draws=2))
    run = explain.wrap(pipeline).trajectory(**asked(name, payoff=ink, negative=None, draws=2, prompt=None), **embedded)
    assert run.plan.blocks == (("uncond", "cond"),)
    assert run.alike
    for kind in ("steps", "guidance"):
        own, other = (explain.Occlusion(kind).explain(one) for one in (run, whole))
        torch.testing.assert_close(own.scores, other.scores, rtol=1e-4, atol=1e-6)
    assert run.describe()["label"] == "embedded prompt"
    with pytest.raises(Unsupported, match="this call has prompt_embeds=: give the prompt itself"):
        run.game("words")
    with pytest.raises(TypeError, match="given twice, as text and as prompt_embeds="):
        explain.wrap(pipeline).trajectory(PROMPT, **embedded)
    with pytest.raises(ValueError, match=r"prompt_embeds must hold one prompt, \[1, \.\.\.\], got \[2, 16, \d+\]"):
        explain.wrap(pipeline).trajectory(**embedded | {"prompt_embeds": embedded["prompt_embeds"].repeat(2, 1, 1)})
    of_step = explain.wrap(pipeline).step(picture()[0], 500, draws=1, **embedded)
    assert of_step.value() == pytest.approx(explain.wrap(pipeline).step(picture()[0], 500, PROMPT, draws=1).value())


@pytest.mark.parametrize(("name", "dtype"), [("sd", torch.bfloat16), ("deepfloyd", torch.float32)])
def test_without_guidance_a_run_is_the_pipeline_s_own_at_weight_one(name, dtype):
    """In half precision too, and with variances that follow the branch of the condition."""
    pipeline = CASES[name].build().to(dtype)
    run = explain.wrap(pipeline).trajectory(**asked(name, payoff=wide))
    assert run.plan.weights.tolist() == [5.0, 5.0]
    of_guidance, of_steps = (run.game(kind)(torch.tensor([[False, False]])) for kind in ("guidance", "steps"))
    plain = float(wide(own(name, pipeline, guidance=1.0)[None]))
    without = float(wide(own(name, pipeline, guidance=1.0, prompt=NEGATIVE)[None]))
    assert float(of_guidance) == pytest.approx(plain, abs=1e-6)
    assert float(of_steps) == pytest.approx(without, abs=1e-6)


def wide(pictures):
    return pictures.double().mean((1, 2, 3))
