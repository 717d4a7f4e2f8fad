"""Where in the picture each word of a prompt is looked at: one map a word, all on one scale, each beside chance."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from torch import Tensor

from explain.credit import Credit
from explain.plot.attention_maps import times_uniform
from explain.plot.heatmap import UNSIGNED, mark_uniform
from explain.plot.pictures import even, one_picture
from explain.plot.style import axes, colour_bar, heading, ink_on, note, question, short

CHANCE = 0.16  # of a map's width: the strip beside it
GAP, ABOVE = 0.2, 0.36  # between maps, and above each for its words, in widths


def word_maps(
    explanation: Credit, ax: Axes | None = None, over: Tensor | None = None, columns: int = 4, most: int = 16
) -> Axes:
    """One map a word, the picture before them; the strip at its right is the colour that the word has by chance.

    One scale for all, up to twice chance or further: a word that is hardly looked at is pale, and no map is stretched
    on its own. Over each are its mean share and that of chance. Attention says what was looked at, and not what made
    the picture: `words` does.

    Args:
        explanation: of `Attention` over words.
        ax: where to draw.
        over: the picture ``[3, H, W]`` to draw before them, such as ``run.picture()``.
        columns: maps side by side.
        most: words at most, those with the largest share.

    Raises:
        ValueError: an explanation without such maps, or no picture.
    """
    maps, chance = _maps(explanation)
    picture = None if over is None else one_picture(over, "over")
    shares = maps.mean((1, 2))
    read = np.flatnonzero(chance > 0)  # the others are of another text
    chosen = sorted(read[np.argsort(-shares[read], kind="stable")][:most].tolist())
    height = (maps.shape[1] / maps.shape[2]) if picture is None else picture.shape[0] / picture.shape[1]
    places = len(chosen) + (picture is not None)
    across = min(columns, max(1, places))
    wide, tall, down = 1.03 + CHANCE + GAP, height + ABOVE, -(-places // across)
    ax = axes(ax, (1.0 + 1.55 * across * wide, 0.6 + 1.55 * down * tall))
    if picture is not None:
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=(0, 1, height, 0))
        ax.text(0, -0.04, "the picture", ha="left", va="bottom", fontsize="x-small")
    reach = [maps[i].max() for i in chosen] + [2 * chance[i] for i in chosen]
    norm = Normalize(0, float(max(reach, default=0)) or 1.0)
    for place, i in enumerate(chosen, places - len(chosen)):
        left, top = place % across * wide, place // across * tall
        _draw(ax, maps[i], float(chance[i]), norm, (left, top, height))
        said = f"{short(explanation.players.names[i], 18)}\n{shares[i]:.2g}, by chance {chance[i]:.2g}"
        ax.text(left, top - 0.04, said, ha="left", va="bottom", fontsize="x-small", linespacing=1.2)
    ax.set(xlim=(-0.02, across * wide - GAP + 0.02), ylim=(down * tall - ABOVE + 0.02, -ABOVE))
    ax.set_aspect("equal")
    ax.set_axis_off()
    colour_bar(ax, norm, "share of attention", UNSIGNED)
    heading(ax, explanation.method, question(explanation))
    told = [f"{len(chosen)} of {len(read)} words"] if len(chosen) < len(read) else []
    note(ax, ", ".join([*told, "the strip beside each map is the colour of chance"]), 2)
    return ax


def word_steps(explanation: Credit, ax: Axes | None = None, most: int = 24) -> Axes:
    """A matrix of words and steps: how much of the picture's attention each word gets at each step, first step left.

    In times of what the word gets by chance, which the colour bar marks: words of one token and of several compare, and
    what is nearly by chance looks so. Figures stand in the cells where they fit.

    Args:
        explanation: of `Attention` over words on a run.
        ax: where to draw.
        most: steps at most, evenly spread.

    Raises:
        ValueError: an explanation without ``parts["by_step"] [words, steps]``.
    """
    if "by_step" not in explanation.parts or "uniform" not in explanation.parts:
        raise ValueError(
            f"words by steps are of Attention('words') on a run of several steps; {explanation.method} has no "
            "parts['by_step']"
        )
    shares = explanation.parts["by_step"].double().cpu().numpy()
    chance = explanation.parts["uniform"].double().cpu().numpy()
    read = np.flatnonzero(chance > 0)
    chosen = even(shares.shape[1], most)
    ratio = shares[read][:, chosen] / chance[read, None]
    ax = axes(ax, (2.6 + 0.5 * len(chosen), 1.2 + 0.32 * max(len(read), 5)))
    norm = times_uniform([ratio])
    ax.imshow(ratio, cmap=UNSIGNED, norm=norm, aspect="auto", interpolation="nearest")
    steps = explanation.parts["steps"].tolist() if "steps" in explanation.parts else range(shares.shape[1])
    every = -(-len(chosen) // 10)
    ax.set_xticks(range(0, len(chosen), every), [_time(steps[i]) for i in chosen[::every]], fontsize="x-small")
    ax.set_yticks(range(len(read)), [short(explanation.players.names[i], 18) for i in read], fontsize="small")
    ax.set_xlabel("t, first step left")
    if len(chosen) <= 12:
        for (row, column), value in np.ndenumerate(ratio):
            ink = ink_on(UNSIGNED(norm(float(value))))
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize="x-small", color=ink)
    mark_uniform(colour_bar(ax, norm, "attention, times chance", UNSIGNED), 1.0, "chance")
    heading(ax, explanation.method, question(explanation))
    if len(chosen) < shares.shape[1]:
        note(ax, f"{len(chosen)} of {shares.shape[1]} steps", 30)
    return ax


def _maps(explanation: Credit) -> tuple[np.ndarray, np.ndarray]:
    """Maps ``[words, H, W]`` whose means are the scores, and what each mean is by chance, ``[words]``.

    Raises:
        ValueError: the explanation has none.
    """
    parts = explanation.parts
    if explanation.players.kind != "words" or "maps" not in parts or "uniform" not in parts:
        raise ValueError(
            f"maps of words are of Attention('words'); {explanation.method} over {explanation.players.kind} has none"
        )
    maps, scores = parts["maps"].double().cpu(), explanation.scores.cpu()
    summed = (maps.mean((1, 2)) / scores).where(scores > 0, 1.0)  # some aggregates are sums over so many maps
    return (maps / summed[:, None, None]).numpy(), parts["uniform"].double().cpu().numpy()


def _draw(ax: Axes, found: np.ndarray, chance: float, norm: Normalize, place: tuple[float, float, float]) -> None:
    left, top, height = place
    reach, beside = ((a, b, top + height, top) for a, b in ((left, left + 1), (left + 1.03, left + 1.03 + CHANCE)))
    for values, where in ((found, reach), (np.full((1, 1), chance), beside)):
        ax.imshow(values, cmap=UNSIGNED, norm=norm, extent=where, interpolation="nearest")
        a, b, c, d = where
        ax.plot([a, b, b, a, a], [c, c, d, d, c], color="#999999", linewidth=0.6)


def _time(t: float) -> str:
    return f"{t:.0f}" if t >= 10 or t == round(t) else f"{t:.2g}"
