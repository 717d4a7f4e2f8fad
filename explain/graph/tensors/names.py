"""What the nodes, edges and features of a graph are called: as the user says, as the data says, or by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch_geometric.data import Data, HeteroData

from explain.graph.tensors.structure import Names, Structure
from explain.names import checked_names, is_text


@dataclass(frozen=True)
class Given:
    """What `explain.wrap` was told: a list, or by type; of nodes and edges also a function of a graph that gives these,
    and of several graphs a list for each.
    """

    nodes: Any = None
    edges: Any = None
    features: Any = None

    def of(self, data: Data | HeteroData, number: int | None) -> Given:
        """The names of one graph; ``number`` says which where there are several.

        Raises:
            ValueError: nodes or edges of several graphs are named, and not of each.
        """
        nodes, edges = (
            _of_one(what, names, data, number)
            for what, names in (("node_names", self.nodes), ("edge_names", self.edges))
        )
        return Given(nodes, edges, self.features)


def _of_one(what: str, names: Any, data: Data | HeteroData, number: int | None) -> Any:
    if names is None or callable(names):
        return names if names is None else names(data)
    if number is None:
        return names
    if is_text(names) or not isinstance(names, Sequence) or len(names) <= number:
        raise ValueError(
            f"{what} of several graphs are a list for each, or a function of a graph that gives it, "
            f"{what}=lambda data: [...]; got {names!r:.60}"
        )
    return names[number]


def named(graph: Structure, data: Data | HeteroData, given: Given) -> Structure:
    """The graph with the names that were given, else with those in the data.

    Raises:
        TypeError: names that are no texts.
        ValueError: not one each, or of a type that there is not.
    """
    nodes = _by_type("node_names", _given_or_own(given.nodes, data, "node_names"), graph.counts, "node")
    sizes = {kind: edges.size(1) for kind, edges in graph.edges.items()}
    edges = _by_type("edge_names", _given_or_own(given.edges, data, "edge_names"), sizes, "edge")
    matrices = {kind: fields["x"] for kind, fields in graph.nodes.items() if "x" in fields}
    widths = {kind: x.size(1) for kind, x in matrices.items() if x.dim() > 1}
    features = _by_type("feature_names", _given_or_own(given.features, data, "feature_names"), widths, "feature")
    return replace(graph, names=Names(nodes, edges, features)) if nodes or edges or features else graph


def _given_or_own(given: Any, data: Data | HeteroData, what: str) -> Any:
    """What was given, else the data's own texts: by type where it has types."""
    if given is not None:
        return given
    if not isinstance(data, HeteroData):
        return _texts(data.get(what))
    stores = data.edge_stores if what == "edge_names" else data.node_stores
    return {store._key: texts for store in stores if (texts := _texts(store.get(what))) is not None}


def _texts(own: Any) -> Any:
    """Texts of the data; of a batch those of all its graphs. Other things of this name are no names."""
    if isinstance(own, (list, tuple)) and own and all(is_text(part) for part in own):
        return [name for part in own for name in part]
    return own if own is not None and is_text(own) else None


def _by_type(what: str, given: Any, counts: Mapping[Any, int], of: str) -> dict[Any, tuple[str, ...]]:
    if given is None or not len(given):
        return {}
    if not isinstance(given, Mapping):
        if len(counts) != 1:
            first = next(iter(counts), "")
            raise ValueError(f"{what} of a graph with types are given by type, {what}={{{first!r}: [...]}}")
        given = {next(iter(counts)): given}
    if unknown := [kind for kind in given if kind not in counts]:
        raise ValueError(f"{what} of {unknown[0]!r}: there is no such type with {of}s, types are {list(counts)}")
    return {kind: checked_names(what, names, counts[kind], of) for kind, names in given.items() if len(names)}
