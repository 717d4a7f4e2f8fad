"""A real picture through a pipeline: back to its noise, and the pipeline's own call from there."""

from functools import cache

import diffusers
import pytest
import torch
from pipeline_calls import built, ink
from tiny_pipelines import CASES, PROMPT, picture, stable_diffusion

import explain
from explain.types import Unsupported

# the arithmetic of two of diffusers' schedulers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def calmed(pipeline, share=0.01):
    """A pipeline whose network hangs on its input as little as inversion takes it to, which no untrained one does."""
    with torch.no_grad():
        for name, weights in pipeline.components[
            "unet" if hasattr(pipeline, "unet") else "transformer"
        ].named_parameters():
            weights.mul_(share if name.startswith(("conv_out", "proj_out")) else 1)
    return pipeline


@cache
def calm():
    return calmed(stable_diffusion())


def latent_of(pipeline):
    return pipeline.vae.encode(2 * picture() - 1).latent_dist.mode() * pipeline.vae.config.scaling_factor


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
def test_one_iteration_is_ddim_inversion_by_hand():
    """Also where it misses: by so much as its steps and iterations are too few, no more."""
    pipeline, errors = calmed(stable_diffusion(), 0.1), {}
    text, latent = pipeline.encode_prompt(PROMPT, "cpu", 1, False)[0], latent_of(pipeline)
    for steps, iterations in ((4, 1), (6, 8)):
        run = explain.wrap(pipeline).invert(picture()[0], PROMPT, steps=steps, iterations=iterations, tolerance=9)
        errors[steps] = run.proofs["reconstruction"]
        if iterations == 1:
            inverse, x = diffusers.DDIMInverseScheduler.from_config(pipeline.scheduler.config), latent
            inverse.set_timesteps(steps)
            for t in inverse.timesteps:
                x = inverse.step(pipeline.unet(x, t, text).sample, t, x).prev_sample
            torch.testing.assert_close(run.latents, x, rtol=1e-4, atol=1e-5)
    assert errors[6] < errors[4] / 10


def test_the_run_is_the_pipelines_own_call_and_ends_in_the_picture():
    pipeline = calm()
    run = explain.wrap(pipeline).invert(picture()[0], PROMPT, steps=4, payoff=ink)
    call = {"latents": run.latents, "guidance_scale": 1.0, "num_inference_steps": 4, "output_type": "pt"}
    made = pipeline(PROMPT, **call).images
    torch.testing.assert_close(run.picture()[None], made, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        alone = (pipeline.vae.decode(latent_of(pipeline) / pipeline.vae.config.scaling_factor).sample / 2 + 0.5).clamp(
            0, 1
        )
    assert run.proofs["reconstruction"] == pytest.approx(relative(made, alone), abs=1e-6)
    assert run.proofs["vae"] == pytest.approx(relative(alone, picture()), rel=1e-4)
    said = run.describe()["assumed"]
    assert said["latents"].startswith("x0 gone backwards in 4 steps: the run misses it by ")
    assert said["x0"].startswith("as the pipeline's VAE gives it back, ")
    why = explain.Occlusion("words").explain(run)
    assert why.checks["reconstruction"] == run.proofs["reconstruction"] < 0.05


@pytest.mark.parametrize("name", ["sd3", "flux", "sdxl"])
def test_other_pipelines_shifted_packed_and_scaled(name):
    call = {} if name == "sdxl" else {"max_sequence_length": 16}
    pipeline = calmed(CASES[name].build())
    run = explain.wrap(pipeline).invert(picture()[0], PROMPT, steps=3, tolerance=1e-2, **call)
    assert run.value() > -1e-4
    guidance = {} if name == "flux" else {"guidance_scale": 1.0}
    made = pipeline(
        PROMPT, latents=run.latents, num_inference_steps=3, height=16, width=16, output_type="pt", **guidance, **call
    )
    torch.testing.assert_close(run.picture()[None], made.images, rtol=1e-5, atol=1e-5)


def test_a_latent_is_measured_as_one():
    latent = latent_of(calm())[0].detach()
    run = explain.wrap(calm()).invert(latent, PROMPT, steps=3)
    assert run.space == "latents"
    assert run.value() > -1e-4
    assert "vae" not in run.proofs


def test_what_does_not_lead_back_is_refused():
    model, x0 = explain.wrap(calm()), picture()[0]
    with pytest.raises(ValueError, match=r"misses the picture by .* more than tolerance=1e-09.*more steps than 2,"):
        model.invert(x0, PROMPT, steps=2, iterations=1, tolerance=1e-9)
    with pytest.raises(ValueError, match=r"guidance=1 \(not 200\)"):
        model.invert(x0, PROMPT, steps=2, guidance=200.0)
    with pytest.raises(ValueError, match="tolerance must be a number above 0"):
        model.invert(x0, PROMPT, steps=2, tolerance="small")
    with pytest.raises(ValueError, match="iterations must be a whole number"):
        model.invert(x0, PROMPT, steps=2, iterations=0)
    with pytest.raises(Unsupported, match="it adds noise, clips"):
        model.invert(x0, PROMPT, steps=2, eta=0.5)
    with pytest.raises(
        Unsupported, match=r"remembers earlier predictions.*Use DDIMScheduler\(\.\.\., clip_sample=False\)"
    ):
        explain.wrap(built("pixart alpha")).invert(
            x0, PROMPT, steps=4, max_sequence_length=16, use_resolution_binning=False
        )
    with pytest.raises(TypeError, match=r"DDPMPipeline takes no latents to start from: .* model\.inside\.invert"):
        explain.wrap(built("ddpm")).invert(torch.rand(3, 8, 8))
