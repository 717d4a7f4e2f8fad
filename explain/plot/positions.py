"""The nodes of an explanation's picture: which are shown, where, as what; the same for several explanations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from explain.conversion import Node, context, named_nodes, node_ids, node_labels, node_players
from explain.credit import Credit
from explain.plot import node_link
from explain.plot.layout import Edge, by_strength, layout, strongest
from explain.plot.marks import legend_below, markers, samples

Places: TypeAlias = Mapping[Node, ArrayLike]  # by number, or (type, number) where there are types


def positions(*explanations: Credit, max_nodes: int = 40, seed: int = 0) -> dict[Node, np.ndarray]:
    """Places of the nodes of several explanations' pictures: each of them drawn with ``position=`` has every node at
    the same place. Of a large graph the strongest players of each are there.

    Raises:
        ValueError: no explanations, or players that do not live on a graph.

    >>> import torch
    >>> from explain import Explanation, Players
    >>> players = Players("nodes", torch.arange(2), geometry={"edge_index": torch.tensor([[0, 1], [2, 2]])})
    >>> list(positions(Explanation(torch.ones(2), players, 0.0)))
    [0, 1, 2]
    """
    if not explanations:
        raise ValueError("positions are those of explanations on a graph: give one or more")
    kept: set[int] = set()
    edges: dict[Edge, None] = {}
    for explanation in explanations:
        found, owner = edges_of(explanation)
        kept |= shown_nodes(explanation, found, owner, max_nodes)
        edges |= dict.fromkeys(found)
    nodes = sorted(kept)
    places = layout(nodes, [edge for edge in edges if kept.issuperset(edge)], seed)
    return dict(zip(named_nodes(explanations[0], nodes), places.values(), strict=True))


def edges_of(explanation: Credit) -> tuple[list[Edge], list[int]]:
    """The drawn graph's edges, and for each its player, -1 for none; see `context`."""
    columns, owner = context(explanation)
    return [(source, target) for source, target in columns.t().tolist()], owner


def focus_of(explanation: Credit) -> list[int]:
    """The explained nodes."""
    focus = explanation.players.geometry.get("focus")
    return [] if focus is None else node_link.ids(focus)


def everyone(explanation: Credit, edges: Iterable[Edge]) -> list[int]:
    """Every node that a picture of the whole graph would show."""
    ends = {node for edge in edges for node in edge}
    return sorted(ends | set(node_ids(explanation, context(explanation)[0]).tolist()))


def shown_nodes(explanation: Credit, edges: list[Edge], owner: list[int], most: int) -> set[int]:
    """All nodes of a small graph; else the explained ones, and the strongest players with their ways to these."""
    found = everyone(explanation, edges)
    if len(found) <= most:
        return set(found)
    nodes, focus = node_players(explanation), focus_of(explanation)
    if nodes is not None:
        return strongest(edges, [[node] for node in nodes[explanation.order()].tolist()], focus, most)
    strength = [abs(float(explanation.scores[player])) if player >= 0 else 0.0 for player in owner]
    return strongest(edges, by_strength(edges, strength), focus, most)


def room(ax: Axes, explanation: Credit, edges: Iterable[Edge], most: int) -> int:
    """How many nodes with such names there is room for, ``most`` at most."""
    return node_link.room_for(ax, node_labels(explanation, everyone(explanation, edges)), most)


def part_of(
    ax: Axes, explanation: Credit, edges: list[Edge], owner: list[int], kept: Iterable[int], position: Places | None,
    seed: int,
) -> node_link.Part:  # fmt: skip
    """These nodes by name, with a marker for each type, where ``position`` says or where a layout puts them."""
    nodes = sorted(kept)
    labels = dict(zip(nodes, node_labels(explanation, nodes), strict=True))
    kinds = types_of(explanation, nodes)
    by_type = markers(list(node_types(explanation)))
    marks = {node: by_type[kind] for node, kind in (kinds or {}).items()}
    places = None if position is None else at(explanation, nodes, position)
    return node_link.part(ax, edges, owner, nodes, labels, marks, places, seed)


def at(explanation: Credit, nodes: list[int], position: Places) -> dict[int, np.ndarray]:
    """Where each of these nodes lies.

    Raises:
        ValueError: a place that is no pair of numbers.
    """
    found = {}
    for node, name in zip(nodes, named_nodes(explanation, nodes), strict=True):
        place = np.asarray(position[name], dtype=float)
        if place.shape != (2,) or not np.isfinite(place).all():
            raise ValueError(f"position must give (x, y) of each node, got {position[name]!r} of {name!r}")
        found[node] = place
    return found


def known(explanation: Credit, edges: Iterable[Edge], position: Places) -> set[int]:
    """The nodes that have a place.

    Raises:
        ValueError: an explained node, or every node, has none.
    """
    nodes = everyone(explanation, edges)
    names = dict(zip(nodes, named_nodes(explanation, nodes), strict=True))
    found = {node for node, name in names.items() if name in position}
    lacking = [names[node] for node in focus_of(explanation) if node not in found]
    if lacking or not found:
        what = f"no place for the explained node {lacking[0]!r}" if lacking else "no place for any node of this graph"
        known_as = next(iter(names.values()))
        raise ValueError(f"position has {what}; nodes go by names such as {known_as!r}: plot.positions(why) gives all")
    return found


def node_types(explanation: Credit) -> dict[str, Any]:
    """How many nodes there are of each type; empty where there are no types."""
    return dict(explanation.target.get("node_types", {}))


def types_of(explanation: Credit, nodes: list[int]) -> dict[int, str] | None:
    """The type of each node, None where there are no types."""
    if not node_types(explanation):
        return None
    named = zip(nodes, named_nodes(explanation, nodes), strict=True)
    return {node: name[0] for node, name in named if isinstance(name, tuple)}


def type_legend(ax: Axes, explanation: Credit, where: node_link.Part) -> float:
    """Which marker is which type, under the picture; how many points high that is."""
    kinds = types_of(explanation, where.nodes)
    if kinds is None:
        return 0.0
    shown = set(kinds.values())
    marks = {kind: mark for kind, mark in markers(list(node_types(explanation))).items() if kind in shown}
    return legend_below(ax, samples(marks))
