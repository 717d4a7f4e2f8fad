"""Helpful and harmful training examples: on the graph, and as a list."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from explain.conversion import context, named_nodes, node_players
from explain.credit import Credit
from explain.plot import node_link
from explain.plot.graph import LINES
from explain.plot.style import DOWN, INK, UP, axes, centred, colour_bar, ink_on, note, short, title, units

SHAPES = "osD^vphX"  # by class


def influence(explanation: Credit, ax: Axes | None = None, k: int = 5, max_nodes: int = 60, seed: int = 0) -> Axes:
    """Training nodes on the graph: colour is influence, size its strength, shape the class, the ``k`` strongest named.

    A larger graph is cut to the strongest training nodes and the shortest ways from them to the explained node.

    Raises:
        ValueError: training examples that are not nodes of one graph: use `influence_list`.
    """
    nodes = node_players(explanation)
    if nodes is None or "edge_index" not in explanation.players.geometry:
        raise ValueError(f"{explanation.players.kind} are not training nodes on a graph: use influence_list")
    columns, owner = context(explanation)
    edges = [(source, target) for source, target in columns.t().tolist()]
    focus = node_link.ids(explanation.players.geometry.get("focus", columns.new_zeros(0)))
    everyone = {*columns.unique().tolist(), *focus, *nodes.tolist()}
    strongest = nodes[explanation.order()].tolist()
    few = len(everyone) <= max_nodes
    kept = everyone if few else node_link.strongest(edges, [[node] for node in strongest], focus, max_nodes)
    ax = axes(ax, (7.0, 4.8))
    where = node_link.part(edges, owner, kept, seed)
    node_link.draw_lines(ax, where, where.edges)
    node_link.draw_ring(ax, where, focus)
    _draw_training(ax, explanation, where, nodes.tolist())
    labelled = [node for node in where.nodes if node in {*strongest[:k], *focus} or len(where.nodes) <= 40]
    named = dict(zip(labelled, map(node_link.label, named_nodes(explanation, labelled)), strict=True))
    norm = centred(explanation.scores)
    inks = {n: ink_on(LINES(norm(float(s)))) for n, s in zip(nodes.tolist(), explanation.scores, strict=True)}
    node_link.draw_labels(ax, where, named, inks)
    colour_bar(ax, norm, units(explanation, "influence"), LINES)
    node_link.finish(ax)
    title(ax, explanation)
    if not few:
        note(
            ax,
            f"{len(kept)} of {len(everyone)} nodes: the strongest training nodes and the ways to the explained one",
            34,
        )
    return ax


def influence_list(explanation: Credit, ax: Axes | None = None, k: int = 5) -> Axes:
    """The ``k`` most helpful and the ``k`` most harmful training examples as bars, most helpful on top.

    Helpful examples push the number the way one wants it: up, or down where the number is a loss.
    """
    up, down = words(explanation)
    order = explanation.scores.argsort(descending=True, stable=True).tolist()
    raised = [i for i in order if explanation.scores[i] > 0][:k]
    lowered = [i for i in order if explanation.scores[i] < 0][-k:]
    shown = [*raised, *lowered]
    scores = explanation.scores[shown].tolist()
    error = None if explanation.error is None else explanation.error[shown].tolist()
    ax = axes(ax, (6.0, 1.2 + 0.32 * max(len(shown), 2)))
    ax.barh(
        range(len(shown)), scores, xerr=error, color=[UP if s > 0 else DOWN for s in scores], height=0.7, ecolor=INK
    )
    ax.set_yticks(range(len(shown)), [short(explanation.players.names[i]) for i in shown])
    ax.invert_yaxis()
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    ax.legend(
        handles=[Line2D([], [], color=UP, lw=6, label=up), Line2D([], [], color=DOWN, lw=6, label=down)],
        loc="lower right", frameon=False,
    )  # fmt: skip
    ax.set_xlabel(units(explanation, "influence"))
    title(ax, explanation)
    return ax


def words(explanation: Credit) -> tuple[str, str]:
    """What raising and lowering the number is called."""
    return ("harmful", "helpful") if explanation.target.get("payoff") == "loss" else ("helpful", "harmful")


def _draw_training(ax: Axes, explanation: Credit, where: node_link.Part, nodes: list[int]) -> None:
    norm = centred(explanation.scores)
    player = {node: i for i, node in enumerate(nodes)}
    classes = explanation.players.geometry.get("classes")
    kinds = [0] * len(nodes) if classes is None else classes.tolist()
    others = [node for node in where.nodes if node not in player]
    node_link.draw_nodes(ax, where, others, "white", where.node_size * 0.45, edgecolors="#9a9a9a")
    handles: list[Line2D] = []
    below: dict[str, Any] = {
        "loc": "upper left",
        "bbox_to_anchor": (0, 0),
        "ncols": 5,
        "fontsize": "x-small",
        "frameon": False,
    }
    for kind in sorted(set(kinds)):
        shown = [node for node in where.nodes if node in player and kinds[player[node]] == kind]
        scores = explanation.scores[[player[node] for node in shown]].numpy()
        sizes = where.node_size * (0.6 + 0.9 * np.abs(scores) / norm.vmax)
        shape = SHAPES[kind % len(SHAPES)]
        node_link.draw_nodes(ax, where, shown, LINES(norm(scores)), sizes, node_shape=shape)
        handles.append(_sample(shape, "training node" if classes is None else f"class {kind}"))
    ax.legend(handles=[*handles, _sample("o", "other node", 5)], **below)


def _sample(shape: str, label: str, size: float = 8) -> Line2D:
    face = "#bbbbbb" if size == 8 else "white"
    return Line2D([], [], marker=shape, color=INK, markerfacecolor=face, linestyle="", markersize=size, label=label)
