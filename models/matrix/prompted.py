"""A pipeline of diffusers that looks at words by cross-attention: its run written out, and what each layer looks at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

import explain
from explain.types import Players
from models.matrix.case import Case
from models.matrix.denoisers import DRAWS, LEVELS, SHAPE, Network, brightness, exact, normal, of_noise, sampled
from models.matrix.graphs import stirred
from models.prompt_pipeline import encoder_config, word_tokenizer

PROMPT, NEGATIVE, WEIGHT, TIMES = "a dark three", "faint", 2.0, [11, 1]
WIDTH, HEADS, SIDE = 4, 2, 8  # of a token; and pixels of one in the latent


class _Foreseen(nn.Module):
    """The noise that a network of diffusers foresees in latents ``x`` at steps ``t``, beside states of words."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # of the others there is no second derivative
            return self.unet(x, t, states).sample


def pipeline() -> StableDiffusionPipeline:
    """Of random weights; keys and values of its cross-attention are what is trained, as Kumari et al. (2023) do."""
    tokenizer, levels = word_tokenizer(), (WIDTH, WIDTH)
    unet = UNet2DConditionModel(
        sample_size=SHAPE[1:],
        in_channels=SHAPE[0],
        out_channels=SHAPE[0],
        block_out_channels=levels,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        mid_block_type=None,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=HEADS,
    )
    coder = AutoencoderKL(
        latent_channels=SHAPE[0],
        block_out_channels=(2,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=1,
    )
    made = StableDiffusionPipeline(
        vae=stirred(coder, 0.1),
        text_encoder=stirred(CLIPTextModel(encoder_config(tokenizer, WIDTH, HEADS)), 0.3),
        tokenizer=tokenizer,
        unet=stirred(unet, 0.2),
        scheduler=exact(DDIMScheduler(num_train_timesteps=20, clip_sample=False, steps_offset=1)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    unet.requires_grad_(False)
    for layer in _looking(unet).values():
        layer.to_k.requires_grad_(True)
        layer.to_v.requires_grad_(True)
    return made


def _looking(unet: nn.Module) -> dict[str, Any]:
    """The layers of cross-attention."""
    return {name: layer for name, layer in unet.named_modules() if name.endswith("attn2")}


def prompted() -> Case:
    """Runs of Stable Diffusion (Rombach et al. 2022): words, the whole prompt, steps with it, and guidance."""
    made = pipeline()
    net, kept = _Foreseen(made.unet), made.scheduler.alphas_cumprod
    every = torch.ones(len(TIMES), dtype=torch.bool)

    def read(text: str) -> Tensor:
        ids = made.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
        return made.text_encoder(ids).last_hidden_state

    def number(
        prompt: str = PROMPT,
        negative: str = NEGATIVE,
        weights: Tensor | None = None,
        own: Network = net,
        draws: int = DRAWS,
    ) -> Tensor:
        each, states = torch.full((len(TIMES),), WEIGHT) if weights is None else weights, (read(prompt), read(negative))

        def predict(x: Tensor, t: int) -> Tensor:
            given, without = (own(x, torch.full((1,), t), one) for one in states)
            return without + float(each[TIMES.index(t)]) * (given - without)

        ends = [sampled(predict, kept, TIMES, normal(seed)[None], 0.0, every, 0) for seed in range(draws)]
        pictures = made.vae.decode(torch.cat(ends) / made.vae.config.scaling_factor).sample
        return brightness((pictures / 2 + 0.5).clamp(0, 1)).mean()

    def words(players: Players, there: Tensor) -> Tensor:
        sides: tuple[list[str], list[str]] = ([], [])
        for name, present in zip(players.names, there.tolist(), strict=True):
            if present:
                sides[name.startswith("not: ")].append(name.removeprefix("not: "))
        return number(" ".join(sides[0]), " ".join(sides[1]))

    def conditions(_: Players, there: Tensor) -> Tensor:
        prompt, negative = there.tolist()
        return number(PROMPT if prompt else "", NEGATIVE if negative else "")

    answers: dict[str, Callable[[Players, Tensor], Tensor]] = {
        "words": words,
        "conditions": conditions,
        "labels": lambda _, there: number(PROMPT if there else ""),
        "steps": lambda _, there: number(weights=torch.where(there, WEIGHT, 0.0)),
        "guidance": lambda _, there: number(weights=torch.where(there, WEIGHT, 1.0)),
    }
    with torch.no_grad():
        states = torch.cat([read(text) for text in ("a dark three", "faint one", "zero", "three left", "")])
        looked = _looked(made, lambda: number(draws=1))
    target = explain.wrap(made, weight_decay=0.1, draws=LEVELS).trajectory(
        PROMPT,
        NEGATIVE,
        payoff=brightness,
        steps=len(TIMES),
        guidance=WEIGHT,
        draws=DRAWS,
        seed=0,
        height=SIDE * SHAPE[1],
        width=SIDE * SHAPE[2],
    )
    training = of_noise(net, kept, lambda net: number(own=net), states)
    return Case(target, {name: torch.no_grad()(f) for name, f in answers.items()}, looked=looked, training=training)


# --- what the layers look at ---


def _looked(made: StableDiffusionPipeline, run: Callable[[], Any]) -> dict[str, Callable[[Players], Tensor]]:
    """The share of the picture's attention that each word gets: means over heads, layers and steps of one run.

    The calls with the prompt and those without it take turns.
    """
    seen: list[Tensor] = []

    def look(layer: Any, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        states = named["encoder_hidden_states"]
        query, key = layer.to_q(given[0]), layer.to_k(states)
        heads = zip(query[0].chunk(layer.heads, 1), key[0].chunk(layer.heads, 1), strict=True)
        seen.append(torch.stack([(q @ k.T / q.size(1) ** 0.5).softmax(1) for q, k in heads]))

    layers = _looking(made.unet).values()
    handles = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    run()
    for handle in handles:
        handle.remove()
    calls = [seen[at : at + len(layers)] for at in range(0, len(seen), len(layers))]
    sides = [[one for call in calls[side::2] for one in call] for side in (0, 1)]
    return {name: partial(_shares, sides, shape) for name, shape in (("mean", _cells), ("daam", _smooth))}


def _shares(sides: list[list[Tensor]], shape: Callable[[Tensor], Tensor], players: Players) -> Tensor:
    """The mean of each word's map; a word is one token, the first of them behind the mark of the beginning."""
    found, places = [], [0, 0]
    for name in players.names:
        side = name.startswith("not: ")
        places[side] += 1
        found.append(torch.stack([shape(one[..., places[side]]).mean() for one in sides[side]]).mean())
    return torch.stack(found)


def _cells(shares: Tensor) -> Tensor:
    """``[heads, tokens of the picture]``, each pixel of the latent as the token that it lies in."""
    height, width = SHAPE[1:]
    if shares.size(1) == height * width:
        return shares
    down = shares.unflatten(1, ((height + 1) // 2, -1))
    return down.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]


def _smooth(shares: Tensor) -> Tensor:
    """The same, upsampled as Tang et al. (2023) do."""
    height, width = SHAPE[1:]
    shaped = shares.unflatten(1, (height, width) if shares.size(1) == height * width else ((height + 1) // 2, -1))
    return F.interpolate(shaped[None], (height, width), mode="bicubic", align_corners=False).clamp_min(0)
