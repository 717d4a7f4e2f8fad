"""One layout of a graph for all answers about it, in numbers that inline SVG and the workbench draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from explain.conversion import context, named_nodes, node_ids, node_labels, node_players, undirected
from explain.explanation import Explanation
from explain.plot.layout import layout, strongest
from explain.plot.positions import focus_of
from explain.report.scenes import NOBODY, Scene, ranked

WIDTH, HEIGHT, MARGIN = 720.0, 480.0, 34.0
MOST = 90  # nodes
MOST_EDGES = 400  # lines; beyond the strongest only
Edge = tuple[int, int, int]  # source, target, and which of several between them


def on_graph(one: Explanation) -> bool:
    """Whether its players are seen on a graph."""
    players = one.players
    if "edge_index" not in players.geometry or (players.index.dim() > 1 and players.kind != "edges"):
        return False
    return players.kind in ("edges", "motifs", "relations") or node_players(one) is not None


def graph_scene(answers: Sequence[Explanation]) -> Scene:
    """Nodes, then edges: where they lie in a drawing of ``WIDTH`` by ``HEIGHT``, and whose they are.

    A larger graph is cut to the strongest players of all answers and the ways from them to the explained nodes.
    """
    both = all(undirected(one) for one in answers if one.players.kind == "edges")
    keyed = [_edges(one, both) for one in answers]
    edges = list(dict.fromkeys(edge for found in keyed for edge in found if edge[0] != edge[1]))
    everyone = sorted({node for one in answers for node in node_ids(one, context(one)[0]).tolist()})
    focus = sorted({node for one in answers for node in focus_of(one)})
    kept = _kept(answers, keyed, edges, everyone, focus)
    edges = [edge for edge in edges if edge[0] in kept and edge[1] in kept]
    cut = _strongest(edges, answers, keyed)
    nodes = sorted(kept)
    place = _places(nodes, edges)
    radius = float(np.clip(110 / len(nodes) ** 0.5, 8, 16)) if nodes else 16.0
    owners = tuple(_owners(one, found, nodes, cut) for one, found in zip(answers, keyed, strict=True))
    told = [f"{len(nodes)} of {len(everyone)} nodes" if len(nodes) < len(everyone) else ""]
    told += [f"{len(cut)} of {len(edges)} lines" if len(cut) < len(edges) else ""]
    names = _names(answers[0], nodes)
    drawing = {
        "nodes": [[name, *place[node], node in set(focus)] for node, name in zip(nodes, names, strict=True)],
        "edges": _lines(cut, nodes, both),
        "radius": round(radius, 1),
        "arrows": not both,
        "size": [WIDTH, HEIGHT],
    }
    return Scene("graph", tuple(answers), owners, drawing, " and ".join(filter(None, told)))


def _names(one: Explanation, nodes: list[int]) -> list[str]:
    """What nodes are called; of several types, with their type."""
    if "node_names" in one.target:
        return node_labels(one, nodes)
    return [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in named_nodes(one, nodes)]


def _edges(one: Explanation, both: bool) -> dict[Edge, int]:
    """Each line of the drawing with its player, -1 for none; one line for both directions where ``both``."""
    columns, owner = context(one)
    counts: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    found: dict[Edge, int] = {}
    for (source, target), player in zip(columns.t().tolist(), owner, strict=True):
        pair = (min(source, target), max(source, target)) if both else (source, target)
        seen = counts[pair]
        if both and player in seen:
            continue
        found[*pair, len(seen)] = player
        seen.append(player)
    return found


def _kept(
    answers: Sequence[Explanation], keyed: Sequence[dict[Edge, int]], edges: Sequence[Edge], everyone: list[int],
    focus: list[int],
) -> set[int]:  # fmt: skip
    if len(everyone) <= MOST:
        return set(everyone)
    ends: list[dict[int, tuple[int, ...]]] = []
    for one, found in zip(answers, keyed, strict=True):
        nodes = node_players(one)
        if nodes is not None:
            ends.append({i: (node,) for i, node in enumerate(nodes.tolist())})
        else:
            ends.append({player: edge[:2] for edge, player in found.items() if player >= 0})
    groups = [ends[i][player] for i, player in ranked(answers) if player in ends[i]]
    return strongest([edge[:2] for edge in edges], groups, focus, MOST)


def _strongest(edges: list[Edge], answers: Sequence[Explanation], keyed: Sequence[dict[Edge, int]]) -> list[Edge]:
    """At most so many lines, those of the strongest players first, in their own order."""
    if len(edges) <= MOST_EDGES:
        return edges
    size: defaultdict[Edge, float] = defaultdict(float)
    for one, found in zip(answers, keyed, strict=True):
        largest = float(one.scores.abs().max()) if len(one.scores) else 0.0
        for edge, player in found.items():
            if player >= 0:
                size[edge] = max(size[edge], abs(float(one.scores[player])) / (largest or 1.0))
    chosen = set(sorted(edges, key=lambda edge: -size[edge])[:MOST_EDGES])
    return [edge for edge in edges if edge in chosen]


def _places(nodes: list[int], edges: Sequence[Edge]) -> dict[int, tuple[float, float]]:
    where = layout(nodes, [edge[:2] for edge in edges])
    points = np.array([where[node] for node in nodes]).reshape(-1, 2)
    if not len(points):
        return {}
    low, high = points.min(0), points.max(0)
    reach = np.where(high - low > 1e-9, high - low, 1.0)
    room = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    scaled = MARGIN + room * np.where(high - low > 1e-9, (points - low) / reach, 0.5)
    return {node: (round(float(x), 1), round(float(y), 1)) for node, (x, y) in zip(nodes, scaled, strict=True)}


def _owners(one: Explanation, found: dict[Edge, int], nodes: list[int], edges: Sequence[Edge]) -> tuple[int, ...]:
    """The player of each node, then of each line."""
    players = node_players(one)
    if players is None:
        return (*[NOBODY] * len(nodes), *(found.get(edge, NOBODY) for edge in edges))
    player = {node: i for i, node in enumerate(players.tolist())}
    return (*(player.get(node, NOBODY) for node in nodes), *[NOBODY] * len(edges))


def _lines(edges: Sequence[Edge], nodes: Sequence[int], both: bool) -> list[list[float]]:
    """Each line by the places of its nodes in ``nodes``, and how far it bends, to be told apart from its company."""
    at = {node: i for i, node in enumerate(nodes)}
    pairs = set() if both else {(source, target) for source, target, _ in edges}
    return [
        [at[source], at[target], round((0.12 if (target, source) in pairs else 0.0) + 0.16 * which, 2)]
        for source, target, which in edges
    ]


def path(drawing: dict, edge: Sequence[float]) -> str:
    """A line as SVG draws it, from circle to circle; the workbench draws it anew where a node is moved.

    >>> nodes = [["0", 10.0, 20.0, True], ["1", 110.0, 20.0, False]]
    >>> path({"nodes": nodes, "radius": 10.0}, [0, 1, 0.0])
    'M20.0 20.0L100.0 20.0'
    """
    (_, x, y, _), (_, u, v, _) = drawing["nodes"][int(edge[0])], drawing["nodes"][int(edge[1])]
    length = float(np.hypot(u - x, v - y)) or 1.0
    dx, dy, radius = (u - x) / length, (v - y) / length, min(drawing["radius"], length / 2)
    start, end = f"M{x + radius * dx:.1f} {y + radius * dy:.1f}", f"{u - radius * dx:.1f} {v - radius * dy:.1f}"
    if not edge[2]:
        return f"{start}L{end}"
    side = edge[2] * length
    return f"{start}Q{(x + u) / 2 - side * dy:.1f} {(y + v) / 2 + side * dx:.1f} {end}"
