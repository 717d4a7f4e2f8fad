"""What an absent player changes in its copy of the graph, for every kind of players."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from explain.graph.players.absent_features import edge_matrix, feature_matrix
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import EdgeType, Fields

REMOVALS = ("delete", "message", "features")  # what becomes of an absent node or edge


def edge_edits(removal: str, present: Tensor) -> dict[str, Any]:
    """Edges that are taken out, or whose messages are multiplied by zero; ``present`` bool ``[copies, edges]``."""
    return {"edge_keep" if removal == "delete" else "amounts": present}


def node_edits(
    removal: str, place: Place, present: Tensor, absent: Fields, edges: Tensor | None = None
) -> dict[str, Any]:
    """Nodes whose features are replaced, and unless removal is "features" the edges at them; ``[copies, nodes]``.

    ``edges [copies, edges]``: those with both ends present; read off the place when None, where stand-ins always are.
    """
    edits: dict[str, Any] = {"features": _chosen(place, absent, _of_nodes(place, present))}
    if removal == "features":
        return edits
    if edges is None:
        source, target = place.graph.flat_edges
        edges = present[:, source] & present[:, target]
    return edits | edge_edits(removal, edges)


def column_edits(place: Place, present: Tensor, absent: Fields) -> dict[str, Any]:
    """Columns of ``x`` that are replaced in every node; ``present`` bool ``[copies, columns of all types]``."""
    here, first = {}, 0
    for kind in place.graph.counts:
        width = feature_matrix(place.graph, kind).size(1)
        here[kind] = present[:, None, first : first + width]
        first += width
    return {"features": _chosen(place, absent, here)}


def entry_edits(place: Place, present: Tensor, absent: Fields) -> dict[str, Any]:
    """Entries of ``x`` that are replaced; ``present`` bool ``[copies, entries of all types]``."""
    here, first = {}, 0
    for kind in place.graph.counts:
        x = feature_matrix(place.graph, kind)
        here[kind] = present[:, first : first + x.numel()].reshape(len(present), *x.shape)
        first += x.numel()
    return {"features": _chosen(place, absent, here)}


def edge_column_edits(place: Place, present: Tensor, absent: dict[EdgeType, Tensor]) -> dict[str, Any]:
    """Columns of ``edge_attr`` that are replaced on every edge; ``present`` bool ``[copies, columns of all types]``."""
    made, first = {}, 0
    for kind in place.graph.edges:
        attributes = edge_matrix(place.graph, kind)
        here = present[:, None, first : first + attributes.size(1)]
        first += attributes.size(1)
        made[kind] = torch.where(here, attributes, absent[kind])
    return {"edge_features": made}


def _of_nodes(place: Place, present: Tensor) -> Fields:
    starts = place.graph.node_starts
    return {kind: present[:, starts[kind] : starts[kind] + size, None] for kind, size in place.graph.counts.items()}


def _chosen(place: Place, absent: Fields, here: Fields) -> Fields:
    """Features where they are ``here``, what stands for their absence elsewhere; by type, in the shape of ``x``."""
    made = {}
    for kind, fields in place.graph.nodes.items():
        if "x" in fields:
            chosen = torch.where(here[kind], feature_matrix(place.graph, kind), absent[kind])
            made[kind] = chosen.reshape(len(chosen), *fields["x"].shape)
    return made
