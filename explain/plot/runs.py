"""A sampling run in pictures: what it foresaw at each step, as a strip and as a film."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

from explain.plot.pictures import alike, even, images_of
from explain.plot.style import axes, heading, note
from explain.storage import write_atomically
from explain.types import Unsupported

SMALLEST = 128  # pixels of a film's shorter side; smaller pictures are shown larger


def run_strip(
    run: Any, ax: Axes | None = None, times: Sequence[float] | None = None, most: int = 10, across: int = 10
) -> Axes:
    """What a run foresaw at each of its steps, first step left, all pictures on one scale.

    Args:
        run: a run, ``explain.wrap(...).trajectory(...)``, or its ``images() [steps, C, H, W]``.
        ax: where to draw.
        times: the timestep of each; the run's own when None, or its number where a run does not tell one for each.
        most: pictures at most, evenly spread, the first and the last among them.
        across: pictures in a row.

    Raises:
        ValueError: no images, or another number of times.
    """
    images = images_of(run)
    if times is None:
        times = _times_of(run, len(images))
    if times is not None and len(times) != len(images):
        raise ValueError(f"{len(images)} images need as many times, got {len(times)}")
    chosen = even(len(images), most)
    names = [f"step {i + 1}" if times is None else f"t={times[i]:.4g}" for i in chosen]
    pictures = alike(images)
    height = pictures[0].shape[0] / pictures[0].shape[1]
    columns = min(across, len(chosen))
    rows = -(-len(chosen) // columns)
    ax = axes(ax, (0.3 + 0.95 * max(columns, 2), 0.5 + (0.9 * height + 0.25) * rows))
    for place, (step, name) in enumerate(zip(chosen, names, strict=True)):
        put(ax, pictures[step], place % columns * 1.06, place // columns * (height + 0.26), name)
    framed(ax, columns * 1.06 - 0.06, rows * (height + 0.26) - 0.26)
    heading(ax, "foreseen at each step")
    if len(chosen) < len(images):
        note(ax, f"{len(chosen)} of {len(images)} steps", 2)
    return ax


def film(run: Any, path: str | os.PathLike[str], seconds: float = 4.0, most: int = 50) -> None:
    """Write a GIF of what a run foresaw at each of its steps; the last picture stays for a second.

    What is there is replaced only by a whole file. Small pictures are enlarged without smoothing.

    Args:
        run: a run, or its ``images() [steps, C, H, W]``.
        path: of the file, ending in ``.gif``.
        seconds: of the film, but for the last picture.
        most: pictures at most, evenly spread.

    Raises:
        ValueError: no images, a path of another ending, or seconds that are not positive.
        OSError: it cannot be written there.
    """
    if not os.fspath(path).lower().endswith(".gif"):
        raise ValueError(f"a film is a GIF, path='run.gif'; got {os.fspath(path)!r}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds must be above 0, got {seconds!r}")
    images = images_of(run)
    frames = [_frame(picture) for picture in alike(images[torch.tensor(even(len(images), most))])]
    each = max(20, round(1000 * seconds / len(frames)))  # milliseconds; viewers slow down what is shorter
    whole = io.BytesIO()
    frames[0].save(
        whole,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[*[each] * (len(frames) - 1), 1000],
        loop=0,
        disposal=1,
    )
    write_atomically(path, whole.getvalue())


def put(ax: Axes, picture: np.ndarray, left: float, top: float, name: str = "", edge: str = "#bbbbbb") -> None:
    """A picture one wide with its name above it, in the coordinates of the Axes; see `framed`."""
    height = picture.shape[0] / picture.shape[1]
    reach = (left, left + 1, top + height, top)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=reach, interpolation="nearest")
    ax.plot(
        [left, left + 1, left + 1, left, left], [top, top, top + height, top + height, top], color=edge, linewidth=0.6
    )
    if name:
        ax.text(left + 0.5, top - 0.03, name, ha="center", va="bottom", fontsize="x-small")


def framed(ax: Axes, width: float, height: float, above: float = 0.22) -> None:
    """Ends an Axes that `put` has drawn on: its limits, y downwards, and no frame."""
    ax.set(xlim=(-0.03, width + 0.03), ylim=(height + 0.03, -above))
    ax.set_aspect("equal")
    ax.set_axis_off()


def _times_of(run: Any, count: int) -> Sequence[float] | None:
    """The run's own timestep of each of its images, where it tells one for each."""
    with contextlib.suppress(Unsupported):
        times: Sequence[float] | None = getattr(run, "timesteps", None)
        return times if times is not None and len(times) == count else None
    return None


def _frame(picture: np.ndarray) -> Image.Image:
    pixels = (picture * 255).round().astype(np.uint8)
    factor = max(1, -(-SMALLEST // min(pixels.shape[:2])))
    made = Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1))
    return made.convert("L") if picture.ndim == 2 else made.quantize(256)
