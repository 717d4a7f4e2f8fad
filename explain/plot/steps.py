"""A sampling run: the credit of each step in time, and above it the clean image foreseen there."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from explain.credit import Credit
from explain.plot.pictures import alike, even, one_frame
from explain.plot.style import FAINT, INK, axes, note, signed, title, units

IMAGES = 0.32  # of the height, at the top


def steps(explanation: Credit, images: Tensor | None = None, ax: Axes | None = None, most: int = 10) -> Axes:
    """Bars of the credit of steps, or of guidance at steps, first step left; above them what the run foresaw there.

    Args:
        explanation: over players "steps" or "guidance"; whiskers are one standard error.
        images: the clean image foreseen at each step, ``[steps, C, H, W]``: ``trajectory(...).images()``,
            all on one scale; bars alone when None.
        ax: where to draw.
        most: images at most, evenly spread, the first and the last among them; a line leads to the step of each.

    Raises:
        ValueError: other players, or not one image a step.
    """
    players = explanation.players
    if players.kind not in ("steps", "guidance"):
        raise ValueError(f"a strip of steps needs players 'steps' or 'guidance', got {players.kind!r}")
    groups = [group.tolist() for group in players.groups or tuple(players.index.view(-1, 1))]
    needed = 1 + max((step for group in groups for step in group), default=0)
    if images is not None and (images.dim() != 4 or len(images) < needed):
        raise ValueError(
            f"images must be [steps, C, H, W], one for each of {needed} steps, got {list(images.shape)}"
            f"{one_frame(images)}"
        )
    ax = axes(ax, (8.0, 3.3))
    _bars(ax, explanation, groups, 0.0 if images is None else IMAGES)
    ax.set_xlim(0, needed if images is None else len(images))
    title(ax, explanation)
    if images is not None:
        _foreseen(ax, images, most)
    return ax


def _foreseen(ax: Axes, images: Tensor, most: int) -> None:
    chosen, pictures = even(len(images), most), alike(images)
    for place, step in enumerate(chosen):
        left = place / len(chosen)
        slot = ax.inset_axes((left + 0.004, 1 - IMAGES, 1 / len(chosen) - 0.008, IMAGES))
        slot.imshow(pictures[step], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        slot.set_anchor("S")
        slot.set_axis_off()
        ends = [(step + 0.5) / len(images), left + 0.5 / len(chosen)]
        ax.plot(ends, [0.955 - IMAGES, 1 - IMAGES], color=FAINT, linewidth=0.8, transform=ax.transAxes)
    if len(chosen) < len(images):
        note(ax, f"{len(chosen)} of {len(images)} images", 24)


def _bars(ax: Axes, explanation: Credit, groups: list[list[int]], above: float) -> None:
    scores = explanation.scores.numpy()
    error = None if explanation.error is None else explanation.error.numpy()
    starts = np.array([min(group) for group in groups])
    widths = np.array([len(group) for group in groups])
    drawn = ax.bar(starts + widths / 2, scores, 0.86 * widths, yerr=error, ecolor=INK,
                   error_kw={"elinewidth": 1, "capsize": 2})  # fmt: skip
    signed(drawn, scores.tolist())
    ax.axhline(0, color=INK, linewidth=0.8)
    reach = scores if error is None else np.concatenate([scores - error, scores + error])
    low, high = min(0.0, float(reach.min(initial=0))), max(0.0, float(reach.max(initial=0)))
    room = (high - low) or 1.0
    low, high = low - 0.05 * room, high + 0.05 * room
    ax.set_ylim(low, low + (high - low) / ((0.94 - above) if above else 1.0))  # bars below, images above
    ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= high])
    every = range(0, len(groups), -(-len(groups) // 10))
    ax.set_xticks([starts[i] + widths[i] / 2 for i in every], [explanation.players.names[i] for i in every])
    ax.tick_params(axis="x", length=0, labelsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines["left"].set_bounds(low, high)
    whiskers = "\nwhiskers ± 1 s.e." if error is not None else ""
    ax.set_ylabel(f"{units(explanation)}{whiskers}", y=(0.94 - above) / 2 if above else 0.5)
