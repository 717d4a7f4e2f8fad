"""Words to digits: a pipeline of a tokenizer, a text encoder and an SD3-type transformer, trained on known causes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import diffusers
import torch
import torch.nn.functional as F
import transformers
from diffusers import DDIMScheduler, DiffusionPipeline, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from explain.guard import evaluating, random_states_kept
from models import checkpoints, descent, judge, prompt_pipeline, words
from models.datasets import Images, digits
from models.descent import BestAverage, descend
from models.prompt_pipeline import PromptDigitsPipeline, encoder_config, word_tokenizer
from models.words import FAINT, NUMBERS, TRAITS, brightness, captions, centroid, dress, peak_ink


@dataclass(frozen=True)
class Recipe:
    """How a pipeline is built and trained.

    Args:
        numbers: the digits that are learned.
        width: of the states of words and of the picture.
        heads: of each attention.
        layers: of the transformer; the text encoder has one.
        patch: side of the squares of pixels that are one token each.
        iterations: batches drawn.
        batch_size: digits of each.
        lr: AdamW's; warmed up over the first twentieth, then a half cosine to zero.
        drop: how often each word is left out.
        average: decay of the exponential moving average of the weights.
        steps: ``T`` of the cosine schedule (Nichol and Dhariwal 2021).
        validations: how often the averaged weights are tried on digits that they are not trained on.
    """

    numbers: tuple[str, ...] = NUMBERS
    width: int = 128
    heads: int = 4
    layers: int = 2
    patch: int = 2
    iterations: int = 1700
    batch_size: int = 128
    lr: float = 1.5e-3
    drop: float = 0.25
    average: float = 0.99
    steps: int = 1000
    validations: int = 10


class Trained(NamedTuple):
    """A pipeline with the averaged weights of the best validation, how well it does, and where it is kept."""

    pipeline: Any
    facts: dict[str, Any]
    cached: bool
    path: os.PathLike[str]


def load_or_train(
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Trained:
    """The pipeline of words and digits, from the cache where it was trained before.

    ``facts`` has the shares of 480 guided pictures of whole prompts in which the word was obeyed: "class" by
    `models.judge`, which was trained on other digits, "ink", "shift" and "tone" by what `models.words` measures; and
    "judge_accuracy", the judge's own on real digits in the same dresses.

    Args:
        recipe: `Recipe()` when None.
        seed: of weights, batches, noise and words left out.
        folder: the cache, see `models.checkpoints.trained`.
        fresh: trains in any case.
        progress: shows tqdm.
    """
    recipe = recipe or Recipe()
    learned = of_numbers(digits()[0], recipe.numbers)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        pipeline, validation = train(learned, recipe, seed=seed, progress=progress)
        seen_by = judge.load_or_train("worded", epochs=JUDGE_EPOCHS, folder=folder, progress=progress)
        facts = obeyed(pipeline, seen_by.module, recipe.numbers, seed=seed)
        facts |= {"judge_accuracy": seen_by.facts["accuracy"], "validation": validation}
        return _parts(pipeline).state_dict(), facts

    found = checkpoints.kept("PromptDigits", _config(learned, recipe, seed), make, folder=folder, fresh=fresh)
    return Trained(_loaded(recipe, found.state), found.facts, found.cached, found.path)


def load(path: str | os.PathLike[str]) -> PromptDigitsPipeline:
    """The pipeline of a file that `load_or_train` wrote.

    Raises:
        ValueError: a pickle, a damaged file, or a checkpoint of another model.
        OSError: no such file, or it cannot be read.
    """
    return checkpoints.rebuilt(path, lambda state, config: _loaded(Recipe(**config["recipe"]), state))


JUDGE_EPOCHS = 8  # each digit is there in eight dresses


def built(recipe: Recipe) -> PromptDigitsPipeline:
    """The pipeline with weights drawn from torch's global generator."""
    tokenizer = word_tokenizer()
    encoder = CLIPTextModel(encoder_config(tokenizer, recipe.width, recipe.heads))
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=recipe.patch,
        in_channels=1,
        out_channels=1,
        num_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.width // recipe.heads,
        joint_attention_dim=recipe.width,
        caption_projection_dim=recipe.width,
        pooled_projection_dim=recipe.width,
        pos_embed_max_size=8 // recipe.patch,
    )
    nn.init.normal_(encoder.get_input_embeddings().weight)  # words are themselves before they are their context
    nn.init.orthogonal_(
        transformer.pos_embed.pos_embed[0], gain=recipe.width**0.5
    )  # few patches hardly differ by sines
    scheduler = DDIMScheduler(  # the last step is pure noise, where only the velocity says what to draw
        num_train_timesteps=recipe.steps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    pipeline = PromptDigitsPipeline(tokenizer, encoder.eval(), transformer.eval(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def train(data: Images, recipe: Recipe, *, seed: int = 0, progress: bool = True) -> tuple[PromptDigitsPipeline, float]:
    """Minimise ``E |v - v_hat(x_t, t, prompt)|^2``, ``v = a_t e - s_t x_0``, in text encoder and transformer at once.

    One digit in ten is kept for validation. Digits are dressed anew in every batch, and words are left out each on its
    own, so that every prompt that lacks some has been met. Global random states are kept.

    Returns:
        The pipeline with the averaged weights that did best on the validation digits, and their loss.
    """
    with random_states_kept():
        torch.manual_seed(seed)
        pipeline = built(recipe)
        own, others = split(data)
        asked = _batch(others, torch.arange(len(others.images)).repeat(4), pipeline, recipe)
        parts = _parts(pipeline)
        optimizer = torch.optim.AdamW(parts.parameters(), lr=recipe.lr, betas=(0.9, 0.99), fused=True)
        best = BestAverage(
            parts, recipe.average, lambda: float(_loss(pipeline, asked)), recipe.iterations, recipe.validations
        )

        def loss() -> Tensor:
            chosen = torch.randint(len(own.images), (recipe.batch_size,))
            return _loss(pipeline, _batch(own, chosen, pipeline, recipe))

        descend(loss, optimizer, recipe.iterations, then=best.step, name="PromptDigits", progress=progress)
        parts.load_state_dict(best.weights)
    return pipeline, best.loss


class _Batch(NamedTuple):
    """Noised digits, how much, their prompts, and what the transformer is to say."""

    noised: Tensor
    t: Tensor
    prompts: list[str]
    velocity: Tensor


def _batch(data: Images, chosen: Tensor, pipeline: PromptDigitsPipeline, recipe: Recipe) -> _Batch:
    labels = data.labels[chosen]
    traits = torch.randint(2, (len(chosen), len(TRAITS)))
    x0 = dress(data.images[chosen], traits)
    t = (recipe.steps * torch.rand(len(x0)).sqrt()).long().clamp_max(recipe.steps - 1)  # much noise leaves most to say
    e = torch.randn_like(x0)
    scheduler = pipeline.scheduler
    prompts = captions(labels, traits, recipe.drop)
    return _Batch(scheduler.add_noise(x0, e, t), t, prompts, scheduler.get_velocity(x0, e, t))


def _loss(pipeline: PromptDigitsPipeline, batch: _Batch) -> Tensor:
    states, pooled = pipeline.encode_prompt(batch.prompts)
    said = pipeline.transformer(
        batch.noised, encoder_hidden_states=states, pooled_projections=pooled, timestep=batch.t, return_dict=False
    )
    return F.mse_loss(said[0], batch.velocity)


def of_numbers(data: Images, numbers: Sequence[str]) -> Images:
    """The digits of these numbers."""
    wanted = torch.isin(data.labels, torch.tensor([NUMBERS.index(number) for number in numbers]))
    return Images(data.images[wanted], data.labels[wanted])


def split(data: Images) -> tuple[Images, Images]:
    """Nine digits in ten to train on, and the others."""
    count = len(data.images) - len(data.images) // 10
    return Images(data.images[:count], data.labels[:count]), Images(data.images[count:], data.labels[count:])


# --- how well it does ---


def obeyed(
    pipeline: DiffusionPipeline,
    seen_by: nn.Module,
    numbers: Sequence[str] = NUMBERS,
    *,
    count: int = 480,
    seed: int = 0,
    **call: Any,
) -> dict[str, float]:
    """In which share of guided pictures of whole prompts each word was obeyed; ``call`` are more of the pipeline's."""
    known = torch.tensor([NUMBERS.index(number) for number in numbers])
    labels = known[torch.arange(count) // 8 % len(known)]
    traits = torch.cartesian_prod(*(torch.arange(2) for _ in TRAITS)).repeat(count // 8, 1)
    with random_states_kept():
        torch.manual_seed(seed)
        prompts = captions(labels, traits, drop=0.0)
    pictures = pipeline(prompts, generator=torch.Generator().manual_seed(seed), output_type="pt", **call).images
    middle = {"ink": (peak_ink, (1 + FAINT) / 2), "shift": (centroid, 3.5), "tone": (brightness, 0.5)}
    seen = {name: measure(pictures) > between for name, (measure, between) in middle.items()}
    with evaluating(seen_by), torch.no_grad():
        right = {"class": seen_by(2 * pictures - 1).argmax(1) == labels}
    right |= {name: seen[name] == traits[:, i].bool() for i, name in enumerate(TRAITS)}
    return {name: float(hits.double().mean()) for name, hits in right.items()}


# --- checkpoints ---


def _config(learned: Images, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Everything that the weights hang on."""
    code = sys.modules[__name__], descent, prompt_pipeline, words, judge
    releases = {library.__name__: library.__version__ for library in (diffusers, transformers)}
    return checkpoints.origin("PromptDigits", code, learned, recipe=asdict(recipe), seed=seed, **releases)


def _parts(pipeline: PromptDigitsPipeline) -> nn.ModuleDict:
    """All that is trained."""
    return nn.ModuleDict({"text_encoder": pipeline.text_encoder, "transformer": pipeline.transformer})


def _loaded(recipe: Recipe, state: dict[str, Tensor]) -> PromptDigitsPipeline:
    with random_states_kept():  # the first weights are drawn, then replaced
        pipeline = built(recipe)
    _parts(pipeline).load_state_dict(state)
    return pipeline
