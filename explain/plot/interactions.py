"""What pairs of players add together: a matrix."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke
from torch import Tensor

from explain.credit import Credit
from explain.plot.style import DIVERGING, INK, PAPER, axes, centred, colour_bar, hatched, ink_on, short, title, units

_WRITTEN = 8  # players up to which the numbers fit into the cells


def interactions(explanation: Credit, ax: Axes | None = None, k: int = 12) -> Axes:
    """Interactions of the ``k`` players that take most part in any; on the diagonal main effects, in figures alone.

    Red: the two need each other. Blue, hatched where no figures fit: one stands in for the other. Players keep their
    order. The scale is that of the pairs shown, which main effects would make pale; with standard errors a dot marks
    interactions more than two of them from zero. `network` draws the same with credit in nodes.

    Raises:
        ValueError: no ``parts["interactions"] [P, P]``.

    >>> import torch
    >>> from explain import Explanation, Players
    >>> pairs = torch.tensor([[1.0, -2.0], [-2.0, 0.5]])
    >>> why = Explanation(torch.zeros(2), Players("nodes", torch.arange(2)), 0.0, parts={"interactions": pairs})
    >>> [label.get_text() for label in interactions(why).get_yticklabels()]
    ['node 0', 'node 1']
    """
    matrix, players = pairs_of(explanation), len(explanation.players)
    shown = taking_part(explanation, k)
    cells = matrix[shown][:, shown].cpu().numpy()
    size = 2.2 + 0.42 * max(len(shown), 3)
    ax = axes(ax, (size + 1.2, size))
    title(ax, explanation)
    if not len(shown):
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no players", transform=ax.transAxes, ha="center", va="center")
        return ax
    norm = centred(cells[~np.eye(len(cells), dtype=bool)])
    pairs = np.ma.masked_array(cells, np.eye(len(cells), dtype=bool))
    ax.imshow(pairs, cmap=DIVERGING.with_extremes(bad=PAPER), norm=norm)
    if len(shown) > _WRITTEN:  # else the figures have a sign
        hatched(ax, np.ma.filled(pairs < 0, False))
    names = [short(explanation.players.names[i], 18) for i in shown.tolist()]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    _mark(ax, explanation, shown, cells, norm)
    colour_bar(ax, norm, units(explanation, "interaction"))
    if len(shown) < players:
        ax.set_xlabel(f"{len(shown)} of {players} players shown, those that take most part", fontsize="x-small")
    return ax


def pairs_of(explanation: Credit) -> Tensor:
    """``parts["interactions"] [P, P]``.

    Raises:
        ValueError: there are none.
    """
    matrix, players = explanation.parts.get("interactions"), len(explanation.players)
    if matrix is None or matrix.shape != (players, players):
        raise ValueError("there are no interactions to draw: explain with Interactions(...), which finds them")
    return matrix.detach().cpu()


def taking_part(explanation: Credit, k: int) -> Tensor:
    """The ``k`` players that take most part in any interaction, in their own order."""
    return pairs_of(explanation).abs().sum(1).argsort(descending=True, stable=True)[:k].sort().values


def _mark(ax: Axes, explanation: Credit, shown: Tensor, cells: np.ndarray, norm: Normalize) -> None:
    """Numbers in the cells where they fit, and dots where an interaction is told from zero."""
    error = explanation.parts.get("interactions_error")
    doubt = None if error is None else error[shown][:, shown].numpy()
    for row, column in np.ndindex(cells.shape):
        clear = doubt is not None and row != column and abs(cells[row, column]) > 2 * doubt[row, column]
        number = f"{cells[row, column]:.2g}" if len(shown) <= _WRITTEN or row == column else ""
        text = f"{number}{'•' if clear else ''}"
        if text:
            colour = INK if row == column else ink_on(DIVERGING(norm(cells[row, column])))
            around = [] if row == column else [withStroke(linewidth=3, foreground=DIVERGING(norm(cells[row, column])))]
            ax.text(column, row, text, ha="center", va="center", fontsize="x-small", color=colour, path_effects=around)
