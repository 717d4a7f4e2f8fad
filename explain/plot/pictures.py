"""Several pictures on one scale, so that what is brighter looks brighter; and where they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST = 0.85  # of a picture's values within a usual range, from which on the rest is cut off at its ends
BESIDE = 1.25  # what is foreseen lies a little beyond [-1, 1] in the middle of a run


def alike(images: Tensor) -> list[np.ndarray]:
    """Pictures ``[n, C, H, W]`` as matplotlib shows them, all on one scale: colours for three channels, else grey.

    That of pictures, [0, 1], or of a denoiser, [-1, 1], where the values of most of them are on it: what is foreseen
    early in a run lies beyond, and would leave the rest grey. Else from the least to the largest of all.

    >>> [float(one.max()) for one in alike(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1))]
    [0.0, 0.5, 1.0]
    """
    flat = images.detach().cpu().double()
    flat = flat if flat.size(1) == 3 else flat.mean(1, keepdim=True)
    low, high = _range(flat)
    scaled = ((flat - low) / (high - low)).clamp(0, 1) if high > low else torch.full_like(flat, 0.5)
    return [one.permute(1, 2, 0).squeeze(-1).numpy() for one in scaled]


def one_picture(image: Any, what: str) -> np.ndarray:
    """A picture ``[C, H, W]``, or a PIL image, as matplotlib shows it.

    Raises:
        ValueError: no such picture.
    """
    if hasattr(image, "convert"):
        image = torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0).float() / 255
    if not isinstance(image, Tensor) or image.dim() != 3 or image.size(0) not in (1, 3):
        got = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        video = isinstance(image, Tensor) and image.dim() == 4
        frame = "; of a video give one frame, run.picture()[0]" if video else ""
        raise ValueError(f"{what} must be a picture [3, H, W], such as run.picture(), got {got}{frame}")
    return alike(image[None])[0]


def images_of(run: Any) -> Tensor:
    """``[steps, C, H, W]``: given so, or what a run foresaw at each of its steps, ``run.images()``.

    Raises:
        ValueError: neither.
    """
    found = run.images() if callable(getattr(run, "images", None)) else run
    if not isinstance(found, Tensor) or found.dim() != 4 or not len(found):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            "a run, explain.wrap(...).trajectory(...), or images [steps, C, H, W] are needed, "
            f"got {got}{one_frame(found)}"
        )
    return found


def one_frame(images: Any) -> str:
    """Of videos, what to give instead, for an error's end."""
    if not isinstance(images, Tensor) or images.dim() != 5:
        return ""
    return "; of a video give one frame of each, images[:, 0]"


def even(count: int, most: int) -> list[int]:
    """Up to ``most`` of so many positions, evenly spread, the first and the last among them.

    >>> even(10, 4), even(3, 8)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    return sorted({round(float(i)) for i in np.linspace(0, count - 1, min(most, count))})


def _range(values: Tensor) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    usual = (values.abs() <= BESIDE).flatten(1).double().mean(1) >= MOST
    if low < 0 and float(usual.double().mean()) >= 0.5:
        return -1.0, 1.0
    return low, high
