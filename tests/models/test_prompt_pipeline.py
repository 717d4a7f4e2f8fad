"""The pipeline of words to digits runs as diffusers' own do: seeds, latents, negative prompts, callbacks, batches."""

import pytest
import torch

from models.prompt_digits import Recipe, built
from models.prompt_pipeline import LENGTH, PromptDigitsPipeline, word_tokenizer

TINY = Recipe(width=16, heads=2, layers=2)


@pytest.fixture(scope="module")
def pipeline():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return built(TINY)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(pipeline, prompt, seed=0, **call):
    if "latents" not in call:
        call.setdefault("generator", seeded(seed))
    return pipeline(prompt, **{"num_inference_steps": 3, "output_type": "pt"} | call).images


# --- words ---


def test_words_are_found_where_they_stand():
    tokenizer = word_tokenizer()
    text = "A dark,  THREE left"
    found = tokenizer(text, return_offsets_mapping=True)
    said = [text[a:b] for a, b in found.offset_mapping if b > a]
    assert said == ["A", "dark", ",", "THREE", "left"]
    unknown = tokenizer.unk_token_id
    assert [i == unknown for i in found.input_ids] == [False, True, False, True, False, False, False]
    assert tokenizer.convert_tokens_to_ids(["dark", "three", "left"]) == [found.input_ids[i] for i in (2, 4, 5)]


def test_prompts_are_padded_to_the_encoder_and_cut_there(pipeline):
    states, pooled = pipeline.encode_prompt(["", "three " * 20])
    assert states.shape == (2, LENGTH, TINY.width)
    assert pooled.shape == (2, TINY.width)
    torch.testing.assert_close(pipeline.encode_prompt(["three " * 6])[0], states[1:])


def test_the_text_encoder_reads_words_in_context(pipeline):
    alone, after = (pipeline.encode_prompt([text])[0][0] for text in ("three dark", "nine dark"))
    assert torch.equal(alone[0], after[0])  # the start, before them
    assert not torch.allclose(alone[2], after[2])


# --- calls ---


def test_rows_of_a_batch_are_the_calls_one_by_one(pipeline):
    prompts, negative = ["three dark", "", "nine"], ["left", "", "faint"]
    together = drawn(pipeline, prompts, negative_prompt=negative, generator=[seeded(i) for i in range(3)], eta=0.5)
    assert together.shape == (3, 1, 8, 8)
    for i, (prompt, without) in enumerate(zip(prompts, negative, strict=True)):
        alone = drawn(pipeline, prompt, i, negative_prompt=without, eta=0.5)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], drawn(pipeline, prompts[0], 0, eta=0.5)[0])  # the negative prompt was heard


def test_a_seed_is_the_noise_it_draws(pipeline):
    noise = torch.randn(2, 1, 8, 8, generator=seeded())
    first = drawn(pipeline, ["three", "nine"])
    assert torch.equal(first, drawn(pipeline, ["three", "nine"], latents=noise))
    assert torch.equal(first, drawn(pipeline, ["three", "nine"], negative_prompt=""))
    assert not torch.equal(first, drawn(pipeline, ["three", "nine"], 1))
    assert drawn(pipeline, "three", num_images_per_prompt=2).shape == (2, 1, 8, 8)


def test_guidance_is_by_hand(pipeline):
    """One step from pure noise: ``x_0 = a x - s v`` of the guided velocity, the unguided branch first in the batch."""
    rows = []
    handle = pipeline.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    noise = torch.randn(1, 1, 8, 8, generator=seeded(2))
    call = {"num_inference_steps": 1, "latents": noise, "output_type": "latent"}
    guided, plain, unguided = (
        drawn(pipeline, text, guidance_scale=scale, **call) for text, scale in (("six", 3.0), ("six", 1.0), ("", 1.0))
    )
    handle.remove()
    assert [len(states) for states in rows] == [2, 1, 1]
    torch.testing.assert_close(rows[0], torch.cat([rows[2], rows[1]]))
    signal = pipeline.scheduler.alphas_cumprod[-1]
    with torch.no_grad():
        without, given = (
            pipeline.transformer(
                noise, *pipeline.encode_prompt([text]), timestep=torch.tensor([999]), return_dict=False
            )[0]
            for text in ("", "six")
        )
    for image, velocity in ((guided, without + 3 * (given - without)), (plain, given), (unguided, without)):
        clean = (signal.sqrt() * noise - (1 - signal).sqrt() * velocity).clamp(-1, 1)
        torch.testing.assert_close(image, clean, rtol=1e-4, atol=1e-5)


def test_a_callback_sees_each_step_and_may_change_it(pipeline):
    seen = []

    def emptied(pipe, i, t, tensors):
        seen.append((i, int(t), sorted(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])} if i == 2 else {}

    names = ["latents", "prompt_embeds"]
    images = drawn(pipeline, "one", callback_on_step_end=emptied, callback_on_step_end_tensor_inputs=names)
    assert seen == [(0, 999, names), (1, 666, names), (2, 332, names)]
    assert torch.equal(images, torch.full_like(images, 0.5))


def test_every_output_type(pipeline):
    latent = drawn(pipeline, "one", output_type="latent")
    pictures = (latent / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(drawn(pipeline, "one"), pictures)
    torch.testing.assert_close(
        torch.tensor(drawn(pipeline, "one", output_type="np")).permute(0, 3, 1, 2), pictures, rtol=0, atol=1e-6
    )
    (image,) = drawn(pipeline, "one", output_type="pil")
    assert image.size == (8, 8)
    assert torch.equal(
        drawn(pipeline, "one"), pipeline("one", None, 3, generator=seeded(), output_type="pt", return_dict=False)[0]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"negative_prompt": ["left"]}, "2 prompts have 1 negative prompts"),
        ({"generator": [seeded()]}, "2 rows have 1 generators"),
        ({"latents": torch.zeros(1, 1, 8, 8)}, r"latents must be \[2, 1, 8, 8\], got \[1, 1, 8, 8\]"),
    ],
)
def test_rows_that_do_not_fit_are_refused(pipeline, call, message):
    with pytest.raises(ValueError, match=message):
        drawn(pipeline, ["one", "two"], **call)


def test_it_is_saved_and_loaded_as_any_pipeline(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    again = PromptDigitsPipeline.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(drawn(again, "a dark three"), drawn(pipeline, "a dark three"))
