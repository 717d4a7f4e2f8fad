"""Who plays on a denoiser: patches and superpixels of an image, the label, and the steps of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from explain.types import Players


def image_players(image: Tensor, kind: str, options: dict[str, Any]) -> Players:
    """Squares of ``size=`` pixels, or about ``segments=`` superpixels of an image ``[C, H, W]``.

    Raises:
        ValueError: an unknown kind or option, or superpixels that collapse to one segment.
    """
    allowed = {"patches": {"size"}, "superpixels": {"segments", "compactness"}}
    if kind not in allowed:
        raise ValueError(f"a step's image plays as {' or '.join(allowed)}; got {kind!r}")
    if unknown := set(options) - allowed[kind]:
        raise ValueError(f"players({kind!r}) takes {sorted(allowed[kind])}, got {sorted(unknown)}")
    labels = patches(image, **options) if kind == "patches" else superpixels(image, **options)
    groups = tuple((labels.reshape(-1) == player).nonzero().view(-1) for player in range(int(labels.max()) + 1))
    geometry = {"labels": labels, "image": image.detach().cpu()}
    return Players(kind, torch.arange(len(groups)), (), groups, geometry)


def patches(image: Tensor, size: int | None = None) -> Tensor:
    """The patch of each pixel, int64 ``[H, W]``; by default a quarter of the shorter side wide.

    Raises:
        ValueError: no such size.
    """
    _, height, width = image.shape
    size = max(1, min(height, width) // 4) if size is None else size
    if not isinstance(size, int) or not 1 <= size <= max(height, width):
        raise ValueError(f"size must be whole, from 1 to {max(height, width)} pixels, got {size}")
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    return rows[:, None] * (int(columns.max()) + 1) + columns[None]


def superpixels(image: Tensor, segments: int = 12, compactness: float = 0.1) -> Tensor:
    """SLIC superpixels (Achanta et al. 2012) of each pixel, int64 ``[H, W]``.

    Raises:
        ValueError: fewer than two segments come out: a single one explains nothing.
    """
    from skimage.segmentation import slic

    if segments < 2:
        raise ValueError(f"segments must be at least 2, got {segments}")
    array = image.detach().cpu().double()
    array = (array - array.min()) / (array.max() - array.min()).clamp_min(1e-12)
    found = slic(array.numpy(), n_segments=segments, compactness=compactness, channel_axis=0, start_label=0)
    labels = torch.unique(torch.from_numpy(found).long(), return_inverse=True)[1]
    if int(labels.max()) < 1:
        raise ValueError("the superpixels collapse to one segment: lower compactness, ask for more, or use patches")
    return labels


def owner_of_pixels(players: Players, shape: torch.Size) -> Tensor:
    """The player of each pixel, int64 ``[H, W]``; -1 for pixels that nobody owns."""
    owner = torch.full((shape.numel(),), -1)
    for player, pixels in enumerate(players.groups or ()):
        owner[pixels] = player
    return owner.view(shape)


def step_players(kind: str, steps: int, times: list[float], options: dict[str, Any]) -> Players:
    """The steps of a run, ``size=`` adjacent ones a player; named by the timestep that each begins with.

    Raises:
        ValueError: an unknown option.
    """
    if unknown := set(options) - {"size"}:
        raise ValueError(f"players({kind!r}) takes ['size'], got {sorted(unknown)}")
    size = options.get("size", 1)
    if not isinstance(size, int) or not 1 <= size <= steps:
        raise ValueError(f"size must be whole, from 1 to {steps} steps, got {size}")
    groups = tuple(torch.arange(steps).split(size))
    index = torch.stack([group[0] for group in groups])
    names = tuple(f"t={times[int(first)]:g}" for first in index)
    return Players(kind, index, names, groups, {"t": torch.tensor([times[int(first)] for first in index])})


def label_player(name: str) -> Players:
    """The condition as the only player."""
    return Players("labels", torch.zeros(1, dtype=torch.long), (name,))
