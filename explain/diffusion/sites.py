"""What a sample may be: a point ``[D]``, a signal ``[C, L]``, an image ``[C, H, W]``, a video ``[C, T, H, W]``.

Its *sites* hold all its channels: the samples of a signal, the pixels of an image or of each frame. A point has no
channels, each of its coordinates is a site.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

KINDS = {
    1: "a point [coordinates]",
    2: "a signal [channels, length]",
    3: "an image [channels, height, width]",
    4: "a video [channels, frames, height, width]",
}
SAMPLES = f"{', '.join(list(KINDS.values())[:3])} or {KINDS[4]}"


def sites(shape: Sequence[int]) -> torch.Size:
    """The shape of the sites: ``[D]``, ``[L]``, ``[H, W]`` or ``[T, H, W]``.

    >>> sites((3, 4, 5)), sites((2,))
    (torch.Size([4, 5]), torch.Size([2]))
    """
    return torch.Size(shape if len(shape) == 1 else shape[1:])


def over_channels(values: Tensor, shape: Sequence[int]) -> Tensor:
    """``values [*batch, *sites]``, shaped to multiply samples ``[*batch, *shape]``.

    >>> over_channels(torch.ones(6, 4, 5), (3, 4, 5)).shape
    torch.Size([6, 1, 4, 5])
    """
    return values if len(shape) == 1 else values.unsqueeze(-len(shape))


def tiled(x: Tensor, times: int) -> Tensor:
    """The rows of ``x [n, ...]`` one after the other, ``times`` over: ``[times * n, ...]``."""
    return x.repeat(times, *[1] * (x.dim() - 1))
