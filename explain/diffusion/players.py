"""Who plays on a denoiser: patches, superpixels and coordinates of a sample, the label, and the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.denoiser import Condition
from explain.diffusion.sites import KINDS, sites
from explain.spelling import came
from explain.types import Players

IMAGE_KINDS = ("patches", "superpixels", "coordinates")


def image_players(image: Tensor, kind: str, options: dict[str, Any]) -> Players:
    """The parts of one sample ``[*shape]``: boxes of ``size=``, about ``segments=`` superpixels, or coordinates.

    Raises:
        ValueError: an unknown kind or option, one that this sample does not have, or superpixels that collapse to one
            segment.
    """
    allowed = {"patches": {"size"}, "superpixels": {"segments", "compactness"}, "coordinates": set()}
    if kind not in allowed:
        raise ValueError(f"a step's image plays as {' or '.join(allowed)}; {came(kind, allowed)}")
    known = allowed[kind]
    if unknown := set(options) - known:
        raise ValueError(f"players({kind!r}) takes {sorted(known) or 'no options'}, {came(min(unknown), known)}")
    found: dict[str, Callable[..., Tensor]]
    found = {"patches": patches, "superpixels": superpixels, "coordinates": coordinates}
    labels = found[kind](image, **options)
    groups = tuple((labels.reshape(-1) == player).nonzero().view(-1) for player in range(int(labels.max()) + 1))
    geometry = {"labels": labels, "image": image.detach().cpu()}
    return Players(kind, torch.arange(len(groups)), (), groups, geometry)


def patches(image: Tensor, size: int | Sequence[int] | None = None) -> Tensor:
    """The patch of each site, int64 ``[*sites]``: squares of an image, segments of a signal, boxes of a video.

    Args:
        image: one sample ``[*shape]``.
        size: sites along every axis, or one number an axis. By default a quarter of the shorter side of an image, a
            sixteenth of a signal, one coordinate of a point, a quarter of a video's frames and of its shorter side.

    Raises:
        ValueError: no such size.
    """
    extent = sites(image.shape)
    if size is None:
        edge = max(1, min(extent[-2:]) // 4)
        size = {1: (1,), 2: (max(1, extent[0] // 16),), 3: (edge, edge), 4: (max(1, extent[0] // 4), edge, edge)}[
            image.dim()
        ]
    each = [size] * len(extent) if isinstance(size, int) else list(size) if isinstance(size, Sequence) else [size]
    whole = all(isinstance(one, int) and not isinstance(one, bool) and 1 <= one <= max(extent) for one in each)
    if not whole or len(each) != len(extent):
        unit = "pixels" if image.dim() == 3 else "sites"
        raise ValueError(
            f"size must be whole, from 1 to {max(extent)} {unit}, or one number for each of the {len(extent)} axes "
            f"{list(extent)}; got {size!r:.60}"
        )
    labels = torch.zeros((), dtype=torch.long)
    for length, one in zip(extent, each, strict=True):
        place = torch.arange(length) // one
        labels = labels[..., None] * (int(place[-1]) + 1) + place
    return labels


def coordinates(image: Tensor) -> Tensor:
    """Each coordinate of a point ``[D]`` by itself, int64 ``[D]``.

    Raises:
        ValueError: a sample that is no point.
    """
    if image.dim() != 1:
        raise ValueError(
            f"coordinates are of points [D]; {KINDS[image.dim()]} plays as patches, size=1 for single sites"
        )
    return torch.arange(len(image))


def superpixels(image: Tensor, segments: int = 12, compactness: float = 0.1) -> Tensor:
    """SLIC superpixels (Achanta et al. 2012) of each pixel, int64 ``[H, W]``.

    Raises:
        ValueError: fewer than two segments come out: a single one explains nothing; or a sample that is no image.
    """
    from skimage.segmentation import slic

    if image.dim() != 3:
        raise ValueError(f"superpixels are of images [C, H, W]; {KINDS[image.dim()]} plays as patches (size=)")
    if segments < 2:
        raise ValueError(f"segments must be at least 2, got {segments}")
    array = image.detach().cpu().double()
    array = (array - array.min()) / (array.max() - array.min()).clamp_min(1e-12)
    found = slic(array.numpy(), n_segments=segments, compactness=compactness, channel_axis=0, start_label=0)
    labels = torch.unique(torch.from_numpy(found).long(), return_inverse=True)[1]
    if int(labels.max()) < 1:
        raise ValueError("the superpixels collapse to one segment: lower compactness, ask for more, or use patches")
    return labels


def pixel_players(image: Tensor) -> Players:
    """Each number of one sample ``[*shape]``; ``index [P, dims]``, of an image channel, row and column."""
    index = torch.cartesian_prod(*(torch.arange(size) for size in image.shape)).view(image.numel(), image.dim())
    geometry = {"image": image.detach().cpu()}
    if len(image) == 1 and image.dim() == 3:
        geometry["labels"] = torch.arange(image.numel()).view(image.shape[1:])
    return Players("pixels" if image.dim() == 3 else "sites", index, geometry=geometry)


def owner_of_pixels(players: Players, shape: torch.Size) -> Tensor:
    """The player of each site, int64 ``[*sites]``, ``[H, W]`` of an image; -1 for sites that nobody owns."""
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
        raise ValueError(f"players({kind!r}) takes ['size'], {came(min(unknown), ['size'])}")
    size = options.get("size", 1)
    if not isinstance(size, int) or not 1 <= size <= steps:
        raise ValueError(f"size must be whole, from 1 to {steps} steps, got {size}")
    groups = tuple(torch.arange(steps).split(size))
    index = torch.stack([group[0] for group in groups])
    names = tuple(f"t={times[int(first)]:g}" for first in index)
    return Players(kind, index, names, groups, {"t": torch.tensor([times[int(first)] for first in index])})


def condition_players(condition: Condition, null: Condition) -> Players:
    """Each entry of named conditions, ``label={"text": ..., "style": ...}``, as a player.

    Raises:
        ValueError: fewer than two entries, or one without the null that it was trained with.
    """
    if len(condition) < 2:
        raise ValueError(
            f"conditions play where there are several, label={{...}} with a name each; got {len(condition)}: play with "
            "'labels'"
        )
    if missing := [name for name in condition if name not in null]:
        raise ValueError(
            f"what stands for no {' and no '.join(missing)}? Give explain.wrap(..., null={{...}}) with an entry for "
            "each condition, as the model was trained"
        )
    return Players("conditions", torch.arange(len(condition)), tuple(condition))


def noise_players(start: Tensor, options: dict[str, Any]) -> Players:
    """The parts of a run's starting noise ``[*shape]``, as the patches of an image."""
    found = image_players(start, "patches", options)
    return Players("noise", found.index, (), found.groups, found.geometry)


def label_player(name: str) -> Players:
    """The condition as the only player."""
    return Players("labels", torch.zeros(1, dtype=torch.long), (name,))
