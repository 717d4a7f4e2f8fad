"""Calls of pipelines that are not what their user thinks: an error with the remedy, or a line in the answer."""

from __future__ import annotations

import pytest
import torch
from pipeline_calls import asked, built, ink, own
from tiny_networks import seeded, vae
from tiny_pipelines import PROMPT, picture, stable_diffusion
from torch import nn
from transformers import BatchFeature

import explain
from explain.types import NonFinite, Unsupported

LONG = "a red fox in deep snow a blue cat in deep snow a red fox in snow"  # of 17 words 14 are read


def run_of(name="sd", pipeline=None, **changed):
    """The run of a pipeline with something odd about it."""
    return explain.wrap(built(name) if pipeline is None else pipeline).trajectory(**asked(name, payoff=ink, **changed))


def test_words_beyond_the_encoder_are_named_and_do_not_play():
    run = run_of(prompt=LONG, negative=LONG)
    said = "longer than the encoder reads: 3 words were cut: fox in snow"
    assert (run.assumed["prompt"], run.assumed["negative"]) == (said, said)
    assert run.players("words").names == tuple(LONG.split()[:14]) + tuple(f"not: {w}" for w in LONG.split()[:14])
    target = explain.Occlusion("words").explain(run).target
    assert (target["assumed"]["prompt"], target["payoff"]) == (said, "ink")
    of_step = explain.wrap(built("sd")).step(picture()[0], 500, LONG)
    assert of_step.describe()["assumed"]["prompt"] == said


def test_the_negative_prompt_goes_by_the_pipelines_own_name_too():
    """Its words were left out of the players."""
    model = explain.wrap(built("sd"))
    run = model.trajectory("a fox", negative_prompt=["blurry grey"], num_inference_steps=2, payoff=ink)
    assert run.players("words").names == ("a", "fox", "not: blurry", "not: grey")
    assert run.players("words", phrases="a fox").names[0] == "a fox"
    with pytest.raises(TypeError, match="given twice: as negative= and as negative_prompt="):
        model.trajectory("a fox", "grey", negative_prompt="blurry", payoff=ink)
    with pytest.raises(TypeError, match="must be one text"):
        model.trajectory("a fox", negative_prompt=["blurry", "grey"], payoff=ink)
    with pytest.raises(ValueError, match="steps must be a whole number, at least 1, got 0"):
        model.trajectory("a fox", steps=0, payoff=ink)
    with pytest.raises(TypeError, match=r"explain.wrap\(pipeline\).trajectory\(...\), got PipelineModel"):
        explain.Shapley("words").explain(model)
    assert "StableDiffusionPipeline: ask trajectory(prompt, payoff=...)" in repr(model)


def test_a_word_that_one_encoder_reads_is_read():
    assert run_of("sd3", prompt=LONG).assumed["prompt"].endswith("2 words were cut: in snow")


def test_a_word_whose_end_is_cut_is_named():
    said = run_of(prompt="a red fox in deep snow a blue zebra crossing").assumed["prompt"]
    assert said == "longer than the encoder reads: of 'crossing' only the beginning is read"
    assert "prompt" not in run_of().assumed


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt_has_a_picture_and_no_words(prompt):
    run = run_of(prompt=prompt, negative=None)
    assert torch.equal(run.picture(), own("sd", prompt=prompt, negative=None))
    with pytest.raises(ValueError, match="an empty prompt has no words to play with"):
        run.game("words")


def test_a_word_that_does_not_occur():
    with pytest.raises(ValueError, match="'zebra' does not occur in the prompt 'a red fox in deep snow'"):
        run_of().players("words", phrases=["zebra"])


@pytest.mark.parametrize("name", ["flux", "lcm"])
@pytest.mark.parametrize("kind", ["guidance", "steps"])
def test_a_distilled_network_has_no_branch_without_its_prompt(name, kind):
    with pytest.raises(Unsupported, match="no branch without its condition: it is unguided, or its guidance is dist"):
        run_of(name).game(kind)


@pytest.mark.parametrize(("name", "changed"), [("sd", {"guidance": 1.0}), ("flux", {"negative": "blurry"})])
def test_a_negative_prompt_that_nobody_reads_is_said(name, changed):
    run = run_of(name, **changed)
    assert run.assumed["negative"].startswith("not read: this call has no branch without the prompt")
    assert "negative" not in run_of().assumed


def test_a_payoff_of_pictures_is_told_of_latents():
    judge = nn.Conv2d(3, 1, 3).requires_grad_(False)
    with pytest.raises(ValueError, match=r"cannot be called with latents \[1, 4, 8, 8\].*ask with space='pixels'"):
        explain.wrap(built("sd")).trajectory(**asked("sd", payoff=lambda x: judge(x).mean((1, 2, 3)), space="latents"))


def test_a_payoff_is_told_of_what_it_cannot_be_called_with():
    judge, model = nn.Conv2d(3, 1, 3).requires_grad_(False), explain.wrap(built("sd"))
    latent = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    for payoff in (lambda x: judge(x).mean((1, 2, 3)), lambda x: x[:, :, 12, 12].mean(1)):
        with pytest.raises(ValueError, match=r"network has them \[1, 4, 8, 8\].*with space='pixels'"):
            model.step(latent, 500, PROMPT, payoff=payoff)
    with pytest.raises(TypeError, match="of 0 to 255 give x0 / 255"):
        model.step((picture()[0] * 255).byte(), 500, PROMPT)
    with pytest.raises(ValueError, match=r"ask about one, x0\[i\]"):
        model.step(picture(), 500, PROMPT)
    with pytest.raises(ValueError, match=r"with pictures in \[0, 1\] \[1, 3, 16, 16\]"):
        model.step(picture()[0], 500, PROMPT, payoff=lambda x: x[:, 5].mean((1, 2)))


@pytest.mark.parametrize("name", ["dit", "ldm", "consistency"])
def test_latents_are_latents_also_of_a_pipeline_that_gives_pictures_for_them(name):
    seen = []

    def payoff(latents):
        seen.append(latents)
        return ink(latents)

    run = explain.wrap(built(name)).trajectory(**asked(name, payoff=payoff, space="latents"))
    run.value()
    last = run.traced[0][-1].after[:1]
    assert torch.equal(seen[-1], last)
    assert seen[-1].min() < 0


def pipeline_with(change):
    """Stable Diffusion of which something overflows."""
    made = stable_diffusion().to(torch.float16)
    with torch.no_grad():
        change(made)
    return made


def test_half_precision_that_overflows_is_an_error_that_says_where():
    def bright(pictures):  # finite whatever it sees
        return (pictures > 0.5).double().flatten(1).mean(1)

    wide = pipeline_with(lambda made: made.unet.conv_out.weight.mul_(6e4))
    with pytest.raises(
        NonFinite, match=r"network of StableDiffusionPipeline says NaN or infinity at step 2 of 2.*float16"
    ):
        run_of(pipeline=wide)
    decoder = pipeline_with(lambda made: made.vae.decoder.conv_in.weight.mul_(6e4))
    with pytest.raises(NonFinite, match="makes a picture of NaN out of a finite sample: its decoder overflows"):
        explain.wrap(decoder).trajectory(**asked("sd", payoff=bright))
    encoder = pipeline_with(lambda made: made.vae.encoder.conv_in.weight.fill_(6e4))
    with pytest.raises(NonFinite, match=r"encodes these pictures as NaN or infinity, in torch\.float16"):
        explain.wrap(encoder).step(picture()[0], 500, PROMPT)
    assert torch.isfinite(run_of(pipeline=stable_diffusion().to(torch.float16)).picture()).all()


class Censor(nn.Module):
    """A safety checker that hides all pictures but the first so many that it is shown."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, shows):
        super().__init__()
        self.shows = shows

    def forward(self, images, clip_input):
        hidden = [i >= self.shows for i in range(len(images))]
        self.shows -= len(images)
        images[hidden] = 0
        return images, hidden


def test_pictures_that_a_safety_checker_hides_have_no_number():
    def looking(images, return_tensors):  # in the place of a feature extractor
        return BatchFeature({"pixel_values": torch.zeros(len(images), 1)})

    made = stable_diffusion()
    made.safety_checker, made.feature_extractor = Censor(99), looking
    run = run_of(pipeline=made)
    torch.testing.assert_close(run.picture(), own("sd", pipeline=made), rtol=1e-5, atol=1e-5)
    explain.Occlusion("words").explain(run)
    made.safety_checker = Censor(4)
    with pytest.raises(ValueError, match=r"safety checker of StableDiffusionPipeline made \d of \d pictures black"):
        explain.Occlusion("words").explain(run_of(pipeline=made))
    made.safety_checker = Censor(0)
    with pytest.raises(ValueError, match=r"made 1 of 1 pictures black.*pipeline\.safety_checker = None"):
        run_of(pipeline=made)
    with pytest.raises(ValueError, match=r"made 1 of 1 pictures black"):
        explain.wrap(made).step(picture()[0], 500, PROMPT)


def test_another_vae_is_told():
    from diffusers import AutoencoderKL

    three = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    made = stable_diffusion()
    made.vae = seeded(AutoencoderKL, **three, block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=4)
    run = run_of(pipeline=made)
    assert run.assumed["vae"].startswith("pictures are 4 times as high as the latent where the pipeline counts with 2")
    assert "vae" not in run_of(pipeline=stable_diffusion(vae=vae(scaling_factor=3.0))).assumed
    other = run_of(pipeline=stable_diffusion(vae=vae(scaling_factor=0.01)))
    assert "where denoisers are trained on about 1" in other.assumed["vae"]
    small = explain.wrap(stable_diffusion(vae=vae(scaling_factor=0.01))).step(picture()[0], 500, PROMPT)
    assert "where denoisers are trained on about 1" in small.assumed["vae"]
    made.vae = vae(channels=16)
    with pytest.raises(ValueError, match=r"StableDiffusionPipeline cannot be called so: RuntimeError: .*16 channels"):
        run_of(pipeline=made)


def test_settings_out_of_range_and_conditions_given_twice():
    model = explain.wrap(built("sd"))
    for steps in (0, -1, 2.5, True, "2"):
        with pytest.raises(ValueError, match="steps must be a whole number, at least 1"):
            model.trajectory(PROMPT, steps=steps)
    for guidance in ("7", float("nan"), float("inf")):
        with pytest.raises(ValueError, match="guidance"):
            model.trajectory(PROMPT, guidance=guidance)
    with pytest.raises(TypeError, match="class_labels= of the pipeline's call is said here by label="):
        explain.wrap(built("dit")).trajectory(class_labels=[3])
    with pytest.raises(TypeError, match="given twice, 3 and label=5"):
        explain.wrap(built("dit")).trajectory(3, label=5)


def test_words_of_another_prompt_and_settings_that_players_do_not_have():
    run = run_of()
    with pytest.raises(ValueError, match="words of another prompt, blue, cat: make them by"):
        run.game(run_of(prompt="blue cat", negative=None).players("words"))
    for kind in ("words", "labels", "conditions"):
        with pytest.raises(TypeError, match="has no setting 'size'"):
            run.players(kind, size=2)
