"""A graph that enters forward as one matrix: dense, torch sparse, or torch_sparse's SparseTensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explain.graph.tensors.structure import EDGE, EdgeType, Structure

DENSE = ("adj", "adjacency", "A")  # forward parameters that mean a [nodes, nodes] matrix
TRANSPOSED = "adj_t"  # rows are targets, as torch_geometric writes it; in other matrices rows are sources


def is_sparse_matrix(value: Any) -> bool:
    """Whether this is a sparse matrix, torch's own or torch_sparse's."""
    if isinstance(value, Tensor):
        return value.layout != torch.strided and value.dim() == 2
    return callable(getattr(value, "coo", None)) and callable(getattr(value, "sparse_sizes", None))


def is_graph(name: str, value: Any) -> bool:
    """Whether a field of the data is the graph as a matrix: a sparse one, but for features, or dense by its name."""
    if is_sparse_matrix(value):
        return name == TRANSPOSED or (name != "x" and (not isinstance(value, Tensor) or len(value) == value.size(1)))
    return name in (*DENSE, TRANSPOSED) and is_dense_matrix(value)


def is_dense_matrix(value: Any, nodes: int | None = None) -> bool:
    """Whether this is a dense ``[nodes, nodes]`` matrix."""
    square = isinstance(value, Tensor) and value.layout == torch.strided and value.dim() == 2
    return square and len(value) == value.size(1) and nodes in (None, len(value))


def entries(value: Any, transposed: bool) -> tuple[Tensor, Tensor | None]:
    """The edges ``[2, E]`` that a matrix holds, and their values ``[E]`` where it has them.

    >>> edges, values = entries(torch.tensor([[0.0, 3.0], [0.0, 0.0]]), transposed=False)
    >>> edges.tolist(), values.tolist()
    ([[0], [1]], [3.0])
    """
    if not isinstance(value, Tensor):
        row, column, values = value.coo()
        index = torch.stack([row, column])
    elif value.layout == torch.strided:
        index = value.nonzero().t().contiguous()
        values = value[index[0], index[1]]
    else:
        flat = value.to_sparse_coo() if value.layout != torch.sparse_coo else value
        flat = flat.coalesce()
        index, values = flat.indices(), flat.values()
    return (index.flip(0) if transposed else index).long(), values


@dataclass(frozen=True)
class Matrix:
    """How the matrix of a graph is built: as the user's own is.

    Args:
        kind: a torch layout, or the class of a SparseTensor.
        transposed: whether rows are targets.
        valued: whether entries have values (a SparseTensor may have none).
    """

    kind: Any = torch.strided
    transposed: bool = False
    valued: bool = True

    @classmethod
    def like(cls, name: str, value: Any) -> Matrix:
        """What builds matrices like this one, a field of the data."""
        if isinstance(value, Tensor):
            return cls(value.layout, name == TRANSPOSED)
        return cls(type(value), name == TRANSPOSED, value.coo()[2] is not None)

    def of(self, graph: Structure, kind: EdgeType = EDGE) -> Any:
        """The matrix of a graph's edges of one type; entries are edge weights, or 1, those of parallel edges summed."""
        index, sizes = graph.edges[kind], (graph.counts[kind[0]], graph.counts[kind[2]])
        weight, x = graph.edge_fields[kind].get("edge_weight"), graph.nodes[kind[0]].get("x")
        floating = x is not None and x.is_floating_point()
        dtype = x.dtype if x is not None and floating else torch.get_default_dtype()
        values = torch.ones(index.size(1), dtype=dtype, device=index.device) if weight is None else weight
        row, column = index.flip(0) if self.transposed else index
        shape = sizes[::-1] if self.transposed else sizes
        if not isinstance(self.kind, torch.layout):
            return self.kind(
                row=row, col=column, value=values if self.valued else None, sparse_sizes=shape, is_sorted=False
            )
        if self.kind == torch.strided:
            dense = torch.zeros(shape, dtype=dtype, device=index.device)
            return dense.index_put((row, column), values.to(dtype), accumulate=True)
        sparse = torch.sparse_coo_tensor(torch.stack([row, column]), values, shape, check_invariants=False).coalesce()
        return sparse if self.kind == torch.sparse_coo else sparse.to_sparse(layout=self.kind)


def in_the_order_of(edges: Tensor, index: Tensor) -> Tensor:
    """Where each of ``edges [2, E]`` goes so that those of ``index`` come first, in its order; int64 ``[E]``.

    The identity where ``index`` holds an edge twice, or one that is not among them.

    >>> in_the_order_of(torch.tensor([[0, 0, 1], [0, 1, 0]]), torch.tensor([[1, 0], [0, 1]]))
    tensor([2, 1, 0])
    """
    size = int(max(edges.max(), index.max())) + 1 if edges.numel() and index.numel() else 1
    have, want = edges[0] * size + edges[1], index[0] * size + index[1]
    everything = torch.arange(edges.size(1), device=edges.device)
    if not have.numel() or len(want.unique()) < len(want) or not torch.isin(want, have).all():
        return everything
    order = have.argsort()
    first = order[torch.searchsorted(have[order], want)]
    return torch.cat([first, everything[~torch.isin(have, want)]])
