"""Credit of patches and superpixels over the image."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from torch import Tensor

from explain.explanation import Explanation
from explain.plot.style import DIVERGING, axes, centred, colour_bar, title, units


def heatmap(explanation: Explanation, ax: Axes | None = None, alpha: float = 0.65) -> Axes:
    """Each pixel in the colour of its player's score over the image in grey; pixels of no player stay grey.

    Raises:
        ValueError: players without ``geometry["labels"] [H, W]``.
    """
    geometry = explanation.players.geometry
    if "labels" not in geometry:
        raise ValueError(
            f"a heat-map needs players with labels [H, W] (patches, superpixels); got {explanation.players.kind}"
        )
    ax = axes(ax, (4.6, 4.0))
    if "image" in geometry:
        ax.imshow(grey(geometry["image"]).numpy(), cmap="gray", vmin=-0.5, vmax=1.1, interpolation="nearest")
    norm = centred(explanation.scores)
    ax.imshow(
        pixel_scores(explanation).numpy(),
        cmap=DIVERGING,
        norm=norm,
        alpha=alpha if "image" in geometry else 1.0,
        interpolation="nearest",
    )
    ax.set_xticks([])
    ax.set_yticks([])
    colour_bar(ax, norm, units(explanation))
    title(ax, explanation)
    return ax


def pixel_scores(explanation: Explanation) -> Tensor:
    """The score of each pixel's player, float64 ``[H, W]``, NaN for pixels of none."""
    padded = torch.cat([explanation.scores, torch.tensor([float("nan")], dtype=torch.float64)])  # -1 is the last
    return padded[explanation.players.geometry["labels"].cpu().long()]


def grey(image: Tensor) -> Tensor:
    """An image ``[C, H, W]`` of any range as grey values ``[H, W]`` from 0 to 1."""
    flat = image.detach().cpu().double().mean(0)
    low, high = flat.min(), flat.max()
    return (flat - low) / (high - low) if high > low else torch.full_like(flat, 0.5)
