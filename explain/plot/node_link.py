"""Nodes and edges on a picture: their places, sizes, marks and names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from explain.plot.layout import Edge, layout
from explain.plot.style import DASHED, FAINT, INK, SMALLEST, inches, short

RING = "#e69f00"
AROUND = 2.1  # size of a ring, of its node's
ROOMY = 4  # letters up to which a name stands in its circle; longer ones stand below
LETTER = 0.64  # a letter's width, of its height
USUAL = 27.0  # square inches of a picture that the sizes below are for


@dataclass(frozen=True)
class Part:
    """The part of a graph that is shown: node ids, edges by column with their player (-1 for none), and its place.

    ``labels``: what each node is called; ``marks``: its marker, a circle where there is none; ``share``: how large the
    picture is, of the usual size.
    """

    nodes: list[int]
    edges: list[Edge]
    owner: list[int]
    position: dict[int, np.ndarray]
    labels: Mapping[int, str] = field(default_factory=dict)
    marks: Mapping[int, Any] = field(default_factory=dict)
    share: float = 1.0

    @property
    def letters(self) -> int:
        """Of the longest name that stands in a node."""
        return max((len(name) for name in self.labels.values() if len(name) <= ROOMY), default=1)

    @property
    def diameter(self) -> float:
        """Of a node in points: smaller where there are many, and always with room for the name in it."""
        free = (9000 * self.share / (len(self.nodes) + 1)) ** 0.5
        return float(np.clip(free, _least(self.letters), 20.5))

    @property
    def node_size(self) -> float:
        """Points squared."""
        return self.diameter**2

    @property
    def font_size(self) -> float:
        """The longest name in a circle fits into it."""
        return float(np.clip((self.diameter - 3) / (LETTER * max(self.letters, 2)), SMALLEST, 9))


def room_for(ax: Axes, labels: Iterable[str], most: int) -> int:
    """How many nodes with such names a picture of this size has room for, ``most`` at most."""
    letters = max((len(name) for name in labels if len(name) <= ROOMY), default=1)
    width, height = inches(ax)
    return max(6, min(most, int(72 * width * 72 * height / (2.1 * _least(letters)) ** 2)))


def _least(letters: int) -> float:
    """Points across of a node with room for so many letters."""
    return SMALLEST * LETTER * max(letters, 2) + 3


def part(
    ax: Axes,
    edges: Sequence[Edge],
    owner: Sequence[int],
    nodes: Iterable[int],
    labels: Mapping[int, str] | None = None,
    marks: Mapping[int, Any] | None = None,
    places: Mapping[int, np.ndarray] | None = None,
    seed: int = 0,
) -> Part:
    """These nodes, the edges between them, and a layout where no places are given."""
    kept = sorted(set(nodes))
    inside = set(kept)
    shown = [i for i, (source, target) in enumerate(edges) if source in inside and target in inside]
    between = [edges[i] for i in shown]
    position = layout(kept, between, seed) if places is None else {node: places[node] for node in kept}
    width, height = inches(ax)
    named = {node: str(node) for node in kept} if labels is None else dict(labels)
    return Part(kept, between, [owner[i] for i in shown], position, named, marks or {}, width * height / USUAL)


def draw_nodes(
    ax: Axes,
    where: Part,
    nodes: Sequence[int],
    face: Any,
    size: Any = None,
    edgecolors: str = INK,
    linewidths: float = 0.8,
    dashed: Sequence[bool] = (),
) -> None:
    """Marks with a thin dark outline over the edges; ``dashed`` outlines say minus where there is no colour."""
    sizes = np.broadcast_to(where.node_size if size is None else np.asarray(size, dtype=float), len(nodes))
    alike: defaultdict[Any, list[int]] = defaultdict(list)
    for i, node in enumerate(nodes):
        alike[where.marks.get(node, "o"), bool(len(dashed) and dashed[i])].append(i)
    for (mark, dash), chosen in alike.items():
        places = np.array([where.position[nodes[i]] for i in chosen])
        faces = face if isinstance(face, str) else [tuple(face[i]) for i in chosen]
        x, y = places.T
        drawn = ax.scatter(x, y, sizes[chosen], facecolors=faces, marker=mark, edgecolors=edgecolors, zorder=3)
        drawn.set_linewidth(1.6 if dash else linewidths)
        drawn.set_linestyle([DASHED] if dash else "solid")


def draw_ring(ax: Axes, where: Part, focus: Iterable[int]) -> None:
    """An orange ring around each explained node."""
    shown = [node for node in focus if node in where.position]
    draw_nodes(ax, where, shown, "none", where.node_size * AROUND, edgecolors=RING, linewidths=2.4)


def draw_labels(
    ax: Axes, where: Part, nodes: Iterable[int], focus: Iterable[int], colours: Mapping[int, str] | None = None
) -> None:
    """Names in the middle of their circles, longer ones below them, and below the rings of ``focus``."""
    ringed = set(focus)
    for node in nodes:
        place, text = tuple(where.position[node]), where.labels[node]
        inside = len(text) <= ROOMY
        colour = (colours or {}).get(node, INK) if inside else INK
        below = where.diameter / 2 * (AROUND**0.5 if node in ringed else 1) + 1
        drawn = ax.annotate(
            short(text, 24), place, (0, 0 if inside else -below), textcoords="offset points",
            ha="center", va="center" if inside else "top", fontsize=where.font_size if inside else max(SMALLEST, 7),
            color=colour, zorder=4, annotation_clip=False,
        )  # fmt: skip
        if not inside:
            drawn.set_path_effects([withStroke(linewidth=1.8, foreground="white", alpha=0.85)])


def draw_lines(ax: Axes, where: Part, edges: Iterable[Edge]) -> None:
    """Faint context, one line for both directions."""
    graph = nx.Graph(list(edges))
    lines = nx.draw_networkx_edges(graph, where.position, ax=ax, edge_color=FAINT, width=0.7, arrows=False)
    if graph.number_of_edges():
        lines.set_zorder(0)


def draw_scored(
    ax: Axes,
    where: Part,
    edges: Sequence[Edge],
    colours: np.ndarray,
    widths: np.ndarray,
    arrows: bool = True,
    dashed: Sequence[bool] = (),
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
            if len(dashed) and dashed[i]:
                patch.set_linestyle(DASHED)


def strike(ax: Axes, where: Part, edges: Sequence[Edge], nodes: Sequence[int] = (), arrows: bool = True) -> None:
    """A cross over each edge, where it is farthest from nodes, and over each node, that was taken out."""
    crosses = [where.position[node] for node in nodes]
    for edge, bend in zip(edges, _bends(edges) if arrows else [0.0] * len(edges), strict=True):
        crosses.append(_free_place(where, edge, bend))
    if crosses:
        x, y = np.array(crosses).T
        for colour, width in (("white", 4.0), (INK, 1.8)):
            ax.scatter(x, y, s=64, c=colour, marker="x", linewidths=width, zorder=5)


def _free_place(where: Part, edge: Edge, bend: float) -> np.ndarray:
    """Of a few places on an edge, the middle first, the one farthest from every node."""
    start, end = (where.position[node] for node in edge)
    along = (end - start)[None]
    share = np.array([0.5, 0.42, 0.58, 0.34, 0.66])[:, None]
    aside = 2 * bend * share * (1 - share) * np.stack([along[:, 1], -along[:, 0]], 1)
    places = start + share * along + aside
    nodes = np.array(list(where.position.values()))
    gaps = np.linalg.norm(places[:, None] - nodes[None], axis=-1).min(1)
    return places[int((gaps > 0.12).argmax())] if (gaps > 0.12).any() else places[int(gaps.argmax())]


def draw_hull(ax: Axes, where: Part, nodes: Sequence[int], colour: str) -> None:
    """A round patch behind a group of nodes."""
    points = np.array([where.position[node] for node in nodes])
    if len(points) > 2:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # on a line
            points = points[np.lexsort(points.T)][[0, -1]]
    style: dict[str, Any] = {"linewidth": 1.9 * where.diameter, "joinstyle": "round", "capstyle": "round"}
    ax.add_patch(Polygon(points, facecolor=colour, edgecolor=colour, zorder=-1, **style))


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
