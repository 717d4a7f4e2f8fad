"""One self-contained HTML page out of explanations: no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jinja2
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explain import plot
from explain.comparison import Comparison, said
from explain.explanation import Explanation
from explain.plot.style import question
from explain.storage import write_atomically
from explain.summary import assumed, counted, own_check, top_players

Picture: TypeAlias = "Axes | Figure | bytes"
DPI = 130
WIDE = 1000  # pixels; at half the page the letters of such a picture would be too small


class Image(NamedTuple):
    """A caption, a PNG as base64, and whether it needs the whole width of the page."""

    caption: str
    png: str
    wide: bool = False


def write(
    explanations: Explanation | Sequence[Explanation],
    path: str | os.PathLike[str],
    title: str = "Explanations",
    comparisons: Comparison | Sequence[Comparison] | Mapping[str, Comparison] = (),
    figures: Mapping[str, Picture] | None = None,
) -> Path:
    """Write the page, whole or not at all: a summary, then every picture, check and setting, then the comparisons.

    Args:
        explanations: what is told; at least one.
        path: the HTML file.
        title: at the top of the page.
        comparisons: each with its table, its notes and its picture; by heading where they need telling apart.
        figures: more pictures by caption: an Axes, a Figure, or the bytes of a PNG.

    Raises:
        TypeError: something else than explanations.
        ValueError: no explanations, or bytes that are no PNG.
        OSError: the folder is missing or full; a page that was there before is still there.
    """
    told = _told(explanations)
    compared = _named(comparisons)
    page = environment().get_template("page.html")
    text = page.render(
        title=title,
        sections=[_section(explanation) for explanation in told],
        comparisons=[{"name": name, "comparison": found, "images": _agreement(found)} for name, found in compared],
        figures=[_figure(caption, picture) for caption, picture in (figures or {}).items()],
        versions=told[0].versions,
    )
    write_atomically(path, text.encode("utf-8", "replace"))
    return Path(path)


def _told(explanations: Any) -> list[Explanation]:
    if isinstance(explanations, Explanation):
        return [explanations]
    if isinstance(explanations, Mapping):
        raise TypeError("write takes a list of explanations, got a dictionary: write(list(found.values()), path)")
    if not isinstance(explanations, Iterable) or isinstance(explanations, (str, bytes)):
        raise TypeError(f"write takes explanations and then a path, got {type(explanations).__name__} first")
    told = list(explanations)
    if not told:
        raise ValueError("a report needs at least one explanation")
    for one in told:
        if not isinstance(one, Explanation):
            raise TypeError(f"a report is of what explainer.explain(target) gives, got {type(one).__name__}")
    return told


def encoded(picture: Picture) -> str:
    """A picture as a PNG in base64.

    Raises:
        ValueError: bytes that are no PNG.
    """
    if isinstance(picture, bytes):
        if not picture.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError("a figure given as bytes must be a PNG")
        return base64.b64encode(picture).decode()
    figure = picture.get_figure(root=True) if isinstance(picture, Axes) else picture
    if not isinstance(figure, Figure):
        raise ValueError(f"a figure must be an Axes, a Figure or the bytes of a PNG, got {type(picture).__name__}")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, facecolor="white")
    return base64.b64encode(file.getvalue()).decode()


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of this folder, and of others that include its ``page.css``; what is filled in is escaped."""
    loader = jinja2.FileSystemLoader([*folders, Path(__file__).parent])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"words": _words, "said": said, "compact": lambda number: f"{number:.4g}"}
    return environment


def _figure(caption: str, picture: Picture) -> Image:
    png = encoded(picture)
    width = int.from_bytes(base64.b64decode(png[:32])[16:20], "big")  # where a PNG says it
    return Image(caption, png, wide=width > WIDE)


def _named(comparisons: Comparison | Sequence[Comparison] | Mapping[str, Comparison]) -> list[tuple[str, Comparison]]:
    if isinstance(comparisons, Mapping):
        return list(comparisons.items())
    return [("", found) for found in ([comparisons] if isinstance(comparisons, Comparison) else comparisons)]


def _section(explanation: Explanation) -> dict[str, Any]:
    return {
        "explanation": explanation,
        "question": question(explanation),
        "model": str(explanation.target.get("model", "")),
        "players": counted(explanation),
        "top": top_players(explanation),
        "check": own_check(explanation),
        "asked": {name: value for name, value in explanation.target.items() if name not in ("assumed", "node_names")},
        "assumed": assumed(explanation),
        "images": _images(explanation),
    }


def _images(explanation: Explanation) -> list[Image]:
    """The picture that fits, and what a method shows besides: its attention maps, its helpful and harmful examples."""
    drawings: dict[str, Callable[[Explanation], Axes]] = {counted(explanation): plot.picture}
    if explanation.players.kind == "train" and "edge_index" in explanation.players.geometry:
        drawings["most helpful and most harmful"] = plot.influence_list
    elif explanation.players.kind in ("nodes", "edges") and len(explanation.players):
        drawings["strongest players"] = plot.bars
    found = [Image(caption, _drawn(draw(explanation))) for caption, draw in drawings.items()]
    if "attention.0.grid" in explanation.parts:
        found.append(Image("attention over the image", _drawn(plot.attention_maps(explanation))))
        return found
    layers = sum(name.removeprefix("attention.").isdigit() for name in explanation.parts)
    for layer in range(min(layers, 4)):
        found.append(Image(f"attention of layer {layer}", _drawn(plot.attention(explanation, layer=layer))))
    return found


def _agreement(comparison: Comparison) -> list[Image]:
    if len(comparison.labels) < 3:  # one pair: the table has said it
        return []
    return [
        Image(caption, _drawn(plot.agreement(comparison, measure=measure)))
        for measure, caption in (
            ("spearman", "Spearman's rank correlation"),
            ("kendall", "Kendall's τ-b"),
            ("overlap", f"share of the top {comparison.k} that both name"),
        )
    ]


def _drawn(ax: Axes) -> str:
    """A picture made for the page, closed afterwards."""
    figure = ax.get_figure(root=True)
    try:
        return encoded(ax)
    finally:
        plt.close(figure)


def _words(value: Any) -> str:
    """A check or setting as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value) or "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items()) or "–"
    return str(value)
