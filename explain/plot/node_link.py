"""Which part of a graph fits on a picture, where its nodes lie, and how nodes and edges are drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from explain.conversion import Node
from explain.plot.style import FAINT, INK

RING = "#e69f00"
Edge = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """The part of a graph that is shown: node ids, edges by column with their player (-1 for none), and its place."""

    nodes: list[int]
    edges: list[Edge]
    owner: list[int]
    position: dict[int, np.ndarray]

    @property
    def node_size(self) -> float:
        """Points squared: smaller where there are many."""
        return float(np.clip(9000 / (len(self.nodes) + 1), 90, 420))

    @property
    def font_size(self) -> float:
        """Fits three digits into a node."""
        return float(np.clip(0.42 * self.node_size**0.5, 5, 9))


def part(edges: Sequence[Edge], owner: Sequence[int], nodes: Iterable[int], seed: int = 0) -> Part:
    """These nodes, the edges between them, and a layout."""
    kept = sorted(set(nodes))
    inside = set(kept)
    shown = [i for i, (source, target) in enumerate(edges) if source in inside and target in inside]
    between = [edges[i] for i in shown]
    return Part(kept, between, [owner[i] for i in shown], layout(kept, between, seed))


def layout(nodes: Sequence[int], edges: Sequence[Edge], seed: int = 0) -> dict[int, np.ndarray]:
    """Kamada-Kawai where the graph is small, else a seeded spring layout; the same graph, the same place.

    Its longest direction lies across, and nodes that would overlap are pushed apart.
    """
    points = _points(tuple(nodes), tuple(edges), seed)
    return dict(zip(nodes, points.copy(), strict=True))


@lru_cache(maxsize=64)  # a report draws the same graph once an explanation
def _points(nodes: tuple[int, ...], edges: tuple[Edge, ...], seed: int) -> np.ndarray:
    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edge for edge in edges if edge[0] != edge[1])
    if len(nodes) < 2:
        return np.zeros((len(nodes), 2))
    first, *others = sorted(nx.connected_components(graph), key=len, reverse=True)
    rim = min(first, key=lambda node: (graph.degree(node), node))
    graph.add_edges_from((rim, min(other)) for other in others)  # unseen threads: what hangs alone stays near
    if len(nodes) <= 100:
        places = nx.kamada_kawai_layout(graph)
    else:
        places = nx.spring_layout(graph, seed=seed, k=2.0 / len(nodes) ** 0.5, iterations=120)
    points = np.array([places[node] for node in nodes])
    points = points - points.mean(0)
    return _apart(points @ np.linalg.svd(points, full_matrices=False)[2].T, 0.7 / len(nodes) ** 0.5)


def _apart(points: np.ndarray, gap: float) -> np.ndarray:
    """Points in the box from -1 to 1, pairs closer than ``gap`` pushed apart along the line between them."""
    points = points - (points.max(0) + points.min(0)) / 2
    reach = np.abs(points).max(0)
    points = points / np.maximum(reach, 0.4 * reach.max() or 1.0)  # fills the picture, but a line stays a line
    for _ in range(50):
        between = points[:, None] - points[None]
        distance = np.linalg.norm(between, axis=-1)
        close = (distance < gap) & ~np.eye(len(points), dtype=bool)
        if not close.any():
            break
        push = np.where(close, (gap - distance) / np.maximum(distance, 1e-9), 0.0)
        points = points + 0.5 * (push[..., None] * between).sum(1)
    return points


def strongest(edges: Sequence[Edge], ranked: Iterable[Sequence[int]], focus: Sequence[int], most: int) -> set[int]:
    """The explained nodes, then each ranked group of nodes with its shortest way to them, while there is room."""
    kept = set(focus)
    around = nx.Graph(list(edges))
    sources = [node for node in focus if node in around]
    ways = nx.multi_source_dijkstra_path(around, sources, weight=None) if sources else {}
    for group in ranked:
        new = kept.union(group, *(ways.get(node, ()) for node in group))
        if len(new) > most and kept:
            break
        kept = new
    return kept


def by_strength(edges: Sequence[Edge], strength: Sequence[float]) -> list[Edge]:
    """Edges, the strongest first."""
    return [edges[i] for i in np.argsort(-np.asarray(strength, dtype=float), kind="stable").tolist()]


def draw_nodes(ax: Axes, where: Part, nodes: Sequence[int], face: Any, size: Any = None, **style: Any) -> None:
    """Circles with a thin dark outline, over the edges."""
    if not nodes:
        return
    drawn = nx.draw_networkx_nodes(
        nx.empty_graph(nodes), where.position, nodelist=list(nodes), ax=ax, node_color=face,
        node_size=where.node_size if size is None else size, edgecolors=style.pop("edgecolors", INK),
        linewidths=style.pop("linewidths", 0.8), **style,
    )  # fmt: skip
    drawn.set_zorder(3)


def draw_ring(ax: Axes, where: Part, focus: Iterable[int]) -> None:
    """An orange ring around each explained node."""
    shown = [node for node in focus if node in where.position]
    draw_nodes(ax, where, shown, "none", where.node_size * 2.1, edgecolors=RING, linewidths=2.4)


def label(node: Node) -> str:
    """What stands in a node's circle: its number, under its type where there are types."""
    return f"{node[0]}\n{node[1]}" if isinstance(node, tuple) else str(node)


def draw_labels(ax: Axes, where: Part, labels: dict[int, str], colours: dict[int, str] | None = None) -> None:
    """Node names in the middle of their circles."""
    for node, text in labels.items():
        x, y = where.position[node]
        colour = (colours or {}).get(node, INK)
        ax.text(x, y, text, ha="center", va="center", fontsize=where.font_size, color=colour, zorder=4, clip_on=False)


def draw_lines(ax: Axes, where: Part, edges: Iterable[Edge]) -> None:
    """Faint context, one line for both directions."""
    graph = nx.Graph(list(edges))
    lines = nx.draw_networkx_edges(graph, where.position, ax=ax, edge_color=FAINT, width=0.7, arrows=False)
    if graph.number_of_edges():
        lines.set_zorder(0)


def draw_scored(
    ax: Axes, where: Part, edges: Sequence[Edge], colours: np.ndarray, widths: np.ndarray, arrows: bool = True
) -> None:
    """Edges in their own colours and widths, the widest last; edges between the same nodes bend apart."""
    bends = _bends(edges) if arrows else [0.0] * len(edges)
    order = np.argsort(widths, kind="stable").tolist()
    for bend in sorted(set(bends)):
        chosen = [i for i in order if bends[i] == bend]
        patches = nx.draw_networkx_edges(
            nx.DiGraph([edges[i] for i in chosen]), where.position, ax=ax, edgelist=[edges[i] for i in chosen],
            edge_color=colours[chosen], width=widths[chosen].tolist(), arrows=True, arrowstyle="-|>" if arrows else "-",
            arrowsize=(5 + 2.2 * widths[chosen]).tolist(), node_size=where.node_size,
            connectionstyle=f"arc3,rad={bend}",
        )  # fmt: skip
        for i, patch in zip(chosen, patches, strict=True):
            patch.set_zorder(1 + float(widths[i]) / (float(widths.max()) + 1e-9))


def finish(ax: Axes) -> None:
    """No frame, room for the rings."""
    ax.set_axis_off()
    for limits, grow in ((ax.get_xlim(), ax.set_xlim), (ax.get_ylim(), ax.set_ylim)):
        grow(min(limits[0], -1.15), max(limits[1], 1.15))


def ids(tensor: Tensor) -> list[int]:
    """Node ids as plain numbers."""
    return tensor.cpu().flatten().tolist()


def _bends(edges: Sequence[Edge]) -> list[float]:
    """0 for an edge alone between its nodes; with company, each its own arc."""
    company: defaultdict[frozenset[int], set[Edge]] = defaultdict(set)
    for edge in edges:
        company[frozenset(edge)].add(edge)
    seen: defaultdict[Edge, int] = defaultdict(int)
    bends = []
    for edge in edges:
        first = 0.12 if len(company[frozenset(edge)]) > 1 else 0.0
        bends.append(first + 0.16 * seen[edge])
        seen[edge] += 1
    return bends
