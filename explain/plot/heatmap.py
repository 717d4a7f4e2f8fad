"""Credit of patches and superpixels over the image."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from torch import Tensor

from explain.credit import Credit
from explain.plot.style import DIVERGING, axes, centred, colour_bar, title, units

# the image beneath is light, so that the colours above it stay true
UNDER: dict[str, Any] = {"cmap": "gray", "vmin": -1.4, "vmax": 1.05, "interpolation": "nearest"}
UNSIGNED = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#fdd0a2", "#e6550d"])


def heatmap(explanation: Credit, ax: Axes | None = None, alpha: float = 0.6) -> Axes:
    """Each pixel in the colour of its player's score over the image in grey; pixels of no player stay grey.

    Red is above and blue below zero; scores without a sign, such as shares of attention, go from white to orange.

    Raises:
        ValueError: players without ``geometry["labels"] [H, W]``, or those of points, signals and videos.
    """
    geometry = explanation.players.geometry
    if "labels" not in geometry:
        raise ValueError(
            f"a heat-map needs players with labels [H, W] (patches, superpixels); got {explanation.players.kind}"
        )
    if geometry["labels"].dim() != 2:
        raise ValueError(
            f"a heat-map is of images, labels [H, W], got {list(geometry['labels'].shape)}: plot.bars draws any players"
        )
    ax = axes(ax, (4.6, 4.0))
    if "image" in geometry:
        ax.imshow(grey(geometry["image"]).numpy(), **UNDER)
    cmap, norm = scale(explanation)
    ax.imshow(
        pixel_scores(explanation).numpy(),
        cmap=cmap,
        norm=norm,
        alpha=alpha if "image" in geometry else 1.0,
        interpolation="nearest",
    )
    ax.set_xticks([])
    ax.set_yticks([])
    colour_bar(ax, norm, units(explanation), cmap)
    title(ax, explanation)
    return ax


def scale(explanation: Credit) -> tuple[Colormap, Normalize]:
    """Red and blue around zero; white to orange where the method says that its scores have no sign.

    That begins at zero, or, where all shares are much alike, at the smallest: the colour bar says which.
    """
    said = explanation.checks.get("scores")
    if isinstance(said, str) and "without a sign" in said and bool((explanation.scores >= 0).all()):
        low, high = float(explanation.scores.min()), float(explanation.scores.max())
        return UNSIGNED, Normalize(low if high / 2 < low < high else 0, high or 1.0)
    return DIVERGING, centred(explanation.scores)


def pixel_scores(explanation: Credit) -> Tensor:
    """The score of each pixel's player, float64 ``[H, W]``, NaN for pixels of none."""
    padded = torch.cat([explanation.scores, torch.tensor([float("nan")], dtype=torch.float64)])  # -1 is the last
    return padded[explanation.players.geometry["labels"].cpu().long()]


def grey(image: Tensor) -> Tensor:
    """An image ``[C, H, W]`` of any range as grey values ``[H, W]`` from 0 to 1."""
    flat = image.detach().cpu().double().mean(0)
    low, high = flat.min(), flat.max()
    return (flat - low) / (high - low) if high > low else torch.full_like(flat, 0.5)
