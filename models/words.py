"""Words of a prompt for handwritten digits, and what each does to the picture: four causes that are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAITS = {"ink": ("faint", "dark"), "shift": ("left", "right"), "tone": ("plain", "inverted")}
FAINT = 0.5  # the ink of a faint digit, as a share of a dark one's
FILLERS = ("a", "digit")  # words that say nothing


def dress(images: Tensor, traits: Tensor) -> Tensor:
    """Digits ``[n, 1, H, W]`` in [-1, 1] with traits ``[n, 3]``, each the place of a word in `TRAITS`.

    In brightness from 0 to 1: a faint digit has half the ink, a shift moves by a pixel, and ``inverted`` is ``1 - x``.

    >>> white = torch.ones(1, 1, 1, 3)
    >>> dress(white, torch.tensor([[0, 0, 0]]))  # faint, left, plain
    tensor([[[[ 0.,  0., -1.]]]])
    >>> dress(white, torch.tensor([[1, 1, 1]]))  # dark, right, inverted
    tensor([[[[ 1., -1., -1.]]]])
    """
    ink, shift, tone = (trait.view(-1, 1, 1, 1) for trait in traits.T)
    brightness = (images + 1) / 2
    empty = torch.zeros_like(brightness[..., :1])
    left, right = torch.cat([brightness[..., 1:], empty], -1), torch.cat([empty, brightness[..., :-1]], -1)
    moved = torch.where(shift == 0, left, right) * torch.where(ink == 0, FAINT, 1.0)
    return 2 * torch.where(tone == 0, moved, 1 - moved) - 1


def every_dress(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each digit in all eight dresses, and its class."""
    traits = torch.cartesian_prod(*(torch.arange(2) for _ in TRAITS))
    repeated, worn = images.repeat_interleave(len(traits), 0), traits.repeat(len(images), 1)
    return dress(repeated, worn), labels.repeat_interleave(len(traits))


def captions(labels: Tensor, traits: Tensor, drop: float) -> list[str]:
    """Prompts that name class and traits in any order, each word left out ``drop`` of the time, some with a filler.

    Drawn from torch's global generator.
    """
    kept = torch.rand(len(labels), 2 + len(TRAITS)) >= drop
    fillers = torch.randint(len(FILLERS), (len(labels),)).tolist()
    prompts = []
    for label, worn, filler, stays in zip(labels.tolist(), traits.tolist(), fillers, kept.tolist(), strict=True):
        said = [NUMBERS[label], *(words[i] for words, i in zip(TRAITS.values(), worn, strict=True)), FILLERS[filler]]
        left = [word for word, stay in zip(said, stays, strict=True) if stay]
        prompts.append(" ".join(left[i] for i in torch.randperm(len(left)).tolist()))
    return prompts


# --- what can be seen of them: payoffs of pictures [n, C, H, W] in [0, 1] ---


def centroid(pictures: Tensor) -> Tensor:
    """The mean column of the ink, ``[n]`` in pixels from the left: what ``left`` and ``right`` cause.

    >>> centroid(torch.tensor([[[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]]))
    tensor([1.5000])
    """
    ink = _ink(pictures).sum(-2)
    columns = torch.arange(ink.size(-1), dtype=ink.dtype)
    return (ink * columns).sum(-1) / ink.sum(-1).clamp_min(1e-6)


def peak_ink(pictures: Tensor) -> Tensor:
    """The mean of the four pixels with most ink, ``[n]`` from 0 to 1: what ``faint`` and ``dark`` cause."""
    return _ink(pictures).flatten(1).topk(4, 1).values.mean(1)


def brightness(pictures: Tensor) -> Tensor:
    """The mean brightness, ``[n]`` from 0 to 1.

    ``plain`` and ``inverted`` cause it; ``faint`` and ``dark`` only together with them, for less ink makes a plain
    picture darker and an inverted one brighter.
    """
    return pictures.mean((1, 2, 3))


def _ink(pictures: Tensor) -> Tensor:
    """How far each pixel ``[n, H, W]`` is from the ground, which is seen in the corners."""
    mean = pictures.mean(1)
    ground = mean[:, [0, 0, -1, -1], [0, -1, 0, -1]].median(1).values
    return (mean - ground[:, None, None]).abs()


def reads(net: torch.nn.Module, number: str) -> Callable[[Tensor], Tensor]:
    """``pictures -> log p(number | picture) [n]`` by a judge of digits in [-1, 1]: what the number's word causes."""
    place = NUMBERS.index(number)

    def payoff(pictures: Tensor) -> Tensor:
        return net(2 * pictures.mean(1, keepdim=True) - 1).log_softmax(1)[:, place]

    payoff.__name__ = f"log p({number})"
    return payoff
