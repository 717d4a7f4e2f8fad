"""Copies of a graph as the data object that a forward, or the user's own call, reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from explain.graph.tensors.adjacency import Matrix
from explain.graph.tensors.structure import EDGE, NODE, Copies, EdgeType, Fields


def pair_store(data: Data | HeteroData) -> Any:
    """What holds the pairs of a link model: the data itself, or the first edge type with ``edge_label_index``, if any.

    >>> data = HeteroData()
    >>> data["user", "rates", "film"].edge_label_index = Tensor([[0], [0]])
    >>> pair_store(data)._key
    ('user', 'rates', 'film')
    """
    return next((store for store in data.edge_stores if "edge_label_index" in store), data)


def as_data(
    copies: Copies,
    typed: bool,
    pairs: Tensor | None,
    matrices: Mapping[str, Matrix],
    pair_type: EdgeType | None = None,
    own: Mapping[str, str] | None = None,
    batched: bool = True,
) -> Data | HeteroData:
    """The copies as ``Batch``, or ``HeteroData``; one copy as ``Data`` without ``batch`` where not ``batched``.

    ``pairs`` are its ``edge_label_index``, of ``pair_type`` in typed data; ``matrices`` the matrices that stand beside,
    or for, ``edge_index``; ``own`` the names that features and edges have there.
    """
    graph, own = copies.structure, own or {}
    edges = own.get("edge_index", "edge_index")
    batched = batched or copies.count > 1
    if not typed:
        made = (Batch if batched else Data)(
            **{
                **({"_base_cls": Data} if batched else {}),
                **{**graph.plain, **_renamed(graph.nodes[NODE], own), **graph.edge_fields[EDGE], **graph.shared},
                **{edges: graph.edges[EDGE], "num_nodes": graph.num_nodes},
                **({"batch": copies.batch[NODE], "ptr": copies.starts[NODE]} if batched else {}),
                **{name: matrix.of(graph) for name, matrix in matrices.items()},
            },
        )
        if pairs is not None:
            made.edge_label_index = pairs
        return made
    data = HeteroData(**graph.plain, **graph.shared)
    for kind, fields in graph.nodes.items():
        of_graphs = {"batch": copies.batch[kind], "ptr": copies.starts[kind]} if batched else {}
        for name, value in {**_renamed(fields, own), **of_graphs}.items():
            data[kind][name] = value
        data[kind].num_nodes = graph.counts[kind]
    for edge, index in graph.edges.items():
        made_of = {name: matrix.of(graph, edge) for name, matrix in matrices.items()}
        for name, value in {**graph.edge_fields[edge], edges: index, **made_of}.items():
            data[edge][name] = value
    if pairs is not None:
        data["edge_label_index"] = pairs
        if pair_type is not None:
            data[pair_type].edge_label_index = pairs
    return data


def _renamed(fields: Fields, own: Mapping[str, str]) -> Fields:
    return {own.get(name, name): value for name, value in fields.items()}
