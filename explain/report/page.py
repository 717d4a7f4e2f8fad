"""One self-contained HTML page out of explanations: a short page to read, and with JavaScript a workbench."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jinja2
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from explain.comparison import Comparison, said
from explain.explanation import Explanation
from explain.plot.influence import words as helpful
from explain.plot.style import question
from explain.report.asking import Asked
from explain.report.curves import Curves, Group, check_used, groups
from explain.report.curves import curves as removed
from explain.report.data import as_json, question_data
from explain.report.films import Film, attention_maps, film
from explain.report.graph_scene import graph_scene, on_graph, path
from explain.report.picture_scenes import examples, image_scenes, steps_scene, words_scene
from explain.report.pictures import pngs
from explain.report.questions import Question, grouped, unit
from explain.report.scenes import Scene, look
from explain.report.verdict import signed, verdict
from explain.storage import write_atomically
from explain.summary import assumed, counted, own_check, top_players
from explain.types import Target

Picture: TypeAlias = "Axes | Figure | bytes"
DPI = 130
ROWS = 6  # of an answer, for who reads without JavaScript
PARTS = ("tools", "bench", "list", "drag", "reel", "curves", "answers", "page")  # of the workbench; the last one begins
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
    runs: Iterable[Asked] = (),
    curves: Target | Iterable[Target] = (),
    progress: bool = True,
) -> Path:
    """Write the page, whole or not at all: each question with its number, a verdict, and all answers to it.

    It loads nothing and asks nobody. Without JavaScript it is short and readable; with it nodes can be moved, methods
    and steps chosen, small credits hidden (what they sum to stays in sight), players searched and sorted.

    Args:
        explanations: what is told; at least one.
        path: the HTML file.
        title: at the top of the page.
        comparisons: each with its table and its notes; by heading where they need telling apart.
        figures: more pictures by caption: an Axes, a Figure, or the bytes of a PNG.
        runs: runs and steps of a denoiser that some of the answers are about, as ``model.trajectory(...)`` gave them:
            what they foresaw, and their noised pictures, are shown at each step.
        curves: targets that some of the answers are about. They are asked again, with ever fewer players and with ever
            more: deletion and insertion curves of each method, beside random orders and, on graphs, the nearest first.
        progress: a bar, where it takes more than a second.

    Raises:
        TypeError: something else than explanations, or curves of something else than targets.
        ValueError: no explanations, bytes that are no PNG, or curves of a target that no answer is about, or that says
            another number than an answer about it did.
        OSError: the folder is missing or full; a page that was there before is still there.
    """
    told = _told(explanations)
    compared, asked = _named(comparisons), list(runs)
    questions, pictures = grouped(told), list((figures or {}).items())
    plays = _plays(questions, curves)
    page = environment()
    script = workbench()
    total = len(told) + len(pictures) + sum(map(len, plays))
    with tqdm(desc="writing the page", total=total, disable=not progress, delay=1, leave=False) as bar:
        sections = [
            _section(one, i, film(one.answers, asked), bar) | {"curves": list(_curves(one, own, bar))}
            for i, (one, own) in enumerate(zip(questions, plays, strict=True), 1)
        ]
        shown = []
        for caption, picture in pictures:
            shown.append(_figure(caption, picture))
            bar.update()
    text = page.get_template("page.html").render(
        title=title,
        answers=len(told),
        sections=sections,
        comparisons=[{"name": name, "comparison": found} for name, found in compared],
        figures=shown,
        versions=told[0].versions,
        script=Markup(script),
        script_digest=digest(script),
    )
    write_atomically(path, text.encode("utf-8", "replace"))
    return Path(path)


def _plays(questions: Sequence[Question], curves: Any) -> list[list[Group]]:
    """For each question the answers whose players are taken away and added.

    Raises:
        TypeError: no targets.
    """
    targets = [curves] if isinstance(curves, Target) else list(curves)
    for target in targets:
        if not isinstance(target, Target):
            raise TypeError(f"curves are of targets, such as model.node(3), got {type(target).__name__}")
    plays = [groups(one.answers, targets) for one in questions]
    answers = [one for question in questions for one in question.answers]
    check_used(answers, targets, [group for own in plays for group in own])
    return plays


def _curves(asked: Question, plays: Sequence[Group], bar: tqdm) -> Iterator[Curves]:
    names = [one.method for one in asked.told]
    for group in plays:
        yield removed(group, names, not bar.disable)
        bar.update()


def workbench() -> str:
    """The page's own script: its parts, in a scope of their own."""
    parts = [(Path(__file__).parent / "workbench" / f"{part}.js").read_text(encoding="utf-8") for part in PARTS]
    return "\n".join(['"use strict";', "(() => {", *parts, "})();", ""])


def digest(script: str) -> str:
    """What the page's own policy lets run: this script and no other, as that policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


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
    environment.filters |= {"share": lambda found: 0.0 if math.isnan(found) else round(abs(found), 3)}
    environment.filters |= {"path": lambda edge, drawing: path(drawing, edge)}
    return environment


def _figure(caption: str, picture: Picture) -> Image:
    png = encoded(picture)
    width = int.from_bytes(base64.b64decode(png[:32])[16:20], "big")  # where a PNG says it
    return Image(caption, png, wide=width > WIDE)


def _named(comparisons: Comparison | Sequence[Comparison] | Mapping[str, Comparison]) -> list[tuple[str, Comparison]]:
    if isinstance(comparisons, Mapping):
        return list(comparisons.items())
    return [("", found) for found in ([comparisons] if isinstance(comparisons, Comparison) else comparisons)]


def _section(asked: Question, number: int, shown: Film | None, bar: tqdm) -> dict[str, Any]:
    """A question as the template tells it."""
    told, scenes = asked.told, list(_scenes(asked.told, shown))
    near = next((one.players.geometry["image"] for one in told if "image" in one.players.geometry), None)
    panels = []
    for place, one in enumerate(told, 1):
        panels.append(_panel(one, f"q{number}a{place}", asked.words, near))
        bar.update()
    return {
        "place": number,
        "words": asked.words,
        "number": asked.number,
        "verdict": verdict(told),
        "scenes": scenes,
        "told": panels,
        "data": as_json(question_data(asked, scenes, shown)),
    }


def _scenes(told: Sequence[Explanation], shown: Film | None) -> Iterator[Scene]:
    """The drawings of a question: one graph, one of each image, the steps, the words."""
    graphs = [one for one in told if on_graph(one)]
    if graphs:
        yield graph_scene(graphs)
    for scene in image_scenes(told):
        if shown is not None and shown.seen is not None:
            scene.drawing["seen"] = pngs(shown.seen[:1])[0]
        yield scene
    steps = steps_scene(told, shown.foreseen if shown else None, shown.times if shown else ())
    for found in (steps, words_scene(told)):
        if found is not None:
            yield found


def _panel(one: Explanation, name: str, asked: str, near: Tensor | None) -> dict[str, Any]:
    """An answer as the template tells it: its number, its proof, its strongest players and what the others add."""
    order = one.order().tolist()
    shown, rest = order[:ROWS], order[ROWS:]
    largest = float(one.scores.abs().max()) if order else 0.0
    up, down = helpful(one)
    spoken = {"up": up, "down": down, "near": "nearest in pixels"}
    return {
        "id": name,
        "explanation": one,
        "asked_in_words": f"{one.method}, {asked}",
        "question": question(one),
        "model": str(one.target.get("model", "")),
        "players": counted(one),
        "top": top_players(one),
        "check": own_check(one),
        "number": _number(one),
        "unit": unit(one),
        "rows": [
            {
                "name": one.players.names[i],
                "look": look(float(one.scores[i]), largest or 1.0, signed(one)),
                "said": _said(one, i),
            }
            for i in shown
        ],
        "rest": (f"{len(rest)} others, together", f"{float(one.scores[rest].sum()):+.3g}") if rest else None,
        "examples": [row | {"word": spoken[row["side"]]} for row in examples(one, near)],
        "maps": attention_maps(one),
        "asked": {key: value for key, value in one.target.items() if key not in ("assumed", "node_names")},
        "assumed": assumed(one),
    }


def _number(one: Explanation) -> str:
    """What was explained, and what it is without any of the players."""
    base = "" if one.base is None else f", {one.base:.4g} without {one.players.kind}"
    return f"Number {one.value:.4g}{base}; {one.calls} calls, {one.seconds:.2g} s."


def _said(one: Explanation, i: int) -> str:
    error = "" if one.error is None else f" ± {float(one.error[i]):.1g}"
    return f"{float(one.scores[i]):+.3g}{error}"


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
