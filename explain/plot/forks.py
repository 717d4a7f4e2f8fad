"""Runs that share their beginning: where they part, and where each of them ends."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from torch import Tensor

from explain.plot.pictures import alike, one_frame
from explain.plot.runs import framed, put
from explain.plot.style import FAINT, axes, heading, note

STEM = 0.9  # between the shared picture and the ends


def forks(ends: Mapping[int, Tensor], ax: Axes | None = None, shared: Tensor | None = None, most: int = 8) -> Axes:
    """One row a fork: what was foreseen where the runs part, and, along a line to each, the samples they end in.

    The earlier the runs part the more the ends differ; over each row is by how much, the standard deviation of a pixel
    over the ends. All pictures on one scale.

    Args:
        ends: by the step at which the runs part, the sample of each, ``[draws, C, H, W]``: ``{at: run.forks(at)}``.
        ax: where to draw.
        shared: what the run foresaw at each step, ``run.images() [steps, C, H, W]``; grey dots when None.
        most: ends of a row at most.

    Raises:
        ValueError: no forks, no such images, or a step that ``shared`` does not have.
    """
    if not ends or any(found.dim() != 4 or not len(found) for found in ends.values()):
        frame = one_frame(next(iter(ends.values()), None))
        raise ValueError(f"forks are {{step: samples [draws, C, H, W]}}, such as {{5: run.forks(5)}}{frame}")
    if shared is not None and not all(0 <= at < len(shared) for at in ends):
        raise ValueError(f"shared has the steps 0 to {len(shared) - 1}, asked for {', '.join(map(str, ends))}")
    rows = {at: found[:most].detach().cpu() for at, found in sorted(ends.items())}
    stems = [] if shared is None else [shared[at][None].detach().cpu() for at in rows]
    pictures = alike(torch.cat([*rows.values(), *stems]))
    height = pictures[0].shape[0] / pictures[0].shape[1]
    across, pitch = max(len(found) for found in rows.values()), height + 0.42
    ax = axes(ax, (0.4 + 0.9 * (1 + STEM + across), 0.5 + 0.9 * pitch * len(rows)))
    place = 0
    for row, (at, found) in enumerate(rows.items()):
        top = row * pitch
        spread = float(ends[at].detach().double().std(0).mean()) if len(ends[at]) > 1 else 0.0
        if shared is not None:
            put(ax, pictures[len(pictures) - len(rows) + row], 0, top, f"foreseen at step {at}")
        for i in range(len(found)):
            left = 1 + STEM + i * 1.06
            put(ax, pictures[place + i], left, top)
        place += len(found)
        _lines(ax, top, height, len(found), 1.0 if shared is not None else 0.5)
        said = f"{len(ends[at])} runs that part at step {at}: a pixel differs by {spread:.2g}"
        ax.text(1 + STEM, top - 0.03, said, ha="left", va="bottom", fontsize="x-small")
    framed(ax, 1 + STEM + across * 1.06 - 0.06, len(rows) * pitch - 0.3)
    heading(ax, "forks: the same beginning, other noise")
    if any(len(found) > most for found in ends.values()):
        note(ax, f"{most} of each shown", 2)
    return ax


def _lines(ax: Axes, top: float, height: float, ends: int, start: float) -> None:
    """From the picture that is shared along below the ends, and up to each of them."""
    below = top + height + 0.1
    last = 1 + STEM + (ends - 1) * 1.06 + 0.5
    ax.plot([start, 1 + STEM / 2, 1 + STEM / 2, last], [top + height / 2, top + height / 2, below, below], color=FAINT)
    for i in range(ends):
        middle = 1 + STEM + i * 1.06 + 0.5
        ax.plot([middle, middle], [below, top + height], color=FAINT, linewidth=1)
    ax.plot([start], [top + height / 2], marker="o", markersize=3, color="#888888")
