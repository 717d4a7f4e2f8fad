"""What an absent patch shows: something else, noised to the same step with the same draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from explain.diffusion.denoiser import checked_image
from explain.diffusion.number import StepNumber
from explain.guard import usual_modes

FILLS = ("mean", "reference", "noise", "zeros")


def fills(number: StepNumber, fill: str, reference: Tensor | None) -> Tensor:
    """The absent values of each draw, ``[K, *shape]``.

    "mean" is the mean of the reference images, or of the image's own pixels where there are none (of a point, whose
    coordinates have no mean in common, references are needed); "reference" is one
    reference image a draw; "zeros" the middle grey of images in [-1, 1]. All are noised to the step with the draw that
    the image itself was noised with. "noise" is fresh noise and nothing else: it changes the noise level early on.

    Raises:
        ValueError: "reference" without reference images, or "mean" of a point without any.
    """
    draws = number.noise
    generator = torch.Generator().manual_seed(number.seed + 1)
    with usual_modes():
        if fill == "noise":
            return torch.randn(draws.shape, generator=generator, dtype=torch.float64).to(draws)
        clean = clean_fill(number.image, len(draws), fill, reference, generator).expand_as(draws)
        return number.model.process.absent(clean, draws, number.times)


def clean_fill(
    image: Tensor, draws: int, fill: str, reference: Tensor | None, generator: torch.Generator, grey: float = 0.0
) -> Tensor:
    """The fill before it is noised, one for all draws ``[1, *shape]`` or one a draw ``[K, *shape]``.

    Args:
        image: whose parts are absent, ``[*shape]``.
        draws: ``K``.
        fill: "mean", "reference" or "zeros".
        reference: samples ``[m, *shape]``.
        generator: of which of them are taken.
        grey: what "zeros" is on the image's scale, its middle.

    Raises:
        ValueError: "reference" without reference images, or "mean" of a point without any.
    """
    if fill == "zeros":
        return torch.full_like(image, grey)[None]
    if fill == "reference":
        if reference is None:
            raise ValueError('fill="reference" needs images to take patches from: step(..., reference=images)')
        return reference[torch.randint(len(reference), (draws,), generator=generator)]
    if reference is not None:
        return reference.mean(0, keepdim=True)
    if image.dim() == 1:
        raise ValueError(
            'fill="mean" of a point is the mean of others: step(..., reference=points [m, D]), or fill="zeros"'
        )
    return image.mean(tuple(range(1, image.dim())), keepdim=True).expand_as(image)[None]


def checked_reference(reference: Any, image: Tensor) -> Tensor:
    """Reference images ``[m, *shape]``, like the image.

    Raises:
        ValueError: another shape, or none.
        TypeError: whole numbers.
        NonFinite: NaN or infinity.
    """
    wanted = f"reference must be images [m, {', '.join(map(str, image.shape))}]"
    try:
        found = torch.stack(list(reference)) if isinstance(reference, (list, tuple)) else torch.as_tensor(reference)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{wanted}, got {type(reference).__name__}") from error
    if found.dim() != image.dim() + 1 or found.shape[1:] != image.shape or not len(found):
        raise ValueError(f"{wanted}, got {list(found.shape)}")
    return torch.stack([checked_image(one, image.dtype, "reference") for one in found]).to(image)
