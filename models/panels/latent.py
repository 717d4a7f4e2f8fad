"""Diffusion in a latent, by words: a small Stable Diffusion 3 of three digits, its VAE trained too."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import explain
from models import checkpoints, descent, words
from models.datasets import digits
from models.panels.by_hand import agreement
from models.panels.panel import Finding, panel
from models.panels.pictures import above, in_units

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline

PROMPT, DRAWS = "a dark three left", 4
SIZES: dict[str, Any] = {"coder": (8, 16), "coder_iterations": 250, "coder_batch": 32, "width": 64}
TRAINING: dict[str, Any] = {"iterations": 350, "batch_size": 64, "validations": 2}


def pipeline_of(numbers: tuple[str, ...]) -> StableDiffusion3Pipeline:
    """A pipeline that draws these numbers, from the cache where it was trained before."""
    from models import latent_digits, prompt_digits  # seconds of transformers, for this alone

    recipe = latent_digits.Recipe(numbers, **SIZES, **TRAINING)
    learned = prompt_digits.of_numbers(digits()[0], numbers)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        return latent_digits.state(latent_digits.train(learned, recipe, progress=False)[0]), {}

    config = checkpoints.origin("LittleLatent", (latent_digits, descent, words), learned, recipe=asdict(recipe))
    return latent_digits.loaded(recipe, checkpoints.kept("LittleLatent", config, make).state)


@panel(
    "Latent diffusion",
    "Rombach et al., CVPR 2022; Esser et al., ICML 2024",
    conclude="Which words move the digit in the picture, and the pictures without each word show that they do.",
    beware="Where the words are seen: the credit is of where the ink is, and not of a map.",
)
def latent() -> Finding:
    """Words of a prompt, one of which is known to move the digit: an absent one leaves the text."""
    pipeline = pipeline_of(("zero", "one", "three"))
    steps, guidance, length = 6, 2.0, 1  # a token of the third text encoder, which is not there
    asked: dict[str, Any] = {"steps": steps, "guidance": guidance, "max_sequence_length": length}
    target = explain.wrap(pipeline).trajectory(PROMPT, payoff=words.centroid, seed=0, draws=DRAWS, **asked)
    why = in_units(explain.Shapley("words").explain(target), "pixels to the right")

    def made(coalition: Tensor) -> Tensor:
        text = " ".join(word for word, said in zip(PROMPT.split(), coalition.tolist(), strict=True) if said)
        noise = [torch.Generator().manual_seed(seed) for seed in range(DRAWS)]
        call: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, "max_sequence_length": length}
        return pipeline([text] * DRAWS, generator=noise, output_type="pt", **call).images

    told = {"all words": torch.ones(4, dtype=torch.bool)}
    told |= {f"without “{word}”": torch.arange(4) != place for place, word in enumerate(PROMPT.split())}
    samples = {name: made(coalition) for name, coalition in told.items()}
    pictures = {f"{name}\n{float(words.centroid(some).mean()):.1f}": 2 * some[0] - 1 for name, some in samples.items()}
    return Finding.of(
        why,
        f"Which words of “{PROMPT}” move the digit?",
        f"the mean column of the ink, in pixels from the left, a mean of {DRAWS} pictures",
        above(why, pictures),
        by_hand=agreement(target, why, lambda coalition: float(words.centroid(made(coalition)).mean())),
    )
