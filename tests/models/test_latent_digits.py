"""Words to digits in a latent: a Stable Diffusion 3 whose VAE is trained too, asked about pixels by words."""

from dataclasses import replace
from functools import partial
from itertools import product

import matplotlib.pyplot as plt
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

import explain
from models import judge, latent_digits, prompt_digits, words
from models.datasets import Images, digits
from models.latent_digits import ASKED, CALL
from models.panels import latent

SHORT = latent_digits.Recipe(
    coder=(8, 8), coder_iterations=60, coder_batch=16, width=16, heads=2, iterations=60, batch_size=16, validations=4
)
FEW = Images(*(part[:300] for part in digits()[0]))


@pytest.fixture(scope="module")
def trained():
    return latent_digits.train(FEW, SHORT, progress=False)


@pytest.fixture(scope="module")
def pipeline(trained):
    return trained[0]


def pictures(pipeline, prompts, seeds):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipeline(prompts, generator=generators, output_type="pt", **CALL | {"num_inference_steps": 3}).images


def test_the_same_seed_gives_the_same_pipeline_and_global_random_states_stay():
    random = torch.get_rng_state()
    barely = replace(SHORT, coder_iterations=3, iterations=3)
    found = [latent_digits.train(FEW, barely, seed=seed, progress=False) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), random)
    first, second, other = (latent_digits.state(pipeline) for pipeline, _ in found)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["scale"], other["scale"])


def test_training_lowers_the_loss_of_digits_that_are_not_trained_on(trained, pipeline, monkeypatch):
    def same(vae, *_, **__):
        vae.load_state_dict(pipeline.vae.state_dict())
        vae.register_to_config(**{name: pipeline.vae.config[name] for name in ("scaling_factor", "shift_factor")})

    monkeypatch.setattr(latent_digits, "train_coder", same)
    barely = latent_digits.train(FEW, replace(SHORT, iterations=1), progress=False)[1]
    assert trained[1] < 0.95 * barely


def test_the_vae_keeps_more_of_a_digit_the_longer_it_is_trained(pipeline):
    net, data = judge.Judge(8).eval(), Images(*(part[:20] for part in digits()[1]))
    with torch.random.fork_rng():
        untrained = latent_digits.built(SHORT).vae
    found = [latent_digits.reconstructed(vae, net, data) for vae in (untrained, pipeline.vae)]
    assert found[1]["reconstruction"] < 0.8 * found[0]["reconstruction"]
    x, labels = words.every_dress(*data)
    with torch.no_grad():
        made = torch.cat([pipeline.vae(one[None]).sample for one in x]).clamp(-1, 1)
        read = (net(made).argmax(1) == labels).double().mean()
    assert found[1]["reconstruction"] == pytest.approx(float(((made - x) / 2).square().mean().sqrt()), rel=1e-4)
    assert found[1]["reconstructions_read"] == pytest.approx(float(read))


def test_latents_are_those_of_each_dress_and_have_unit_scale(pipeline):
    own, _ = prompt_digits.split(FEW)
    z = latent_digits._latents(pipeline.vae, own).z
    assert (float(z.mean()), float(z.std())) == pytest.approx((0, 1), abs=1e-4)
    config = pipeline.vae.config
    for i, worn in enumerate(product((0, 1), repeat=3)):
        x = words.dress(own.images[:4], torch.tensor([worn] * 4))
        with torch.no_grad():
            expected = (pipeline.vae.encode(x).latent_dist.mode() - config.shift_factor) * config.scaling_factor
        torch.testing.assert_close(z[:4, i], expected, rtol=1e-4, atol=1e-5)


def test_words_are_asked_about_pixels_as_of_any_stable_diffusion_3(pipeline):
    assert type(pipeline) is StableDiffusion3Pipeline
    prompt = ("dark", "three", "left")
    model = explain.wrap(pipeline)
    run = model.trajectory(" ".join(prompt), payoff=words.centroid, seed=0, draws=2, **ASKED | {"steps": 3})
    torch.testing.assert_close(run.picture(), pictures(pipeline, [" ".join(prompt)], [0])[0], rtol=1e-5, atol=1e-5)
    assert run.picture().shape == (1, 8, 8)
    there = list(product((False, True), repeat=3))
    texts = [" ".join(word for word, stays in zip(prompt, some, strict=True) if stays) for some in there]
    by_hand = torch.stack([words.centroid(pictures(pipeline, [text] * 2, [0, 1])).mean() for text in texts])
    torch.testing.assert_close(run.game("words")(torch.tensor(there)), by_hand, rtol=1e-4, atol=1e-4, check_dtype=False)
    why = explain.Shapley("words").explain(run)
    assert why.players.names == prompt
    assert why.checks["efficiency_gap"] <= 1e-5


def test_the_panel_of_the_gallery_holds_its_words_to_pictures_made_without_them(pipeline, monkeypatch):
    monkeypatch.setattr(latent, "pipeline_of", lambda numbers: pipeline)
    finding = latent.latent()
    plt.close(finding.figure())
    assert "all 16 coalitions" in finding.proof["by hand"]
    assert finding.strongest


def test_the_cache_gives_the_pipeline_back(tmp_path, monkeypatch, trained):
    fake = judge.Trained(judge.Judge(8).eval(), {"accuracy": 0.5}, cached=True)
    monkeypatch.setattr(judge, "load_or_train", lambda *_, **__: fake)
    monkeypatch.setattr(prompt_digits, "obeyed", partial(prompt_digits.obeyed, count=8))
    monkeypatch.setattr(latent_digits, "train", lambda *_, **__: trained)
    first, second = (latent_digits.load_or_train(SHORT, folder=tmp_path, progress=False) for _ in range(2))
    assert (first.cached, second.cached) == (False, True)
    named = {"class", "ink", "shift", "tone", "judge_accuracy", "validation", "seconds"}
    assert set(first.facts) >= named | {"reconstruction", "reconstructions_read"}
    expected = pictures(trained[0], ["a dark three"], [1])
    for other in (second.pipeline, latent_digits.load(first.path)):
        assert torch.equal(pictures(other, ["a dark three"], [1]), expected)
        assert not other.transformer.training
        assert not other.vae.training
    assert not latent_digits.load_or_train(replace(SHORT, kl=0.1), folder=tmp_path, progress=False).cached
    with pytest.raises(ValueError, match="holds a 'LatentDigits', not"):
        prompt_digits.load(first.path)
