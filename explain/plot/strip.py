"""The most helpful and most harmful training images, side by side."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from explain.credit import Credit
from explain.plot.influence import words
from explain.plot.pictures import alike
from explain.plot.style import DASHED, DOWN, UP, axes, short, title

PITCH = 1.2  # from row to row: an image and two lines of text


def strip(explanation: Credit, ax: Axes | None = None, k: int = 6) -> Axes:
    """Two rows of up to ``k`` images: those that push the number up, and those that push it down, in dashed frames,
    strongest first, all on one scale.

    Raises:
        ValueError: players without ``geometry["images"] [P, C, H, W]``.
    """
    images = explanation.players.geometry.get("images")
    if images is None or images.dim() != 4:
        raise ValueError(
            f"a strip needs training images [P, C, H, W]; {explanation.players.kind} have none: use influence_list"
        )
    scores = explanation.scores
    order = scores.argsort(descending=True, stable=True)
    rows = [order[scores[order] > 0][:k].tolist(), order.flip(0)[scores[order.flip(0)] < 0][:k].tolist()]
    either = rows[0] + rows[1]
    pictures = dict(zip(either, alike(images[either]), strict=True)) if either else {}
    ax = axes(ax, (1.0 + 1.05 * k, 3.3))
    for row, (chosen, word, colour) in enumerate(zip(rows, words(explanation), (UP, DOWN), strict=True)):
        ax.text(-0.15, PITCH * row + 0.4, word, rotation=90, ha="right", va="center", color=colour, weight="bold")
        for column, player in enumerate(chosen):
            place = _box(images[player], column, PITCH * row)
            ax.imshow(pictures[player], cmap="gray", vmin=0, vmax=1, extent=place)
            left, right, bottom, top = place
            frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour)
            frame.set_linestyle(DASHED if row else "solid")
            ax.add_patch(frame)
            said = f"{short(explanation.players.names[player], 14)}\n{scores[player]:+.2g}"
            ax.text(column + 0.5, PITCH * row + 0.82, said, ha="center", va="top", fontsize="x-small", color=colour)
    ax.set(xlim=(-0.3, k), ylim=(2 * PITCH, 0), aspect="equal")
    ax.set_axis_off()
    title(ax, explanation)
    return ax


def _box(image: Tensor, column: float, top: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of an image in its place, as large as fits, its sides in proportion."""
    height, width = image.shape[1:]
    pixel = min(0.92 / width, 0.78 / height)
    middle, bottom = column + 0.5, top + 0.8
    return middle - width * pixel / 2, middle + width * pixel / 2, bottom, bottom - height * pixel
