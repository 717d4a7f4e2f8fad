"""What of a pipeline's call is to be known before its number is believed: no numbers, black pictures, odd sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.pipelines.watched import PipelineStep
from explain.types import NonFinite

_HIDDEN = ("nsfw_content_detected", "nsfw_detected")  # what the answers of pipelines call it

_SPREAD = (0.25, 4.0)  # the deviation of latents that a denoiser was trained on is about 1


def check_finite(name: str, net: nn.Module, steps: Sequence[PipelineStep], picture: Tensor) -> None:
    """Raise where a run holds NaN or infinity, naming what said it first.

    Args:
        name: the pipeline's.
        net: its network.
        steps: of its run.
        picture: what came of it.

    Raises:
        NonFinite: it does.
    """
    if _finite(picture) and all(_finite(said) for step in steps for said in step.said):
        return
    bad = next((i for i, step in enumerate(steps) if not all(_finite(said) for said in step.said)), None)
    kind = next((weights.dtype for weights in net.parameters()), torch.float32)
    half = kind in (torch.float16, torch.bfloat16)
    remedy = f"in {kind}, too small a range for it? Run it in torch.float32" if half else "check its weights and inputs"
    if bad is not None:
        raise NonFinite(
            f"the network of {name} says NaN or infinity at step {bad + 1} of {len(steps)}, t={steps[bad].t:g}: "
            f"{remedy}"
        )
    raise NonFinite(
        f"{name} makes a picture of NaN out of a finite sample: its decoder overflows; {remedy}, "
        "pipeline.vae.to(torch.float32)"
    )


def check_shown(name: str, answer: Any) -> None:
    """Raise where the pipeline's safety checker has put black pictures in the place of some.

    Args:
        name: the pipeline's.
        answer: what its call returned.

    Raises:
        ValueError: with the remedy.
    """
    for field in _HIDDEN:
        hidden = (answer.get(field) if isinstance(answer, Mapping) else None) or []
        if any(hidden):
            raise ValueError(
                f"the safety checker of {name} made {sum(map(bool, hidden))} of {len(hidden)} pictures black: a number "
                "of them would be one of the checker. Ask without it, pipeline.safety_checker = None"
            )


def said_of_size(pipeline: Any, sample: Tensor, picture: Tensor) -> str | None:
    """What is odd about the size of a picture ``[1, 3, H, W]`` that a sample ``[1, C, h, w]`` was decoded to."""
    factor = getattr(pipeline, "vae_scale_factor", None)
    if not isinstance(factor, int) or sample.dim() != 4 or picture.dim() != 4:
        return None
    height, width = picture.shape[-2:]
    own = height / sample.shape[-2], width / sample.shape[-1]
    if own == (factor, factor):
        return None
    return (
        f"pictures are {own[0]:g} times as high as the latent where the pipeline counts with {factor}: is this the VAE "
        "that the network was trained with?"
    )


def said_of_spread(latent: Tensor) -> str | None:
    """What is odd about the scale of a picture's latent ``[C, h, w]``, as the VAE encodes it."""
    spread = float(latent.std())
    if _SPREAD[0] <= spread <= _SPREAD[1]:
        return None
    return (
        f"the picture's latent spreads by {spread:.2g} where denoisers are trained on about 1: is this the VAE that "
        "the network was trained with?"
    )


def _finite(x: Tensor) -> bool:
    return bool(x.detach().isfinite().all())
