"""What every picture shares: an Axes to draw on, a diverging colour scale centred at zero, words for the number."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from explain.credit import Credit

DIVERGING = plt.get_cmap("RdBu_r")  # red pushes the number up, blue down; told apart with every colour blindness
SEQUENTIAL = plt.get_cmap("cividis")
UP, DOWN = "#b2182b", "#2166ac"  # the same red and blue, where a colour stands alone
INK, FAINT, PAPER = "#222222", "#c8c8c8", "#f4f4f2"
HATCH, DASHED = "////", (0, (2.2, 1.1))  # below zero, where there is no colour
SMALLEST = 6.0  # points of a letter
NUMBERS = {  # what numbers are called whose name does not say which way is good
    "error": "−squared error: up is better",
    "loss": "loss: down is better",
    "nearness to x0": "−mean squared distance to x0: up is nearer",
    "elbo": "bound on log p: up is better",
}


def axes(ax: Axes | None, size: tuple[float, float] = (6.0, 4.5)) -> Axes:
    """The Axes given, else a new one in a figure of this size in inches."""
    if ax is not None:
        return ax
    room = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, compress=True)  # inches; fits pictures of a fixed shape too
    return plt.subplots(figsize=size, layout=room)[1]


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of an Axes, as it stands before a layout moves it."""
    figure, box = ax.get_figure(root=True), ax.get_position()
    assert isinstance(figure, Figure)
    return box.width * figure.get_figwidth(), box.height * figure.get_figheight()


def centred(scores: Iterable[float]) -> Normalize:
    """A scale from -m to m, ``m`` the largest absolute score: zero is white."""
    largest = max((abs(float(score)) for score in scores), default=0.0)
    return Normalize(-(largest or 1.0), largest or 1.0)


def colour_bar(
    ax: Axes, norm: Normalize, label: str, cmap: Colormap = DIVERGING, *, below: bool = False, dashed: bool = False
) -> Colorbar:
    """A slim colour bar with the units, beside the picture, or below one that is too low for its words.

    What is below zero is hatched in it, or, where lines are, has a dashed line beside it: so it is in the picture too.
    """
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    where: dict[str, Any] = {"fraction": 0.045, "pad": 0.03, "aspect": 30}
    if below:
        where = {"location": "bottom", "fraction": 0.1, "shrink": 0.45, "aspect": 45, "anchor": (0.0, 1.0)}
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=ax, **where)
    if below:
        bar.ax.locator_params(axis="x", nbins=4)
    bar.set_label("\n".join(textwrap.wrap(label, max(20, int(72 * inches(ax)[0 if below else 1] / 5.5)))))
    bar.outline.set_visible(False)
    if norm.vmin is not None and norm.vmin < 0 < (norm.vmax or 0):
        _mark_negative(bar, float(norm.vmin), below, dashed)
    return bar


def _mark_negative(bar: Colorbar, least: float, below: bool, dashed: bool) -> None:
    if dashed:
        for ends, style in (((least, 0.0), DASHED), ((0.0, -least), "solid")):
            across = (0.5, 0.5)
            bar.ax.plot(*((ends, across) if below else (across, ends)), color=INK, linewidth=1.2, linestyle=style)
        return
    half = bar.ax.axvspan(least, 0, 0, 0.5) if below else bar.ax.axhspan(least, 0, 0.5, 1)  # the rest is its colour
    half.set(facecolor="none", edgecolor=INK, hatch=HATCH, linewidth=0)


def signed(bars: BarContainer, scores: Sequence[float]) -> None:
    """Red bars above zero; below it blue ones, hatched, so that the sign is still there in print without colours."""
    for bar, score in zip(bars, scores, strict=True):
        bar.set(facecolor=UP if score > 0 else DOWN, hatch="" if score > 0 else HATCH, edgecolor="white", linewidth=0)


def hatched(ax: Axes, below: np.ndarray) -> None:
    """Thin strokes over the cells ``[rows, columns]`` below zero, still told apart in print without colours."""
    corners, codes = [], []
    for row, cells in enumerate(below):
        ends = np.flatnonzero(np.diff(np.concatenate([[False], cells, [False]]).astype(int))) - 0.5
        for left, right in ends.reshape(-1, 2).tolist():
            corners += [(left, row - 0.5), (right, row - 0.5), (right, row + 0.5), (left, row + 0.5), (left, row - 0.5)]
            codes += [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    if corners:
        ax.add_patch(PathPatch(Path(corners, codes), facecolor="none", edgecolor=INK, hatch=HATCH, linewidth=0))


def ink_on(colour: Sequence[float]) -> str:
    """Dark or white letters, whichever can be read on this colour."""
    red, green, blue = colour[:3]
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else INK


def number_name(explanation: Credit) -> str:
    """What the number is called, and which way is good where its name does not say so; empty where nobody said."""
    if isinstance(number := explanation.checks.get("number"), str):  # not the target's
        return number
    payoff = explanation.target.get("payoff")
    if not isinstance(payoff, str):
        return ""
    if payoff in ("<lambda>", "callable"):  # a function may have no name
        return "payoff"
    return NUMBERS.get(payoff, payoff.replace("_", " "))


def units(explanation: Credit, name: str = "credit") -> str:
    """What a score is measured in: the number's own units, or what the method says its scores are."""
    own = explanation.checks.get("scores")
    if isinstance(own, str):
        return short(own.split(":")[0], 40)
    said = number_name(explanation)
    return f"{name} [{short(said, 44)}]" if said else name


def question(explanation: Credit) -> str:
    """What was asked, in a few words: "node 42, class 1", "t=40, class 3", or "run of 30 steps, “a red fox”"."""
    target = explanation.target
    if target.get("question") in ("step", "trajectory"):  # of a denoiser
        asked = target.get("t", [])
        times = f"t={', '.join(f'{t:g}' for t in asked)}" if len(asked) <= 3 else f"{len(asked)} steps"
        said = [times if target["question"] == "step" else f"run of {target.get('steps')} steps"]
        said += [f"class {target['label']}"] if target.get("label") is not None else []
        said += [f"“{_cut(target['prompt'], 32)}”"] if isinstance(target.get("prompt"), str) else []
        return ", ".join(said)
    task = target.get("task")
    asked = target.get(task) if isinstance(task, str) else None
    said = [f"{task} {'–'.join(map(str, asked)) if isinstance(asked, list) else asked}"] if asked is not None else []
    if target.get("label") is not None:
        said.append(f"class {target.get('class_name', target['label'])}")
    return ", ".join(said)


def short(name: str, most: int = 28) -> str:
    """A label that fits; dollar signs are text, not mathematics."""
    return _cut(name, most).replace("$", r"\$")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def heading(ax: Axes, *parts: str) -> None:
    """Words above the picture, at its left, in up to three lines where it is narrow."""
    room = max(24, int(72 * inches(ax)[0] / 5.4))
    lines = textwrap.wrap(" · ".join(filter(None, parts)), room, max_lines=3, placeholder=" …")
    ax.set_title(short("\n".join(lines), 3 * room), loc="left", fontsize="medium")


def title(ax: Axes, explanation: Credit) -> None:
    """Method, model, question and number above the picture."""
    model = explanation.target.get("model")
    asked = []
    if "number" not in explanation.checks:  # else each player's own
        said = _cut(number_name(explanation).split(":")[0] or "number", 36)
        asked = [question(explanation), f"{said}\xa0=\xa0{explanation.value:.3g}".replace("-", "−")]
    heading(ax, explanation.method, _cut(model, 20) if isinstance(model, str) else "", *asked, runs(explanation))


def runs(explanation: Credit) -> str:
    """How far the runs of an answer agree that is the mean of several, such as of `Mask`; empty for any other."""
    if "run_to_run" not in explanation.checks:
        return ""
    agreement = explanation.checks["run_to_run"]
    if not isinstance(agreement, float):
        return "agreement of runs unknown"
    return f"runs agree by ρ\xa0=\xa0{agreement:.2f}".replace("-", "−")


def note(ax: Axes, text: str, below: float = 6) -> None:
    """A small remark, this many points below the picture."""
    ax.annotate(
        text, (0, 0), (0, -below), "axes fraction", "offset points", va="top", fontsize="x-small", color="#555555"
    )
