"""Steps of pipelines beside the same by hand: conditions from the pipeline's own call, pictures through its VAE."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from pipeline_calls import built, state
from tiny_pipelines import NEGATIVE, PROMPT, controlnet, picture

import explain
from explain.types import Unsupported

# the arithmetic of two of diffusers' schedulers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

T, DRAWS, SEED = 500, 2, 4
SIZE = {"height": 32, "width": 32}


def noise_like(latent):
    """The draws of noise that a step with this seed shares."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(DRAWS, *latent.shape, generator=generator, dtype=torch.float64).float()


def encoded(pipe, pictures):
    """Latents as the pipeline scales them."""
    config = pipe.vae.config
    return (pipe.vae.encode(2 * pictures - 1).latent_dist.mode() - (config.shift_factor or 0)) * config.scaling_factor


def decoded(pipe, latents):
    config = pipe.vae.config
    made = pipe.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0)).sample
    return (made / 2 + 0.5).clamp(0, 1)


def noised(pipe, latent):
    """``x_t`` of the draws, and their noise; a diffusion or a flow."""
    noise = noise_like(latent)
    if hasattr(pipe, "unet") or "alphas_cumprod" in vars(pipe.scheduler):
        level = pipe.scheduler.alphas_cumprod[T]
        return level.sqrt() * latent + (1 - level).sqrt() * noise, noise
    return (1 - T / 1000) * latent + T / 1000 * noise, noise


def sd(pipe, x, prompt):
    text, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
    return pipe.unet(x, T, text.expand(len(x), -1, -1)).sample


def sdxl(pipe, x, prompt):
    text, _, pooled, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
    sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(len(x), -1)
    beside = {"text_embeds": pooled.expand(len(x), -1), "time_ids": sizes}
    return pipe.unet(x, T, text.expand(len(x), -1, -1), added_cond_kwargs=beside).sample


def sd3(pipe, x, prompt):
    text, _, pooled, _ = pipe.encode_prompt(
        prompt, None, None, do_classifier_free_guidance=False, max_sequence_length=16
    )
    times = torch.full((len(x),), float(T))
    return pipe.transformer(x, text.expand(len(x), -1, -1), pooled.expand(len(x), -1), times).sample


def flux(pipe, x, prompt):
    text, pooled, text_ids = pipe.encode_prompt(prompt, None, max_sequence_length=16)
    ids = pipe._prepare_latent_image_ids(len(x), 4, 4, "cpu", torch.float32)
    said = pipe.transformer(
        pipe._pack_latents(x, *x.shape),
        text.expand(len(x), -1, -1),
        pooled.expand(len(x), -1),
        torch.full((len(x),), T / 1000),
        ids,
        text_ids,
        guidance=torch.full((len(x),), 3.5),
    ).sample
    return pipe._unpack_latents(said, 16, 16, pipe.vae_scale_factor)


def pixart(pipe, x, prompt):
    text, mask, _, _ = pipe.encode_prompt(prompt, False, max_sequence_length=16, clean_caption=False)
    beside = {"resolution": None, "aspect_ratio": None}
    text, mask, times = text.expand(len(x), -1, -1), mask.expand(len(x), -1), torch.full((len(x),), T)
    return pipe.transformer(x, text, times, beside, encoder_attention_mask=mask).sample[:, :4]


BY_HAND = {
    "sd": (sd, {}),
    "sdxl": (sdxl, {}),
    "sd3": (sd3, {"max_sequence_length": 16}),
    "flux": (flux, {"max_sequence_length": 16, "guidance": 3.5}),
    "pixart sigma": (pixart, {"max_sequence_length": 16, "use_resolution_binning": False}),
}


def step(name, **changed):
    """The question about one step of a pipeline."""
    settings = {"draws": DRAWS, "seed": SEED} | BY_HAND[name][1] | changed
    return explain.wrap(built(name)).step(picture()[0], T, PROMPT, **settings)


@cache
def plain(name):
    """The question with its default settings."""
    return step(name)


@torch.no_grad()
def by_hand(name, pictures, payoff):
    """A payoff of the noise and of ``x0_hat``, for pictures one by one."""
    pipe, network = built(name), BY_HAND[name][0]
    found = []
    for one in pictures:
        x, noise = noised(pipe, encoded(pipe, one[None])[0])
        said = network(pipe, x, PROMPT)
        if name in ("sd3", "flux"):
            clean, said_noise = x - T / 1000 * said, x + (1 - T / 1000) * said
        else:
            level = pipe.scheduler.alphas_cumprod[T]
            clean, said_noise = (x - (1 - level).sqrt() * said) / level.sqrt(), said
        found.append(float(payoff(noise, said_noise, decoded(pipe, clean)).double().mean()))
    return found


def error(noise, said, _):
    return -(noise - said).square().sum((1, 2, 3))


def filled():
    """The picture, and with its right half, and with nothing left of it."""
    own = picture()
    mean = own.mean((2, 3), keepdim=True).expand_as(own)
    left = torch.arange(16) < 8
    return torch.cat([own, torch.where(left, own, mean), mean])


@pytest.mark.parametrize("name", BY_HAND)
def test_the_error_of_filled_pictures_is_that_of_the_network_called_by_hand(name):
    asked = plain(name)
    players = asked.players("patches", size=(16, 8))
    masks = torch.tensor([[True, True], [True, False], [False, False]])
    wanted = by_hand(name, filled(), error)
    assert asked.value() == pytest.approx(wanted[0], rel=1e-5)
    assert asked.game(players)(masks).tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_payoffs_see_decoded_pictures_and_regions_are_of_pixels(name):
    region = torch.zeros(16, 16, dtype=torch.bool)
    region[2:7, 9:] = True

    def brightness(pictures):
        assert pictures.shape[1:] == (3, 16, 16)
        assert 0 <= pictures.min() <= pictures.max() <= 1
        return pictures[:, :, region].mean((1, 2))

    (wanted,) = by_hand(name, picture(), lambda _, __, clean: clean[:, :, region].mean((1, 2)))
    of_region = step(name, payoff="x0", region=region)
    assert of_region.value() == pytest.approx(wanted, rel=1e-5)
    assert of_region.pixels().tolist() == region.flatten().nonzero().flatten().tolist()
    assert step(name, payoff=brightness).value() == pytest.approx(wanted, rel=1e-5)
    assert plain(name).pixels().tolist() == list(range(256))


def test_a_region_of_the_error_counts_each_place_by_its_pixels():
    region = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) > 0.5
    parts = [step("sd", region=part).value() for part in (region, ~region)]
    assert sum(parts) == pytest.approx(plain("sd").value(), rel=1e-5)
    aligned = torch.zeros(16, 16, dtype=torch.bool)
    aligned[:, 8:] = True
    wanted = by_hand("sd", picture(), lambda e, said, _: -(e - said)[..., 4:].square().sum((1, 2, 3)))
    assert [step("sd", region=aligned).value()] == pytest.approx(wanted, rel=1e-5)


def test_the_negative_prompt_stands_for_no_prompt():
    asked = step("sd", negative=NEGATIVE, payoff="evidence")
    pipe = built("sd")
    with torch.no_grad():
        x, noise = noised(pipe, encoded(pipe, picture())[0])
        errors = [(noise - sd(pipe, x, text)).square().sum((1, 2, 3)) for text in (NEGATIVE, PROMPT)]
    assert asked.value() == pytest.approx(float((errors[0] - errors[1]).double().mean()), rel=1e-3, abs=1e-4)
    absent, whole = asked.game("labels")(torch.tensor([[False], [True]])).tolist()
    assert absent == 0
    assert whole == asked.value()
    with_guidance = step("sd", guidance=3.0)
    with torch.no_grad():
        u, c = sd(pipe, x, ""), sd(pipe, x, PROMPT)
        wanted = -(noise - (u + 3 * (c - u))).square().sum((1, 2, 3)).double().mean()
    assert with_guidance.value() == pytest.approx(float(wanted), rel=1e-5)


def test_fills_are_pictures():
    others = torch.cat([picture(seed=1), picture(seed=2)])
    empty = torch.zeros(1, 16, dtype=torch.bool)
    of_mean = step("sd", reference=others).game("patches")(empty)
    assert of_mean.tolist() == pytest.approx(by_hand("sd", others.mean(0, keepdim=True), error), rel=1e-5)
    grey = step("sd", fill="zeros").game("patches")(empty)
    assert grey.tolist() == pytest.approx(by_hand("sd", torch.full_like(picture(), 0.5), error), rel=1e-5)
    drawn = step("sd", fill="reference", reference=others[:1]).game("patches")(empty)
    assert drawn.tolist() == pytest.approx(by_hand("sd", others[:1], error), rel=1e-5)


def test_gradients_go_through_the_vae():
    asked = plain("sd")
    own = asked.differentiable(asked.players("patches"))
    assert own.f(own.inputs).tolist() == pytest.approx([asked.value()], rel=1e-5)
    why = explain.Gradient("patches", method="saliency").explain(asked)
    assert (why.scores.abs() > 0).all()


def test_training_pictures_are_pixels_and_captions_text():
    pictures, captions = torch.cat([picture(seed=1), picture(seed=2)]), ["a blue cat", "deep snow"]
    asked = plain("sd")
    objective = asked.objective((pictures, captions))
    assert objective.players.names == ("image 0 (a blue cat)", "image 1 (deep snow)")
    assert torch.equal(objective.players.geometry["images"], pictures)
    pipe = built("sd")
    with torch.no_grad():
        assert torch.allclose(objective.images, encoded(pipe, pictures), atol=1e-6)
        for i, caption in enumerate(captions):
            text, _ = pipe.encode_prompt(caption, "cpu", 1, False)
            assert torch.allclose(objective.beside["encoder_hidden_states"][i], text[0], atol=1e-6)
    with pytest.raises(ValueError, match="2 training pictures need as many captions, got 1"):
        asked.objective((pictures, captions[:1]))
    with pytest.raises(ValueError, match="training pictures must be pictures in \\[0, 1\\]"):
        asked.objective((2 * pictures - 1, captions))


def test_what_is_given_anew_at_every_step_is_refused():
    model = explain.wrap(controlnet())
    with pytest.raises(Unsupported, match=r"down_block_additional_residuals\.\d.* anew at every step"):
        model.step(picture()[0], T, PROMPT, image=picture(seed=1))


def test_what_is_no_picture_is_refused():
    model = explain.wrap(built("sd"))
    with pytest.raises(ValueError, match=r"x0 must be a picture \[3, H, W\] in \[0, 1\], got \[4, 8, 8\]: a latent"):
        model.step(torch.zeros(4, 8, 8), T, PROMPT, space="pixels")
    with pytest.raises(ValueError, match="got values from -1 to 1: of \\[-1, 1\\] give x / 2"):
        model.step(torch.linspace(-1, 1, 768).view(3, 16, 16), T, PROMPT)
    with pytest.raises(ValueError, match="noise has no place in a picture"):
        step("sd", fill="noise")
    with pytest.raises(ValueError, match="the bound is of the whole latent"):
        step("sd", payoff="elbo", region=torch.ones(16, 16))


def test_a_picture_of_another_size_than_the_pipelines_is_refused():
    with pytest.raises(
        ValueError, match=r"x0 is 32x32 pixels, a latent \[4, 16, 16\]; this call of DiTPipeline makes pict"
    ):
        explain.wrap(built("dit")).step(picture(32)[0], T, label=3)
    wide = picture(32)[0][:, :16]
    assert explain.wrap(built("sdxl")).step(wide, T, PROMPT, draws=1).image.shape == (4, 8, 16)


def test_a_pil_image_is_a_picture():
    array = (picture()[0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    asked = explain.wrap(built("sd")).step(Image.fromarray(array), T, PROMPT, draws=DRAWS, seed=SEED)
    assert torch.equal(asked.picture, torch.from_numpy(array).movedim(-1, 0) / 255)
    assert asked.value() == pytest.approx(plain("sd").value(), rel=0.01)


def test_nothing_changes_on_the_pipeline():
    pipeline = built("sd")
    before = state(pipeline)
    asked = step("sd")
    for explainer in (explain.Occlusion("patches"), explain.Gradient("patches"), explain.Attention("patches")):
        explainer.explain(asked)
    with pytest.raises(ValueError, match="2 training pictures need as many captions"):
        asked.objective((torch.cat([picture()] * 2), ["a cat"]))
    assert state(pipeline) == before


def test_latents_are_asked_about_as_the_network_sees_them():
    latent = encoded(built("sd"), picture())[0].detach()
    asked = explain.wrap(built("sd")).step(latent, T, PROMPT, draws=DRAWS, seed=SEED)
    assert asked.value() == pytest.approx(plain("sd").value(), rel=1e-5)
    assert asked.players("patches", size=4).geometry["labels"].shape == (8, 8)


def test_a_distilled_network_is_told_from_one_with_a_branch():
    with pytest.raises(Unsupported, match="FluxPipeline has no branch without its condition: guidance is distilled"):
        step("flux", payoff="evidence")
    assert step("flux", guidance=1.0).value() != plain("flux").value()


def test_latents_of_videos_and_sound_are_asked_about_where_each_has_its_row():
    of_video = explain.wrap(built("wan")).step(
        torch.zeros(4, 2, 4, 4), T, PROMPT, draws=1, space="latents", max_sequence_length=16, num_frames=5, **SIZE
    )
    noise = of_video.noise
    with torch.no_grad():
        text, _ = built("wan").encode_prompt(PROMPT, do_classifier_free_guidance=False, max_sequence_length=16)
        said = built("wan").transformer(T / 1000 * noise, torch.tensor([T]), text).sample
    assert of_video.value() == pytest.approx(-float((noise - (T / 1000 * noise + 0.5 * said)).square().sum()), rel=1e-5)
    with pytest.raises(Unsupported, match="several rows of encoder_hidden_states for each sample"):
        explain.wrap(built("animate")).step(torch.zeros(4, 2, 8, 8), T, PROMPT, space="latents", num_frames=2)
    with pytest.raises(Unsupported, match="cannot be asked about pixels: a run of it answers with"):
        explain.wrap(built("wan")).step(picture(32)[0], T, PROMPT, max_sequence_length=16, num_frames=5)
