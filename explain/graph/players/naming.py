"""What players on a graph are called: by the names that a graph carries, else by type and number."""

from __future__ import annotations

from explain.graph.tensors.structure import Structure


def node_name(graph: Structure, flat: int) -> str:
    """A node's name, or its number, after its type where there are types."""
    kind = [kind for kind, start in graph.node_starts.items() if start <= flat][-1]
    number = flat - graph.node_starts[kind]
    name = graph.names.nodes[kind][number] if kind in graph.names.nodes else str(number)
    return f"{kind} {name}".strip() if len(graph.counts) > 1 else name


def node_names(graph: Structure) -> list[str]:
    """What the graph's nodes are called by flat number, without their types."""
    names = graph.names.nodes
    return [name for kind, count in graph.counts.items() for name in names.get(kind, map(str, range(count)))]


def edge_name(graph: Structure, flat: int) -> str:
    """An edge's own name, empty where it has none."""
    if not graph.names.edges:
        return ""
    kind = [kind for kind, start in graph.edge_starts.items() if start <= flat][-1]
    return graph.names.edges[kind][flat - graph.edge_starts[kind]] if kind in graph.names.edges else ""


def feature_name(graph: Structure, kind: str, column: int) -> str:
    """A column's name, or its number, without its type."""
    return graph.names.features[kind][column] if kind in graph.names.features else f"feature {column}"
