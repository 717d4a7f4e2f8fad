"""Where a region of an image looks, beside the image: a small panel for each layer and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from torch import Tensor

from explain.credit import Credit
from explain.plot.heatmap import UNSIGNED, mark_uniform
from explain.plot.node_link import RING
from explain.plot.pictures import alike
from explain.plot.style import axes, colour_bar, heading, note, question, short

GAP = 0.12  # between panels, in image widths


class Panel(NamedTuple):
    """One map over the image: its row and column, how many times uniform each cell is, and the pixels of a cell."""

    row: str
    column: str
    ratio: np.ndarray
    factor: int


def attention_maps(
    explanation: Credit,
    ax: Axes | None = None,
    query: tuple[int, int] | None = None,
    maps: Sequence[int] | None = None,
    rows: int = 8,
    columns: int = 6,
) -> Axes:
    """Attention at the true resolution of each map: layers down, steps across, first step left; the layers across where
    there is one step. The picture itself lies at the right, in its own colours.

    Colours tell how many times as much as by uniform attention a pixel gets, so that maps of all resolutions compare;
    they go from white at nothing to twice uniform or further, uniform itself marked: what is nearly uniform looks so.

    Args:
        explanation: of `Attention` over patches or superpixels.
        ax: where to draw.
        query: the pixel (row, column) that looks, marked; by default the pixels that the number is read from.
        maps: which of its maps; by default all.
        rows: layers (of each guidance branch) at most, thinned evenly.
        columns: steps at most, thinned evenly.

    Raises:
        ValueError: an explanation without such maps, a pixel outside the image, or maps not kept whole for ``query``.
    """
    size = _size(explanation)
    found = panels(explanation, size, query, maps)
    turned = len({p.column for p in found}) == 1
    if turned:
        found = [p._replace(row=p.column, column=p.row) for p in found]
    across, down = list(dict.fromkeys(p.column for p in found)), list(dict.fromkeys(p.row for p in found))
    shown_across, shown_down = _thinned(across, columns), _thinned(down, rows)
    shown = [p for p in found if p.column in shown_across and p.row in shown_down]
    height, width = size[0] / size[1], 1.0
    image = explanation.players.geometry.get("image")
    scale = 3.0 if len(shown) == 1 else 1.75 if turned else 1.15
    wide = len(shown_across) + (image is not None)
    ax = axes(ax, (2.9 + scale * (1 + GAP) * wide, 0.8 + scale * (height + GAP) * len(shown_down)))
    norm = times_uniform([p.ratio for p in shown])
    for panel in shown:
        left = shown_across.index(panel.column) * (width + GAP)
        top = shown_down.index(panel.row) * (height + GAP)
        _draw(ax, panel, norm, left, top, size)
        _mark(ax, query, left, top, size)
    over = list(shown_across)
    if image is not None:
        left = len(shown_across) * (width + GAP)
        extent = (left, left + width, height, 0.0)
        ax.imshow(alike(image[None])[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
        _mark(ax, query, left, 0.0, size)
        over.append("the picture")
    _names(ax, shown_down, over, height, 0.25 / scale)
    mark_uniform(colour_bar(ax, norm, "attention, times uniform", UNSIGNED), 1.0)
    looks = f"from pixel {query[0]}, {query[1]}" if query else ""
    heading(ax, explanation.method, question(explanation), looks)
    names = ("layers", "") if turned else ("steps", "layers")
    thinned = zip(names, (shown_across, shown_down), (across, down), strict=True)
    told = [f"{len(part)} of {len(every)} {name}" for name, part, every in thinned if len(part) < len(every)]
    if told:
        note(ax, ", ".join(told))
    return ax


def times_uniform(ratios: Sequence[np.ndarray]) -> Normalize:
    """From nothing to twice uniform, or as far as any cell is: what is nearly uniform looks so."""
    return Normalize(0, max([2.0, *(float(ratio.max(initial=0)) for ratio in ratios)]))


def panels(
    explanation: Credit,
    size: tuple[int, int],
    query: tuple[int, int] | None = None,
    maps: Sequence[int] | None = None,
) -> list[Panel]:
    """The maps of an answer over an image of this size; see `attention_maps`.

    Raises:
        ValueError: an answer without such maps, or a pixel outside the image.
    """
    parts = explanation.parts
    known = [i for i in range(len(parts)) if f"attention.{i}.grid" in parts]
    chosen = known if maps is None else list(maps)
    if not chosen or not set(chosen) <= set(known):
        raise ValueError(
            f"the explanation has {len(known)} attention maps over the image, asked for {chosen or 'all'}: "
            "Attention('patches') on a denoising step or run gives them"
        )
    branches = explanation.checks.get("branches", [])
    found = []
    for i in chosen:
        name = f"attention.{i}"
        layer = str(explanation.checks["layers"][int(parts[f"{name}.layer"])]).removeprefix("net.")
        if len(branches) > 1 and f"{name}.branch" in parts:
            layer = f"{layer}\n{branches[int(parts[f'{name}.branch'])]}"
        step = f"t={float(parts[f'{name}.step']):g}" if f"{name}.step" in parts else ""
        factor = int(parts[f"{name}.factor"])
        shares = parts[f"{name}.region"] if query is None else _from_pixel(parts, name, query, size, factor)
        height, width = parts[f"{name}.grid"].tolist()
        pixels = np.outer(_lengths(size[0], height, factor), _lengths(size[1], width, factor))
        ratio = shares.detach().cpu().double().reshape(height, width).numpy() * (size[0] * size[1]) / pixels
        found.append(Panel(layer, step, ratio, factor))
    return found


def _from_pixel(parts: Any, name: str, query: tuple[int, int], size: tuple[int, int], factor: int) -> Tensor:
    row, column = query
    if not (0 <= row < size[0] and 0 <= column < size[1]):
        raise ValueError(f"query must be a pixel (row, column) of the {size[0]}x{size[1]} image, got {query}")
    weights, (height, width) = parts[name], parts[f"{name}.grid"].tolist()
    if weights.size(1) != height * width:
        raise ValueError("only what the region looks at was kept of these maps: leave query out")
    return weights.double().mean(0)[(row // factor) * width + column // factor]


def _draw(ax: Axes, panel: Panel, norm: Normalize, left: float, top: float, size: tuple[int, int]) -> None:
    pixel = 1 / size[1]
    frame = Rectangle((left, top), 1, size[0] * pixel, transform=ax.transData, facecolor="none", edgecolor="#999999")
    height, width = panel.ratio.shape
    reach = (left, left + width * panel.factor * pixel, top + height * panel.factor * pixel, top)
    drawn = ax.imshow(panel.ratio, cmap=UNSIGNED, norm=norm, extent=reach, interpolation="nearest")
    drawn.set_clip_path(frame)  # the last cells may reach beyond an odd image
    ax.add_patch(frame)


def _mark(ax: Axes, query: tuple[int, int] | None, left: float, top: float, size: tuple[int, int]) -> None:
    """A frame around the pixel that looks."""
    if query is not None:
        pixel = 1 / size[1]
        corner = (left + query[1] * pixel, top + query[0] * pixel)
        ax.add_patch(Rectangle(corner, pixel, pixel, facecolor="none", edgecolor=RING, linewidth=1.5))


def _names(ax: Axes, rows: Sequence[str], columns: Sequence[str], height: float, top: float) -> None:
    for i, name in enumerate(columns):
        lines = "\n".join(short(line, 26) for line in name.split("\n"))
        ax.text(i * (1 + GAP) + 0.5, -0.04, lines, ha="center", va="bottom", fontsize="x-small")
    for i, name in enumerate(rows):
        lines = "\n".join(short(line, 26) for line in name.split("\n"))
        ax.text(-0.06, i * (height + GAP) + height / 2, lines, ha="right", va="center", fontsize="x-small")
    ax.set(xlim=(-0.02, len(columns) * (1 + GAP) - GAP + 0.02), ylim=(len(rows) * (height + GAP) - GAP + 0.02, -top))
    ax.set_aspect("equal")
    ax.set_axis_off()


def _size(explanation: Credit) -> tuple[int, int]:
    labels = explanation.players.geometry.get("labels")
    if labels is None:
        raise ValueError(f"attention over an image needs patches or superpixels; got {explanation.players.kind}")
    return int(labels.size(0)), int(labels.size(1))


def _lengths(pixels: int, cells: int, factor: int) -> list[int]:
    """How many pixels each cell covers along one side."""
    return [min(factor, pixels - cell * factor) for cell in range(cells)]


def _thinned(names: Sequence[str], most: int) -> list[str]:
    """At most so many of them, evenly spread, the first and last kept."""
    if len(names) <= most:
        return list(names)
    return [names[i] for i in sorted({round(float(i)) for i in np.linspace(0, len(names) - 1, most)})]
