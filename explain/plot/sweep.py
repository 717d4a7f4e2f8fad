"""A number against guidance, with the picture that each weight makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from explain.plot.pictures import alike, even, one_frame
from explain.plot.style import FAINT, INK, UP, axes, heading, inches

WIDTH, HEIGHT = 7.0, 2.9  # inches
LABEL = 0.07  # of the height, over and under the pictures
MARGIN = 0.2  # of them, for what is around the lines


def sweep(
    weights: Sequence[float],
    numbers: Sequence[float] | Tensor,
    images: Tensor | None = None,
    ax: Axes | None = None,
    error: Sequence[float] | Tensor | None = None,
    own: float | None = None,
    label: str = "the number",
    most: int = 8,
) -> Axes:
    """The number of runs that differ in the weight of guidance alone; above it the picture at each weight.

    Args:
        weights: of guidance, in increasing order.
        numbers: of the run at each.
        images: the picture of each, ``[weights, C, H, W]``, all on one scale.
        ax: where to draw.
        error: the standard error of each number, over draws.
        own: the weight that was asked about, marked.
        label: what the number is.
        most: pictures at most, evenly spread; a line leads to the weight of each.

    Raises:
        ValueError: not as many numbers, errors or pictures as weights, or weights that do not increase.
    """
    at, found = np.asarray(weights, dtype=float), np.asarray(numbers, dtype=float)
    if not len(at) or found.shape != at.shape or bool((np.diff(at) <= 0).any()):
        raise ValueError(f"{len(at)} increasing weights need as many numbers, got {list(found.shape)}")
    spread = None if error is None else np.asarray(error, dtype=float)
    if spread is not None and spread.shape != at.shape:
        raise ValueError(f"{len(at)} numbers need as many errors, got {list(spread.shape)}")
    if images is not None and (images.dim() != 4 or len(images) != len(at)):
        raise ValueError(
            f"images must be [{len(at)}, C, H, W], one for each weight, got {list(images.shape)}{one_frame(images)}; "
            "None draws the numbers alone"
        )
    tall = 0.0 if images is None else (1 - MARGIN) * WIDTH / min(most, len(at)) * images.size(2) / images.size(3)
    ax = axes(ax, (WIDTH, HEIGHT + (tall + 0.35 if tall else 0.0)))
    share = _share(ax, images, most)
    room = share + 2 * LABEL if images is not None else 0.0
    ax.errorbar(at, found, spread, marker="o", markersize=4, color=INK, ecolor=FAINT, linewidth=1.2, capsize=2)
    low, high = (
        float((found - (spread if spread is not None else 0)).min()),
        float((found + (spread if spread is not None else 0)).max()),
    )
    gap = (high - low) or 1.0
    low, high = low - 0.08 * gap, high + 0.08 * gap
    ax.set_ylim(low, low + (high - low) / (1 - room))
    ax.set_yticks([tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high])
    ax.ticklabel_format(axis="y", useOffset=False)  # whole numbers, where they differ by little too
    span = (at[-1] - at[0]) or 1.0
    ax.set_xlim(at[0] - 0.04 * span, at[-1] + 0.04 * span)
    ax.set_xlabel("guidance w")
    ax.set_ylabel(label if spread is None else f"{label}\nwhiskers ± 1 s.e.", y=(1 - room) / 2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines["left"].set_bounds(low, high)
    if own is not None:
        ax.axvline(own, ymax=1 - room, color=UP, linewidth=1, linestyle="--")
        ax.annotate(
            f"asked: {own:g}", (own, high), (3, -2), textcoords="offset points", va="top", fontsize="x-small", color=UP
        )
    if images is not None:
        _pictures(ax, images, at, most, share)
    heading(ax, "guidance")
    return ax


def _share(ax: Axes, images: Tensor | None, most: int) -> float:
    """Of the height, what the pictures take side by side."""
    if images is None:
        return 0.0
    width, height = inches(ax)
    return min(0.55, width / min(most, len(images)) * images.size(2) / images.size(3) / height)


def _pictures(ax: Axes, images: Tensor, at: np.ndarray, most: int, share: float) -> None:
    pictures, chosen = alike(images), even(len(images), most)
    left, right = ax.get_xlim()
    for place, i in enumerate(chosen):
        start = place / len(chosen)
        slot = ax.inset_axes((start + 0.004, 1 - LABEL - share, 1 / len(chosen) - 0.008, share))
        slot.imshow(pictures[i], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        slot.set_title(f"w={at[i]:g}", fontsize="x-small", pad=2)
        slot.set_anchor("S")
        slot.set_axis_off()
        ends = [(at[i] - left) / (right - left), start + 0.5 / len(chosen)]
        ax.plot(
            ends,
            [1 - share - 2 * LABEL + 0.01, 1 - share - LABEL - 0.005],
            color=FAINT,
            linewidth=0.8,
            transform=ax.transAxes,
        )
