"""Who may deserve credit: features of a table, patches or superpixels of an image, or the user's own groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from explain.types import Players


def features(x: Tensor, names: Sequence[str] = ()) -> Players:
    """One player a feature of ``x [features]``; ``geometry["values"]`` is what each is.

    Raises:
        ValueError: not a table row, or another number of names.
    """
    if x.dim() != 1:
        raise ValueError(f"features are those of a table row [features]; an image {list(x.shape)} has 'patches'")
    return Players("features", torch.arange(len(x)), tuple(names), geometry={"values": x.detach().cpu().double()})


def patches(x: Tensor, size: int = 4) -> Players:
    """Squares of ``size`` pixels of ``x [C, H, W]``, smaller in the last row and column; ``index [P, 2]``: row, column.

    Raises:
        ValueError: not an image, or no such size.

    >>> patches(torch.zeros(1, 2, 3), size=2).geometry["labels"]
    tensor([[0, 0, 1],
            [0, 0, 1]])
    """
    height, width = _image_size(x, "patches")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= max(height, width):
        raise ValueError(f"size must be an int from 1 to {max(height, width)} pixels, got {size!r}")
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    across = int(columns[-1]) + 1
    labels = rows[:, None] * across + columns
    index = torch.cartesian_prod(torch.arange(int(rows[-1]) + 1), torch.arange(across))
    return Players("patches", index, geometry={"labels": labels, "image": x.detach().cpu()})


def pixels(x: Tensor) -> Players:
    """One player a pixel of a channel of ``x [C, H, W]``; ``index [P, 3]``: channel, row, column.

    Pictures show a pixel once, so only a single channel has ``geometry["labels"]``.

    >>> pixels(torch.zeros(2, 1, 2)).names
    ('pixel 0-0-0', 'pixel 0-0-1', 'pixel 1-0-0', 'pixel 1-0-1')
    """
    height, width = _image_size(x, "pixels")
    index = torch.cartesian_prod(*(torch.arange(size) for size in x.shape))
    geometry = {"image": x.detach().cpu()}
    if len(x) == 1:
        geometry["labels"] = torch.arange(height * width).view(height, width)
    return Players("pixels", index, geometry=geometry)


def superpixels(x: Tensor, segments: int = 50, compactness: float | None = None) -> Players:
    """SLIC superpixels (Achanta et al. 2012) of ``x [C, H, W]``, about ``segments`` of them.

    ``compactness`` weighs distance against colour: 10 for colours (in Lab, 0 to 100), else 0.1 (values from 0 to 1).

    Raises:
        ValueError: not an image, or a single segment: nothing could be told apart.
    """
    from skimage.segmentation import slic  # slow to import, and only images need it

    _image_size(x, "superpixels")
    if isinstance(segments, bool) or not isinstance(segments, int) or segments < 2:
        raise ValueError(f"segments must be an int of at least 2, got {segments!r}")
    colour = x.size(0) == 3
    if compactness is None:
        compactness = 10.0 if colour else 0.1
    image = x.detach().cpu().permute(1, 2, 0).double().numpy()
    found = slic(image, segments, compactness, convert2lab=colour, start_label=0)
    labels = torch.from_numpy(found).long().unique(return_inverse=True)[1]
    count = int(labels.max()) + 1
    if count < 2:
        raise ValueError(
            f"slic found a single superpixel with segments={segments}, compactness={compactness}: raise segments, "
            "change compactness, or use 'patches'"
        )
    return Players("superpixels", torch.arange(count), geometry={"labels": labels, "image": x.detach().cpu()})


def owner_of(players: Players, shape: torch.Size) -> Tensor:
    """The player of each atom, int64 ``[*shape]``, -1 for none: atoms without a player are always present.

    The atoms of a player are its pixels in ``geometry["labels"] [H, W]`` (all channels together), else its ``groups``,
    else its ``index``: feature columns of a table, pixels ``row * W + column`` of an image.

    Raises:
        ValueError: labels of another size or for other players, atoms that do not exist, or that have two owners.
    """
    surface = tuple(shape[-2:] if len(shape) == 3 else shape)
    labels = players.geometry.get("labels")
    if labels is None:
        labels = _labels_of_groups(players, math.prod(surface)).view(surface)
    if labels.shape != surface:
        raise ValueError(f"the players' labels must be {list(surface)}, one an atom, got {list(labels.shape)}")
    if int(labels.min()) < -1 or int(labels.max()) >= len(players):
        raise ValueError(
            f"labels must be from -1 to {len(players) - 1}, got {int(labels.min())} to {int(labels.max())}"
        )
    return labels.long().expand(shape)


def _labels_of_groups(players: Players, atoms: int) -> Tensor:
    groups = players.groups
    if groups is None:
        if players.index.dim() != 1:
            raise ValueError(f"players {players.kind!r} need an index [P], groups, or labels [H, W] to own atoms here")
        groups = tuple(players.index[:, None])
    labels = torch.full((atoms,), -1)
    for player, group in enumerate(groups):
        if group.numel() and not (int(group.min()) >= 0 and int(group.max()) < atoms):
            raise ValueError(f"{players.names[player]} owns atoms outside 0 to {atoms - 1}: {group.tolist()[:8]}")
        if (labels[group] >= 0).any():
            raise ValueError(f"{players.names[player]} owns atoms that another player owns: groups must not overlap")
        labels[group] = player
    return labels


def _image_size(x: Tensor, kind: str) -> tuple[int, int]:
    if x.dim() != 3:
        raise ValueError(f"{kind} are those of an image [C, H, W]; a table row {list(x.shape)} has 'features'")
    return x.size(1), x.size(2)
