"""Attention maps: a matrix, or edges as wide as their weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from torch import Tensor

from explain.conversion import node_labels
from explain.credit import Credit
from explain.plot import node_link
from explain.plot.attention_maps import attention_maps
from explain.plot.layout import by_strength, strongest
from explain.plot.positions import Places, known, part_of, type_legend
from explain.plot.style import SEQUENTIAL, axes, colour_bar, heading, ink_on, note, question, short

EDGES = LinearSegmentedColormap.from_list("attention", ["#d9d9d9", "#9e9ac8", "#54278f", "#2d004b"])


def attention(
    weights: Tensor | Credit,
    ax: Axes | None = None,
    layer: int = 0,
    edge_index: Tensor | None = None,
    focus: Tensor | None = None,
    names: Sequence[str] = (),
    rows: Sequence[str] = (),
    title: str = "",
    max_nodes: int = 40,
    max_edges: int = 90,
    position: Places | None = None,
) -> Axes:
    """Attention averaged over heads: who looks (rows) at what (columns), or edges into the node that looks.

    Args:
        weights: ``[..., queries, keys]``, or ``[E]`` or ``[E, heads]`` along ``edge_index [2, E]``; or an explanation,
            whose map of this ``layer`` is drawn, on a graph near the explained nodes only, over an image as
            `attention_maps` does.
        ax: where to draw.
        layer: which map of an explanation.
        edge_index: sender and receiver of each weight; self-loops are told in the node's size.
        focus: explained nodes, ringed; the queries marked in a matrix.
        names: one label a key, shown up to 30 of them; of a square matrix the queries' as well.
        rows: one label a query, as of a translation: its words beside those of the source.
        title: above the picture.
        max_nodes: a larger graph is cut to the strongest edges and their ways to the explained nodes.
        max_edges: only the strongest are drawn wide.
        position: of an explanation on a graph, ``{node: (x, y)}``: these nodes, there; see `graph`.

    Raises:
        ValueError: weights of another shape, other labels than rows and columns, or an explanation without maps.
    """
    of = weights if isinstance(weights, Credit) else None
    if isinstance(weights, Credit):
        if f"attention.{layer}.grid" in weights.parts:
            return attention_maps(weights, ax, maps=(layer,))
        title = title or " · ".join(filter(None, [weights.method, _layer_of(weights, layer), question(weights)]))
        weights, edge_index, focus = _map_of(weights, layer)
    ax = axes(ax, (5.4, 4.8) if edge_index is None else (7.0, 4.8))
    heading(ax, title)
    if edge_index is not None:
        if weights.dim() not in (1, 2) or len(weights) != edge_index.size(1):
            columns = edge_index.size(1)
            raise ValueError(f"weights must be [{columns}] or [{columns}, heads], got {list(weights.shape)}")
        values = weights.detach().cpu().double().reshape(len(weights), -1).mean(1).numpy()
        return _on_edges(ax, values, edge_index, focus, (max_nodes, max_edges), of, position)
    if weights.dim() < 2:
        raise ValueError(f"weights must be [..., queries, keys], or come with an edge_index; got {list(weights.shape)}")
    for given, count, what in ((names, weights.size(-1), "names"), (rows, weights.size(-2), "rows")):
        if given and len(given) != count:
            raise ValueError(f"{what} must be {count} labels, got {len(given)}")
    return _matrix(ax, weights.detach().cpu().double(), focus, names, rows)


def _layer_of(explanation: Credit, index: int) -> str:
    """What the layer is called in the network whose map this is; the map's number where that is not known."""
    layers = explanation.checks.get("layers", [])
    return f"layer {layers[index]}" if index < len(layers) else f"map {index}"


def _map_of(explanation: Credit, layer: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Weights, edges and explained nodes of one captured map; edges outside the players' context are left out.

    Raises:
        ValueError: there is no such map.
    """
    parts, geometry = explanation.parts, explanation.players.geometry
    if f"attention.{layer}" not in parts:
        known = ", ".join(name for name in parts if name.startswith("attention.")) or "none"
        raise ValueError(f"the explanation has no attention map {layer}; its maps: {known}")
    weights, edge_index = parts[f"attention.{layer}"], parts.get(f"attention.{layer}.edge_index")
    if edge_index is not None and "edge_index" in geometry:
        near = torch.cat([geometry["edge_index"].flatten(), geometry["focus"].flatten()])
        inside = torch.isin(edge_index, near).all(0)
        weights, edge_index = weights[inside], edge_index[:, inside]
    return weights, edge_index, geometry.get("focus")


def _matrix(ax: Axes, weights: Tensor, focus: Tensor | None, names: Sequence[str], rows: Sequence[str]) -> Axes:
    values = weights.reshape(-1, *weights.shape[-2:]).mean(0).numpy()
    uniform = 1 / max(values.shape[1], 1)
    norm = Normalize(0, max(2 * uniform, float(values.max(initial=0))))  # what is nearly uniform looks so
    ax.imshow(values, cmap=SEQUENTIAL, norm=norm, aspect="auto", interpolation="nearest")
    ax.set(xlabel="key (looked at)", ylabel="query (looks)")
    if names and len(names) <= 30:
        ax.set_xticks(range(len(names)), [short(name, 16) for name in names], rotation=90, fontsize="x-small")
    rows = rows or (names if values.shape[0] == values.shape[1] else ())
    if rows and len(rows) <= 30:
        ax.set_yticks(range(len(rows)), [short(name, 16) for name in rows], fontsize="x-small")
    for row in node_link.ids(focus) if focus is not None else []:
        ax.axhspan(row - 0.5, row + 0.5, fill=False, edgecolor=node_link.RING, linewidth=1.5)
    bar = colour_bar(ax, norm, "attention, mean over heads (white line: uniform)", SEQUENTIAL)
    bar.ax.axhline(uniform, color="white", linewidth=1.5)
    return ax


def _on_edges(
    ax: Axes, values: np.ndarray, edge_index: Tensor, focus: Tensor | None, most: tuple[int, int],
    of: Credit | None, position: Places | None,
) -> Axes:  # fmt: skip
    edges = [(source, target) for source, target in edge_index.t().tolist()]
    explained = node_link.ids(focus) if focus is not None else []
    everyone = {node for edge in edges for node in edge} | set(explained)
    named = map(str, everyone) if of is None else node_labels(of, everyone)
    fits = node_link.room_for(ax, named, most[0])
    kept = everyone
    if len(everyone) > fits:
        kept = strongest(edges, by_strength(edges, values.tolist()), explained, fits)
    if of is None:
        where = node_link.part(ax, edges, range(len(edges)), kept)
    else:
        kept = kept if position is None else known(of, edges, position)
        where = part_of(ax, of, edges, list(range(len(edges))), kept, position, 0)
    norm = Normalize(0, float(values.max()) if len(values) else 1.0)
    scored = [i for i, (source, target) in enumerate(where.edges) if source != target]
    wide = sorted(scored, key=lambda i: -values[where.owner[i]])[: most[1]]
    node_link.draw_lines(ax, where, [where.edges[i] for i in scored])
    if wide:
        found = values[[where.owner[i] for i in wide]]
        widths = 0.4 + 3.2 * found / (norm.vmax or 1.0)
        node_link.draw_scored(ax, where, [where.edges[i] for i in wide], EDGES(norm(found)), widths)
    own = dict.fromkeys(where.nodes, 0.0)
    for (source, target), i in zip(where.edges, where.owner, strict=True):
        own[source] += float(values[i]) if source == target else 0.0
    node_link.draw_ring(ax, where, explained)
    faces = EDGES(norm(np.array([own[node] for node in where.nodes])))
    node_link.draw_nodes(ax, where, where.nodes, faces)
    inks = {node: ink_on(face) for node, face in zip(where.nodes, faces, strict=True)}
    node_link.draw_labels(ax, where, where.nodes, explained, inks)
    colour_bar(ax, norm, "attention, mean over heads (a node's colour: to itself)", EDGES)
    node_link.finish(ax)
    high = 0.0 if of is None else type_legend(ax, of, where)
    told = [f"{len(kept)} of {len(everyone)} nodes"] if len(kept) < len(everyone) else []
    told += [f"the strongest {len(wide)} of {len(scored)} edges wide"] if len(wide) < len(scored) else []
    if told:
        note(ax, ", ".join(told), 6 + high)
    return ax
