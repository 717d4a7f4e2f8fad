"""Credit of patches and superpixels beside the image."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from torch import Tensor

from explain.credit import Credit
from explain.plot.pictures import alike
from explain.plot.style import DIVERGING, FAINT, INK, axes, centred, colour_bar, hatched, title, units

UNSIGNED = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#fdd0a2", "#e6550d"])
NOBODY = "#c9c9c9"  # pixels of no player
GAP = 0.06  # between the picture and its credit, in widths


def heatmap(explanation: Credit, ax: Axes | None = None, norm: Normalize | None = None) -> Axes:
    """Each pixel in the colour of its player's score, and the picture itself at the left, in its own colours.

    Nothing lies between the colours and the eye: a patch has the colour that the bar has at its score. Red is above and
    blue, hatched, below zero; scores without a sign, such as shares of attention, go from white to orange, with the
    share that each would have if all had the same marked. Pixels of no player are grey.

    Args:
        explanation: over patches or superpixels.
        ax: where to draw.
        norm: of the colours, to compare several answers.

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
    height, width = geometry["labels"].shape
    image = geometry.get("image")
    ax = axes(ax, (4.6, 4.0) if image is None else (7.4, 3.6))
    cmap, usual = scale(explanation)
    norm = norm or usual
    left = -0.5
    if image is not None:
        left -= (1 + GAP) * width
        ax.imshow(
            alike(image[None])[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest",
            extent=(left, left + width, height - 0.5, -0.5),
        )  # fmt: skip
    scores = pixel_scores(explanation).numpy()
    ax.imshow(np.ma.masked_invalid(scores), cmap=cmap.with_extremes(bad=NOBODY), norm=norm, interpolation="nearest")
    hatched(ax, scores < 0)
    right, bottom = width - 0.5, height - 0.5
    ax.plot([-0.5, right, right, -0.5, -0.5], [-0.5, -0.5, bottom, bottom, -0.5], color=FAINT, linewidth=0.8)
    ax.set(xlim=(left, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    bar = colour_bar(ax, norm, units(explanation), cmap)
    if cmap is UNSIGNED:
        mark_uniform(bar, float(explanation.scores.mean()))
    title(ax, explanation)
    return ax


def scale(explanation: Credit) -> tuple[Colormap, Normalize]:
    """Red and blue around zero; white to orange where the method says that its scores have no sign.

    That goes from zero to twice what each would have if all had the same, or further: what is nearly uniform looks so.
    """
    said = explanation.checks.get("scores")
    if isinstance(said, str) and "without a sign" in said and bool((explanation.scores >= 0).all()):
        shares = explanation.scores if len(explanation.scores) else torch.ones(1)
        return UNSIGNED, Normalize(0, max(2 * float(shares.mean()), float(shares.max())) or 1.0)
    return DIVERGING, centred(explanation.scores)


def mark_uniform(bar: Colorbar, share: float, name: str = "uniform") -> None:
    """A line at the share that each would have if all had the same."""
    bar.ax.axhline(share, color=INK, linewidth=1.4)
    bar.ax.text(-0.15, share, name, transform=bar.ax.get_yaxis_transform(), fontsize="x-small", rotation=90,
                ha="right", va="center")  # fmt: skip


def pixel_scores(explanation: Credit) -> Tensor:
    """The score of each pixel's player, float64 ``[H, W]``, NaN for pixels of none."""
    padded = torch.cat([explanation.scores, torch.tensor([float("nan")], dtype=torch.float64)])  # -1 is the last
    return padded[explanation.players.geometry["labels"].cpu().long()]
