"""Players on a circle: their credit in the nodes, what pairs add together in the lines between them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from explain.credit import Credit
from explain.plot import node_link
from explain.plot.graph import LINES
from explain.plot.interactions import pairs_of, taking_part
from explain.plot.style import axes, centred, colour_bar, ink_on, note, title, units


def network(explanation: Credit, ax: Axes | None = None, k: int = 12, pairs: int = 30) -> Axes:
    """Each player a node in the colour of its credit; each pair a line in the colour of its interaction, and as wide.

    Credit and interactions have a scale each. What is below zero is dashed. The ``k`` players that take most part in
    any interaction are shown, and the ``pairs`` strongest pairs of them.

    Raises:
        ValueError: no ``parts["interactions"] [P, P]``.

    >>> import torch
    >>> from explain import Explanation, Players
    >>> pairs = torch.tensor([[1.0, -2.0], [-2.0, 0.5]])
    >>> why = Explanation(torch.ones(2), Players("nodes", torch.arange(2)), 0.0, parts={"interactions": pairs})
    >>> [text.get_text() for text in network(why).texts]
    ['node 0', 'node 1']
    """
    matrix = pairs_of(explanation).numpy()
    nodes = taking_part(explanation, k).tolist()
    ax = axes(ax, (7.2, 5.0))
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(nodes)) / max(len(nodes), 1)
    places = dict(zip(nodes, np.stack([np.cos(angles), np.sin(angles)], 1), strict=True))
    every = [(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :] if matrix[a, b]]
    edges = sorted(every, key=lambda pair: -abs(matrix[pair]))[:pairs]
    names = {node: explanation.players.names[node] for node in nodes}
    where = node_link.part(ax, edges, range(len(edges)), nodes, names, places=places)
    found = np.array([matrix[pair] for pair in where.edges])
    own, between = centred(explanation.scores[nodes]), centred(matrix[pair] for pair in every)
    if len(found):
        widths = 0.6 + 4.4 * np.abs(found) / (between.vmax or 1.0)
        colours, below = LINES(between(found)), (found < 0).tolist()
        node_link.draw_scored(ax, where, where.edges, colours, widths, arrows=False, dashed=below)
    scores = explanation.scores[where.nodes].numpy()
    faces = LINES(own(scores))
    node_link.draw_nodes(ax, where, where.nodes, faces, dashed=(scores < 0).tolist())
    inks = {node: ink_on(face) for node, face in zip(where.nodes, faces, strict=True)}
    node_link.draw_labels(ax, where, where.nodes, (), inks)
    colour_bar(ax, between, f"lines: {units(explanation, 'interaction')}", LINES, dashed=True)
    colour_bar(ax, own, f"nodes: {units(explanation)}", LINES, dashed=True)
    node_link.finish(ax)
    title(ax, explanation)
    told = [f"{len(nodes)} of {len(explanation.players)} players"] if len(nodes) < len(explanation.players) else []
    told += [f"the strongest {len(edges)} of {len(every)} pairs"] if len(edges) < len(every) else []
    if told:
        note(ax, ", ".join(told), 14)
    return ax
