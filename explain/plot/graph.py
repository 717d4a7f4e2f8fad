"""Credit of edges or nodes, drawn on the graph."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize

from explain.conversion import context, named_nodes, node_ids, node_players, undirected
from explain.credit import Credit
from explain.plot import node_link
from explain.plot.attention import EDGES
from explain.plot.style import axes, centred, colour_bar, ink_on, note, title, units

LINES: Colormap = colormaps["coolwarm"]  # its middle is grey, so that a line with no credit is still seen


def graph(explanation: Credit, ax: Axes | None = None, max_nodes: int = 40, max_edges: int = 60, seed: int = 0) -> Axes:
    """The explained nodes ringed; edges, or nodes, in the colour of their score, edges as wide as it is large.

    A larger context is cut to the strongest players and the shortest ways from them to the explained nodes; only the
    ``max_edges`` strongest edges are coloured. A note says so.

    Raises:
        ValueError: players that do not live on a graph.
    """
    columns, owner = context(explanation)
    edges = [(source, target) for source, target in columns.t().tolist()]
    focus = node_link.ids(explanation.players.geometry.get("focus", columns.new_zeros(0)))
    everyone = node_ids(explanation, columns).tolist()
    ax = axes(ax, (7.0, 4.8))
    kept = everyone if len(everyone) <= max_nodes else _kept(explanation, edges, owner, focus, max_nodes)
    where = node_link.part(edges, owner, kept, seed)
    node_link.draw_lines(ax, where, where.edges)
    node_link.draw_ring(ax, where, focus)
    cmap, norm = _scale(explanation)
    if node_players(explanation) is None:
        shown = _draw_edges(ax, explanation, where, max_edges)
        scored = len(explanation.players)
        told = f"the strongest {shown} of {scored} {explanation.players.kind} in colour" if shown < scored else ""
        told = told if scored else "no players: nothing else reaches the explained node"
    else:
        _draw_nodes(ax, explanation, where)
        told = f"{len(kept)} of {len(everyone)} nodes shown, the strongest" if len(kept) < len(everyone) else ""
    if len(explanation.players):
        colour_bar(ax, norm, units(explanation), cmap)
    node_link.finish(ax)
    title(ax, explanation)
    if told:
        note(ax, told)
    return ax


def _scale(explanation: Credit) -> tuple[Colormap, Normalize]:
    """Colours around 0, or from 0 up where scores are shares or masks, which have no sign."""
    if "scores" not in explanation.checks:
        return LINES, centred(explanation.scores)
    return EDGES, Normalize(0, float(explanation.scores.max()) if len(explanation.scores) else 1.0)


def _kept(explanation: Credit, edges: list[node_link.Edge], owner: list[int], focus: list[int], most: int) -> set[int]:
    """The explained nodes and the strongest players."""
    nodes = node_players(explanation)
    if nodes is not None:
        return node_link.strongest(edges, [[node] for node in nodes[explanation.order()].tolist()], focus, most)
    strength = [abs(float(explanation.scores[player])) if player >= 0 else 0.0 for player in owner]
    return node_link.strongest(edges, node_link.by_strength(edges, strength), focus, most)


def _draw_edges(ax: Axes, explanation: Credit, where: node_link.Part, most: int) -> int:
    """The ``most`` strongest edges that are players' own; how many players were drawn."""
    scores = explanation.scores.numpy()
    both = undirected(explanation)
    chosen = [i for i, player in enumerate(where.owner) if player >= 0]
    if both:  # one line for both directions
        chosen = list({where.owner[i]: i for i in reversed(chosen)}.values())
    chosen = sorted(chosen, key=lambda i: -abs(scores[where.owner[i]]))[:most]
    found = np.array([scores[where.owner[i]] for i in chosen])
    cmap, norm = _scale(explanation)
    if chosen:
        widths = 0.6 + 3.4 * np.abs(found) / (norm.vmax or 1.0)
        colours = cmap(norm(found))
        node_link.draw_scored(ax, where, [where.edges[i] for i in chosen], colours, widths, arrows=not both)
    node_link.draw_nodes(ax, where, where.nodes, "white")
    node_link.draw_labels(ax, where, _labels(explanation, where.nodes))
    return len({where.owner[i] for i in chosen})


def _draw_nodes(ax: Axes, explanation: Credit, where: node_link.Part) -> None:
    """Player nodes in the colour of their score; the others white."""
    nodes = node_players(explanation)
    assert nodes is not None
    player = {node: i for i, node in enumerate(nodes.tolist())}
    cmap, norm = _scale(explanation)
    scored = [node for node in where.nodes if node in player]
    colours = cmap(norm(explanation.scores[[player[node] for node in scored]].numpy()))
    node_link.draw_nodes(ax, where, [node for node in where.nodes if node not in player], "white")
    node_link.draw_nodes(ax, where, scored, colours)
    labels = _labels(explanation, where.nodes)
    names = {node: explanation.players.names[i] for node, i in player.items()}
    inks = {node: ink_on(colour) for node, colour in zip(scored, colours, strict=True)}
    node_link.draw_labels(ax, where, labels | {node: name for node, name in names.items() if len(name) <= 5}, inks)


def _labels(explanation: Credit, nodes: list[int]) -> dict[int, str]:
    return dict(zip(nodes, map(node_link.label, named_nodes(explanation, nodes)), strict=True))
