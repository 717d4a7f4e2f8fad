"""Credit of edges or nodes, drawn on the graph."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize, to_hex

from explain.conversion import node_players, undirected
from explain.credit import Credit
from explain.plot import node_link
from explain.plot.attention import EDGES
from explain.plot.positions import (
    Places,
    edges_of,
    everyone,
    focus_of,
    known,
    part_of,
    room,
    shown_nodes,
    type_legend,
)
from explain.plot.style import axes, centred, colour_bar, ink_on, note, title, units

LINES: Colormap = colormaps["coolwarm"]  # its middle is grey, so that a line with no credit is still seen
HULLS = 8  # motifs that have a patch of their own


def graph(
    explanation: Credit,
    ax: Axes | None = None,
    max_nodes: int = 40,
    max_edges: int = 60,
    seed: int = 0,
    position: Places | None = None,
    norm: Normalize | None = None,
) -> Axes:
    """The explained nodes ringed; edges, or nodes, in the colour of their score, edges as wide as it is large.

    What is below zero is dashed. What a counterfactual deletes is struck out; motifs have patches behind them; of a
    heterogeneous graph each type has its marker. A larger context is cut to the strongest players and the shortest ways
    from them to the explained nodes; only the ``max_edges`` strongest edges are coloured. A note says so.

    Args:
        explanation: over nodes, edges, motifs or relations.
        ax: where to draw.
        max_nodes: at most, and no more than there is room for, where no places are given.
        max_edges: in colour.
        seed: of the layout of a large graph.
        position: ``{node: (x, y)}``, ``(type, number)`` in heterogeneous graphs: these nodes, there; of several
            explanations `positions` makes one for all.
        norm: of the colours; by default from minus the largest score to the largest.

    Raises:
        ValueError: players that do not live on a graph, or no place for the explained node.
    """
    edges, owner = edges_of(explanation)
    focus = focus_of(explanation)
    total = len(everyone(explanation, edges))
    ax = axes(ax, (7.0, 4.8))
    if position is None:
        kept = shown_nodes(explanation, edges, owner, room(ax, explanation, edges, max_nodes))
    else:
        kept = known(explanation, edges, position)
    where = part_of(ax, explanation, edges, owner, kept, position, seed)
    node_link.draw_lines(ax, where, where.edges)
    node_link.draw_ring(ax, where, focus)
    cmap, norm = scale(explanation, norm)
    told = f"{len(kept)} of {total} nodes shown, the strongest" if len(kept) < total else _together(explanation)
    if node_players(explanation) is None:
        shown = _draw_edges(ax, explanation, where, max_edges, cmap, norm)
        scored = len(explanation.players)
        told = f"the strongest {shown} of {scored} {explanation.players.kind} in colour" if shown < scored else ""
        told = told if scored else "no players: nothing else reaches the explained node"
    else:
        _draw_nodes(ax, explanation, where, cmap, norm)
    if len(explanation.players):
        colour_bar(ax, norm, units(explanation), cmap, dashed=True)
    node_link.finish(ax)
    title(ax, explanation)
    high = type_legend(ax, explanation, where)
    if told:
        note(ax, told, 6 + high)
    return ax


def scale(explanation: Credit, norm: Normalize | None = None) -> tuple[Colormap, Normalize]:
    """Colours around 0, or from 0 up where scores are shares or masks, which have no sign."""
    if "scores" not in explanation.checks:
        return LINES, norm or centred(explanation.scores)
    return EDGES, norm or Normalize(0, float(explanation.scores.max()) if len(explanation.scores) else 1.0)


def _draw_edges(
    ax: Axes, explanation: Credit, where: node_link.Part, most: int, cmap: Colormap, norm: Normalize
) -> int:
    """The ``most`` strongest edges that are players' own; how many players were drawn."""
    scores = explanation.scores.numpy()
    both = undirected(explanation)
    chosen = [i for i, player in enumerate(where.owner) if player >= 0]
    if both:  # one line for both directions
        chosen = list({where.owner[i]: i for i in reversed(chosen)}.values())
    chosen = sorted(chosen, key=lambda i: -abs(scores[where.owner[i]]))[:most]
    found = np.array([scores[where.owner[i]] for i in chosen])
    if explanation.players.kind == "motifs":
        _draw_hulls(ax, explanation, where, cmap, norm)
    if chosen:
        widths = 0.6 + 3.4 * np.abs(found) / (norm.vmax or 1.0)
        shown = [where.edges[i] for i in chosen]
        node_link.draw_scored(ax, where, shown, cmap(norm(found)), widths, arrows=not both, dashed=(found < 0).tolist())
        if (gone := _deleted(explanation)) is not None:
            struck = [edge for edge, i in zip(shown, chosen, strict=True) if gone[where.owner[i]]]
            node_link.strike(ax, where, struck, arrows=not both)
    node_link.draw_nodes(ax, where, where.nodes, "white")
    node_link.draw_labels(ax, where, where.nodes, focus_of(explanation))
    return len({where.owner[i] for i in chosen})


def _draw_nodes(ax: Axes, explanation: Credit, where: node_link.Part, cmap: Colormap, norm: Normalize) -> None:
    """Player nodes in the colour of their score, all of a player's alike; the others white."""
    player = _player_of(explanation)
    scored = [node for node in where.nodes if node in player]
    scores = explanation.scores[[player[node] for node in scored]].numpy()
    colours = cmap(norm(scores))
    node_link.draw_nodes(ax, where, [node for node in where.nodes if node not in player], "white")
    node_link.draw_nodes(ax, where, scored, colours, dashed=(scores < 0).tolist())
    inks = {node: ink_on(colour) for node, colour in zip(scored, colours, strict=True)}
    node_link.draw_labels(ax, where, where.nodes, focus_of(explanation), inks)
    if (gone := _deleted(explanation)) is not None:
        node_link.strike(ax, where, [], [node for node in scored if gone[player[node]]])


def _together(explanation: Credit) -> str:
    """That a colour is that of several nodes in one, where it is."""
    groups = explanation.players.groups if explanation.players.kind == "nodes" else None
    return "nodes of one player all have its colour" if any(len(own) > 1 for own in groups or ()) else ""


def _player_of(explanation: Credit) -> dict[int, int]:
    """Which player each node is, or is one of."""
    nodes, groups = node_players(explanation), explanation.players.groups
    assert nodes is not None
    if groups is None or "node" in explanation.players.geometry:
        return {node: i for i, node in enumerate(nodes.tolist())}
    return {node: i for i, own in enumerate(groups) for node in own.tolist()}


def _draw_hulls(ax: Axes, explanation: Credit, where: node_link.Part, cmap: Colormap, norm: Normalize) -> None:
    """A pale patch behind the nodes of each of the strongest motifs, in the colour of its score; large ones first."""
    members: dict[int, set[int]] = {}
    for edge, player in zip(where.edges, where.owner, strict=True):
        if player >= 0:
            members.setdefault(player, set()).update(edge)
    strong = [player for player in explanation.order().tolist() if player in members][:HULLS]
    for player in sorted(strong, key=lambda player: -len(members[player])):
        colour = np.array(cmap(norm(float(explanation.scores[player]))))
        node_link.draw_hull(ax, where, sorted(members[player]), to_hex(tuple((1 - 0.35 * (1 - colour[:3])).tolist())))


def _deleted(explanation: Credit) -> list[bool] | None:
    """Of a counterfactual, whether each player is taken out."""
    gone = explanation.parts.get("deleted")
    return None if gone is None or len(gone) != len(explanation.players) else gone.bool().tolist()
