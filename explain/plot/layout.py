"""Where the nodes of a picture lie, and which part of a large graph fits on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

import networkx as nx
import numpy as np

Edge: TypeAlias = tuple[int, int]


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
