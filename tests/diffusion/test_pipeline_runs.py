"""A pipeline's run is the pipeline's own call: pictures and numbers beside the pipeline itself, one row a pipeline."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from pipeline_calls import LOOSE, STEPS, asked, built, ink, near, own, state, usual, worth
from tiny_networks import LATENT
from tiny_pipelines import CASES, NEGATIVE, PROMPT

import explain

# the arithmetic of two of diffusers' schedulers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


TEXTS = ["sd", "sdxl", "sd3", "flux", "pixart sigma", "ldm text", "inpaint", "pix2pix", "sd3 img2img", "lcm", "tcd"]
TEXTS += ["wan", "audio ldm", "perturbed attention"]


@cache
def run_of(name):
    """Its run, and the picture that the pipeline itself made before."""
    wanted = usual(name)
    return explain.wrap(built(name)).trajectory(**asked(name, payoff=ink)), wanted


@pytest.mark.parametrize("name", CASES)
def test_the_picture_is_the_pipelines_own_and_nothing_on_the_pipeline_changes(name):
    usual(name)  # after which the pipeline remembers its last call
    before = state(built(name))
    run, wanted = run_of(name)
    assert near(run.picture(), wanted, name)
    assert run.value() == pytest.approx(worth(wanted), rel=1e-5)
    assert state(built(name)) == before


STARTS = {
    "sd": (4, LATENT, LATENT),
    "flux": (16, 16),  # packed
    "ldm text": (3, LATENT, LATENT),
    "inpaint of 9 channels": (4, LATENT, LATENT),
    "lcm": (4, LATENT, LATENT),
    "edm": (4, LATENT, LATENT),
    "consistency": (3, LATENT, LATENT),
    "wan": (4, 2, 4, 4),
    "audio ldm": (4, 64, 8),
}


@pytest.mark.parametrize("name", STARTS)
def test_latents_are_the_pipelines_own_argument(name):
    latents = torch.randn(1, *STARTS[name], generator=torch.Generator().manual_seed(11))
    wanted = own(name, latents=latents)
    assert near(explain.wrap(built(name)).trajectory(**asked(name, latents=latents)).picture(), wanted, name)
    assert not near(wanted, run_of(name)[1], name)


@pytest.mark.parametrize("name", TEXTS)
def test_coalitions_of_words_are_the_pipeline_called_one_text_at_a_time(name):
    run, _ = run_of(name)
    players = run.players("words")
    negative = players.geometry["negative"].tolist()
    words = PROMPT.split() + [NEGATIVE] * any(negative)
    assert negative == [False] * len(PROMPT.split()) + [True] * (len(words) - len(PROMPT.split()))
    masks = torch.rand(2, len(words), generator=torch.Generator().manual_seed(1)) > 0.4
    masks[0] = False
    values = run.game(players)(masks)
    for mask, value in zip(masks.tolist(), values.tolist(), strict=True):
        texts = {}
        for key, side in (("prompt", False), ("negative", True)):
            kept = [word for word, here, other in zip(words, mask, negative, strict=True) if here and other is side]
            if side in negative:
                texts[key] = " ".join(kept)
        assert value == pytest.approx(worth(own(name, **texts)), rel=LOOSE.get(name, 1e-5))


def reweighted(name, weights):
    """The run with other guidance weights, by a hook on a network of its own whose two blocks are [uncond, cond]."""
    pipeline, count = CASES[name].build(), 0
    net = getattr(pipeline, "unet", None) or pipeline.transformer

    def joined(_, __, output):
        nonlocal count
        first, second = output[0].chunk(2)  # a tuple, or an output of diffusers
        u, c = (second, first) if name == "dit" else (first, second)
        both = u + weights[count] * (c - u)
        count += 1
        both = torch.cat([both, both])
        return (both,) if isinstance(output, tuple) else type(output)(both)

    net.register_forward_hook(joined)
    return own(name, pipeline)


DOUBLED = ["sd", "sdxl", "sd3", "pixart sigma", "controlnet", "edm"]  # [uncond, cond] in one batch


@pytest.mark.parametrize("name", DOUBLED)
def test_coalitions_of_steps_and_guidance_are_the_run_with_other_weights(name):
    run, _ = run_of(name)
    mask = [False, True]
    own_weight = CASES[name].call["guidance_scale"]
    for kind, off in (("steps", 0.0), ("guidance", 1.0)):
        (value,) = run.game(kind)(torch.tensor([mask])).tolist()
        weights = [own_weight if here else off for here in mask]
        assert value == pytest.approx(worth(reweighted(name, weights)), rel=1e-5)
    (alone,) = run.game("guidance")(torch.zeros(1, STEPS, dtype=torch.bool)).tolist()
    assert alone == pytest.approx(worth(own(name, guidance=1.0)), rel=1e-5)


def test_an_absent_label_is_the_pipelines_own_null():
    run, wanted = run_of("dit")
    assert near(run.run()[0], wanted, "dit")
    value, whole = run.game("labels")(torch.tensor([[False], [True]])).tolist()
    assert value == pytest.approx(worth(reweighted("dit", [0.0] * STEPS)), rel=1e-5)
    assert whole == pytest.approx(worth(wanted), rel=1e-5)


@pytest.mark.parametrize("name", ["sd", "flux", "controlnet", "dit"])
def test_nothing_changes_when_a_question_fails(name):
    pipeline = built(name)
    before = state(pipeline)

    def failing(pictures):
        raise RuntimeError("no number")

    with pytest.raises(Exception, match="no number"):
        explain.wrap(pipeline).trajectory(**asked(name, payoff=failing)).value()
    with pytest.raises(TypeError, match="no_such"):
        explain.wrap(pipeline).trajectory(**asked(name, no_such=1))

    def stop(*_):
        raise KeyboardInterrupt

    net = getattr(pipeline, "unet", None) or pipeline.transformer
    handle = next(net.children()).register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        explain.wrap(pipeline).trajectory(**asked(name))
    handle.remove()
    assert state(pipeline) == before


@pytest.mark.parametrize(
    ("name", "made", "sites"), [("wan", (5, 3, 32, 32), (5, 32, 32)), ("audio ldm", (512,), (512,))]
)
def test_videos_and_sound_have_sites_of_their_own(name, made, sites):
    run, _ = run_of(name)
    assert run.picture().shape == made
    assert run.players("patches").geometry["labels"].shape == sites
    assert run.commit_times().shape == sites
    assert len(run.pixels()) == torch.Size(sites).numel()
