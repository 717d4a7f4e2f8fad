"""A prompt whose words are coloured by credit, and under each its number, so that the sign is read without colour."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.offsetbox import AnnotationBbox, HPacker, OffsetBox, TextArea, VPacker
from torch import Tensor

from explain.credit import Credit
from explain.plot.heatmap import scale
from explain.plot.pictures import one_picture
from explain.plot.style import INK, axes, colour_bar, inches, ink_on, short, title, units

GREY = "#777777"  # what does not play
SIZE = 11.0  # points of a letter of the prompt
LETTER, FIGURE, BETWEEN, LABEL = 7.4, 4.4, 7.0, 52.0  # about as wide: a bold letter, a small figure, a gap, a name
WIDTH, PICTURE = 7.4, 3.8  # inches


class Piece(NamedTuple):
    """A word, or the text between two: which player it is, none of the rest."""

    text: str
    player: int | None


def words(explanation: Credit, ax: Axes | None = None, over: Tensor | None = None) -> Axes:
    """The prompt, and below it the negative one, in the order of the text: a word in the colour of its credit, its
    credit in figures under it; what does not play is grey.

    Args:
        explanation: over players "words".
        ax: where to draw.
        over: a picture ``[3, H, W]`` to write it under, such as ``run.picture()``.

    Raises:
        ValueError: other players, or no picture.
    """
    players = explanation.players
    if players.kind != "words":
        raise ValueError(f"a prompt is drawn of players 'words', got {players.kind!r}: plot.bars draws any players")
    shown = None if over is None else one_picture(over, "over")
    texts = [(name, [(piece, _said(piece, explanation)) for piece in pieces]) for name, pieces in _texts(explanation)]
    room = (0.94 if shown is None else 0.78) * WIDTH if ax is None else inches(ax)[0]
    lines = [(name, line) for name, pieces in texts for line in _lines(pieces, 72 * room - LABEL * (len(texts) > 1))]
    tall = 0.46 * len(lines) + 0.15
    ax = axes(ax, (WIDTH, tall + (1.1 if shown is None else PICTURE + 0.5)))
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    share = 1.0 if shown is None else tall / (tall + PICTURE)  # of the height, for the text
    if shown is not None:
        frame = ax.inset_axes((0, share, 1, 1 - share))
        frame.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        frame.set_axis_off()
    cmap, norm = scale(explanation)
    rows = VPacker(children=list(_rows(lines, explanation, cmap, norm)), pad=0, sep=7)
    below: dict[str, Any] = {"xybox": (0, -6), "boxcoords": "offset points", "box_alignment": (0, 1)}
    ax.add_artist(AnnotationBbox(rows, (0, share), xycoords="axes fraction", frameon=False, pad=0, **below))
    colour_bar(ax, norm, units(explanation), cmap, below=shown is None)
    title(ax, explanation)
    return ax


def _rows(
    lines: list[tuple[str, list[tuple[Piece, str]]]], explanation: Credit, cmap: Colormap, norm: Normalize
) -> Iterator[OffsetBox]:
    before = ""
    several = len({name for name, _ in lines}) > 1
    for name, line in lines:
        boxes: list[Artist] = [_box(piece, said, explanation, cmap, norm) for piece, said in line]
        if several:
            label = TextArea(name if name != before else "", textprops={"fontsize": "x-small", "color": GREY})
            boxes = [_wide(label), *boxes]
        before = name
        yield HPacker(children=boxes, align="top", pad=0, sep=BETWEEN)


def _box(piece: Piece, said: str, explanation: Credit, cmap: Colormap, norm: Normalize) -> OffsetBox:
    if piece.player is None:
        return TextArea(short(piece.text), textprops={"fontsize": SIZE, "color": GREY})
    face = cmap(norm(float(explanation.scores[piece.player])))
    patch = {"facecolor": face, "edgecolor": "none", "boxstyle": "round,pad=0.15"}
    word = TextArea(
        short(piece.text), textprops={"fontsize": SIZE, "color": ink_on(face), "weight": "bold", "bbox": patch}
    )
    under = TextArea(said, textprops={"fontsize": "x-small", "color": INK})
    return VPacker(children=[word, under], align="center", pad=0, sep=4)


def _said(piece: Piece, explanation: Credit) -> str:
    """A word's credit in figures, with its sign and one standard error."""
    if piece.player is None:
        return ""
    number = f"{float(explanation.scores[piece.player]):+.2g}".replace("-", "−")
    if explanation.error is None:
        return number
    return f"{number} ± {float(explanation.error[piece.player]):.1g}".replace("-", "−")


def _wide(label: TextArea) -> OffsetBox:
    """The name of a row, as wide as any, so that all texts begin at one edge."""
    rest = TextArea("negative", textprops={"fontsize": "x-small", "alpha": 0.0})
    return VPacker(children=[label, rest], align="left", pad=0, sep=0, mode="fixed")


def _texts(explanation: Credit) -> Iterator[tuple[str, list[Piece]]]:
    """Prompt and negative prompt, each in pieces; of texts that are not kept the names of the players."""
    geometry, names = explanation.players.geometry, explanation.players.names
    side = geometry.get("negative")
    other = [False] * len(names) if side is None else [bool(one) for one in side]
    for name, negative in (("prompt", False), ("negative", True)):
        own = [i for i in range(len(names)) if other[i] == negative]
        if own:
            yield name, list(_pieces(explanation.target.get(name), geometry.get("span"), own, names))


def _pieces(text: Any, spans: Tensor | None, own: list[int], names: tuple[str, ...]) -> Iterator[Piece]:
    if not isinstance(text, str) or spans is None:
        yield from (Piece(names[i].removeprefix("not: "), i) for i in own)
        return
    end = 0
    for i in sorted(own, key=lambda i: int(spans[i, 0])):
        start, to = (int(place) for place in spans[i])
        yield from (Piece(word, None) for word in re.findall(r"\S+", text[end:start]))
        yield Piece(text[start:to].strip() or names[i], i)
        end = to
    yield from (Piece(word, None) for word in re.findall(r"\S+", text[end:]))


def _lines(pieces: list[tuple[Piece, str]], width: float) -> Iterator[list[tuple[Piece, str]]]:
    """As many of them, with their figures, as fit into each line of so many points."""
    line: list[tuple[Piece, str]] = []
    length = 0.0
    for piece, said in pieces:
        needed = max(LETTER * len(short(piece.text)), FIGURE * len(said)) + BETWEEN
        if line and length + needed > width:
            yield line
            line, length = [], 0.0
        line.append((piece, said))
        length += needed
    if line:
        yield line
