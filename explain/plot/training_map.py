"""Training images on a map, with their scores: who is like whom, and who counts."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import ArrayLike

from explain.credit import Credit
from explain.plot.influence import words
from explain.plot.marks import legend_below, markers, sample, samples
from explain.plot.pictures import alike
from explain.plot.style import DASHED, DIVERGING, DOWN, UP, axes, centred, colour_bar, ink_on, title, units


def training_map(
    explanation: Credit, where: ArrayLike | None = None, ax: Axes | None = None, k: int = 4, names: tuple = ()
) -> Axes:
    """Each training image as a point of the colour of its score; the ``k`` strongest either way as pictures.

    What pushes the number down has a minus in its point, and a dashed frame and line as a picture.

    Args:
        explanation: over training images.
        where: ``[P, 2]``, places; the first two principal components of the pixels when None.
        ax: to draw on.
        k: pictures of those that push the number up, and as many of those that push it down.
        names: of the two axes.

    Raises:
        ValueError: players without ``geometry["images"] [P, C, H, W]``, or places of another shape.
    """
    images = explanation.players.geometry.get("images")
    if images is None or images.dim() != 4:
        raise ValueError(f"a map needs training images [P, C, H, W]; {explanation.players.kind} have none")
    places = _principal(images) if where is None else np.asarray(where, dtype=float)
    if places.shape != (len(images), 2):
        raise ValueError(f"where must be [{len(images)}, 2], got {list(places.shape)}")
    ax = axes(ax, (6.4, 4.8))
    scores = explanation.scores.numpy()
    norm = centred(scores.tolist())
    classes = explanation.players.geometry.get("classes")
    kinds = np.zeros(len(scores), dtype=int) if classes is None else np.asarray(classes)
    faint = np.argsort(np.abs(scores), kind="stable")  # strong ones on top
    marks = markers(sorted(set(kinds.tolist())))
    for kind in marks:
        at = faint[kinds[faint] == kind]
        x, y = places[at].T
        sizes = 10 + 50 * np.abs(scores[at]) / norm.vmax
        ax.scatter(
            x, y, sizes, scores[at], cmap=DIVERGING, norm=norm, marker=marks[kind], edgecolors="#777777",
            linewidths=0.4,
        )  # fmt: skip
        below = scores[at] < 0
        inks = [ink_on(DIVERGING(norm(score))) for score in scores[at][below]]
        ax.scatter(x[below], y[below], 0.6 * sizes[below], marker="_", linewidths=1.2, color=inks)
    order = explanation.scores.argsort(descending=True, stable=True)
    up = [i for i in order.tolist() if scores[i] > 0][:k]
    down = [i for i in order.flip(0).tolist() if scores[i] < 0][:k]
    pictures = dict(zip(up + down, alike(images[up + down]), strict=True)) if up + down else {}
    for side, (chosen, colour) in enumerate(((up, UP), (down, DOWN))):
        for row, player in enumerate(chosen):
            _picture(ax, pictures[player], places[player], colour, side, row, max(k, 1))
    said = words(explanation)
    for x, word, colour in ((0.0, said[0], UP), (1.0, said[1], DOWN)):
        ax.text(x, 1.02, word, transform=ax.transAxes, color=colour, ha="right" if x else "left", weight="bold")
    entries = samples(marks, "class {}") if classes is not None else []
    if bool((explanation.scores < 0).any()):
        entries.append(sample("_", f"below zero: {words(explanation)[1]}"))
    if entries:
        legend_below(ax, entries, 34)
    ax.margins(x=0.3, y=0.12)
    ax.set(xlabel=names[0] if names else "component 1", ylabel=names[1] if names else "component 2")
    ax.spines[["top", "right"]].set_visible(False)
    colour_bar(ax, norm, units(explanation, "influence"))
    title(ax, explanation)
    ax.set_title(ax.get_title(loc="left"), loc="left", fontsize="medium", pad=18)
    return ax


def _picture(ax: Axes, image: np.ndarray, place: np.ndarray, colour: str, side: int, row: int, rows: int) -> None:
    """The image beside the points, at the left or the right, and a line to its place."""
    style = DASHED if side else "solid"
    box = AnnotationBbox(
        OffsetImage(image, zoom=28 / max(image.shape[:2]), cmap="gray", norm=Normalize(0, 1)),
        tuple(place),
        xybox=(0.94 if side else 0.06, 0.92 - 0.84 * row / max(rows - 1, 1)),
        boxcoords="axes fraction",
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.7, "linestyle": style},
        bboxprops={"edgecolor": colour, "linewidth": 1.5, "linestyle": style},
        pad=0.1,
    )
    ax.add_artist(box)


def _principal(images: torch.Tensor) -> np.ndarray:
    """The first two principal components ``[P, 2]`` of the pixels."""
    flat = images.detach().cpu().double().flatten(1)
    flat = flat - flat.mean(0)
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)
    found = flat @ directions[:2].T
    return torch.nn.functional.pad(found, (0, 2 - found.size(1))).numpy()
