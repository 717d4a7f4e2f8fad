"""Helpful and harmful training examples: on the graph, and as a list."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from explain.conversion import node_players
from explain.credit import Credit
from explain.plot import node_link
from explain.plot.bars import BAR, plain
from explain.plot.graph import LINES
from explain.plot.marks import legend_below, markers, sample, samples
from explain.plot.positions import Places, edges_of, everyone, focus_of, known, part_of, room, shown_nodes
from explain.plot.style import DOWN, HATCH, UP, axes, centred, colour_bar, ink_on, note, short, signed, title, units


def influence(
    explanation: Credit,
    ax: Axes | None = None,
    k: int = 5,
    max_nodes: int = 60,
    seed: int = 0,
    position: Places | None = None,
    norm: Normalize | None = None,
) -> Axes:
    """Training nodes on the graph: colour is influence, size its strength, shape the class, the ``k`` strongest named.

    What lowers the number has a dashed outline. A larger graph is cut to the strongest training nodes and the shortest
    ways from them to the explained node. ``position`` and ``norm`` as of `graph`.

    Raises:
        ValueError: training examples that are not nodes of one graph: use `influence_list`.
    """
    nodes = node_players(explanation)
    if nodes is None or "edge_index" not in explanation.players.geometry:
        raise ValueError(f"{explanation.players.kind} are not training nodes on a graph: use influence_list")
    edges, owner = edges_of(explanation)
    focus, total = focus_of(explanation), len(everyone(explanation, edges))
    ax = axes(ax, (7.0, 4.8))
    if position is None:
        kept = shown_nodes(explanation, edges, owner, room(ax, explanation, edges, max_nodes))
    else:
        kept = known(explanation, edges, position)
    norm = norm or centred(explanation.scores)
    where = part_of(ax, explanation, edges, owner, kept, position, seed)
    where = replace(where, marks=_marks(explanation, nodes.tolist()))
    node_link.draw_lines(ax, where, where.edges)
    node_link.draw_ring(ax, where, focus)
    strongest = nodes[explanation.order()].tolist()
    labelled = [node for node in where.nodes if node in {*strongest[:k], *focus} or len(where.nodes) <= 40]
    _draw_training(ax, explanation, where, nodes.tolist(), norm, set(labelled))
    inks = {n: ink_on(LINES(norm(float(s)))) for n, s in zip(nodes.tolist(), explanation.scores, strict=True)}
    node_link.draw_labels(ax, where, labelled, focus, inks)
    colour_bar(ax, norm, units(explanation, "influence"), LINES, dashed=True)
    node_link.finish(ax)
    title(ax, explanation)
    high = legend_below(ax, _classes(explanation, where, nodes.tolist()))
    if len(kept) < total:
        said = f"{len(kept)} of {total} nodes: the strongest training nodes and the ways to the explained one"
        note(ax, said, 6 + high)
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
    signed(ax.barh(range(len(shown)), scores, xerr=error, **BAR), scores)
    ax.set_yticks(range(len(shown)), [short(explanation.players.names[i]) for i in shown])
    ax.invert_yaxis()
    plain(ax)
    ax.set_xlabel(units(explanation, "influence"))
    title(ax, explanation)
    said = [Patch(facecolor=UP, label=up), Patch(facecolor=DOWN, edgecolor="white", hatch=HATCH, label=down)]
    legend_below(ax, said, 34)
    return ax


def words(explanation: Credit) -> tuple[str, str]:
    """What raising and lowering the number is called."""
    return ("harmful", "helpful") if explanation.target.get("payoff") == "loss" else ("helpful", "harmful")


def _draw_training(
    ax: Axes, explanation: Credit, where: node_link.Part, nodes: list[int], norm: Normalize, labelled: set[int]
) -> None:
    """Training nodes by their influence; the others small where they have no name in them."""
    player = {node: i for i, node in enumerate(nodes)}
    others = [node for node in where.nodes if node not in player]
    sizes = where.node_size * np.array([1.0 if node in labelled else 0.45 for node in others])
    node_link.draw_nodes(ax, where, others, "white", sizes, edgecolors="#9a9a9a")
    shown = [node for node in where.nodes if node in player]
    scores = explanation.scores[[player[node] for node in shown]].numpy()
    sizes = where.node_size * (1.0 + 0.9 * np.abs(scores) / (norm.vmax or 1.0))
    node_link.draw_nodes(ax, where, shown, LINES(norm(scores)), sizes, dashed=(scores < 0).tolist())


def _kinds(explanation: Credit, nodes: list[int]) -> dict[int, int]:
    """The class of each training node, 0 where classes are not told."""
    classes = explanation.players.geometry.get("classes")
    return dict(zip(nodes, [0] * len(nodes) if classes is None else classes.tolist(), strict=True))


def _marks(explanation: Credit, nodes: list[int]) -> dict[int, str]:
    kinds = _kinds(explanation, nodes)
    marks = markers(sorted(set(kinds.values())))
    return {node: marks[kind] for node, kind in kinds.items()}


def _classes(explanation: Credit, where: node_link.Part, nodes: list[int]) -> list[Line2D]:
    """The legend: a marker for each class that is shown, and the other nodes."""
    kinds = _kinds(explanation, nodes)
    marks = markers(sorted(set(kinds.values())))
    shown = {kinds[node] for node in where.nodes if node in kinds}
    name = "training node" if "classes" not in explanation.players.geometry else "class {}"
    handles = samples({kind: mark for kind, mark in marks.items() if kind in shown}, name)
    return [*handles, sample("o", "other node", "white", 5)]
