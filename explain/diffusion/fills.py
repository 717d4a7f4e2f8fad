"""What an absent patch shows: something else, noised to the same step with the same draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from explain.diffusion.targets import StepTarget

FILLS = ("mean", "reference", "noise", "zeros")


def fills(target: StepTarget) -> Tensor:
    """The absent values of each draw, ``[K, C, H, W]``.

    "mean" is the mean of the reference images, or of the image's own pixels where there are none; "reference" is one
    reference image a draw; "zeros" the middle grey of images in [-1, 1]. All are noised to the step with the draw that
    the image itself was noised with. "noise" is fresh noise and nothing else: it changes the noise level early on.

    Raises:
        ValueError: "reference" without reference images.
    """
    draws, image = target.noise, target.image
    generator = torch.Generator().manual_seed(target.seed + 1)
    if target.fill == "noise":
        return torch.randn(draws.shape, generator=generator, dtype=torch.float64).to(draws)
    if target.fill == "zeros":
        clean = torch.zeros_like(draws)
    elif target.fill == "reference":
        if target.reference is None:
            raise ValueError('fill="reference" needs images to take patches from: step(..., reference=images)')
        chosen = torch.randint(len(target.reference), (len(draws),), generator=generator)
        clean = target.reference[chosen]
    elif target.reference is not None:
        clean = target.reference.mean(0).expand_as(draws)
    else:
        clean = image.mean((1, 2), keepdim=True).expand_as(draws)
    return target.model.process.absent(clean, draws, target.times)
