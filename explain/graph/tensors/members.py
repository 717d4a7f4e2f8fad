"""The graphs that a ``Batch`` was made of, one by one, for questions about graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from explain.graph.tensors.structure import says_graphs


class Members(Sequence[Data | HeteroData]):
    """The graphs of a ``Batch``, each read from it when it is asked for: what is edited in the batch is seen.

    >>> import torch
    >>> graphs = Members(Batch.from_data_list([Data(x=torch.zeros(2, 1)), Data(x=torch.ones(3, 1))]))
    >>> len(graphs), graphs[-1].x.shape
    (2, torch.Size([3, 1]))

    Raises:
        ValueError: the batch was not made of a list of graphs, and cannot be taken apart.
    """

    def __init__(self, batch: Any) -> None:
        if not hasattr(batch, "_slice_dict"):
            raise ValueError(
                'this Batch cannot be taken apart: for task="graph" give the list of graphs that it is made of, or '
                "Batch.from_data_list(graphs)"
            )
        self.batch = batch

    def __len__(self) -> int:
        return int(self.batch.num_graphs)

    @overload
    def __getitem__(self, index: int) -> Data | HeteroData: ...
    @overload
    def __getitem__(self, index: slice) -> list[Data | HeteroData]: ...
    def __getitem__(self, index: int | slice) -> Data | HeteroData | list[Data | HeteroData]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"graph {index} of {len(self)}")
        number = index % len(self)
        made = self.batch.get_example(number)
        for name in _added(self.batch):  # after it was made of its graphs: it knows no slices of these
            made[name] = _rows(self.batch, name, number)
        return made


def _added(batch: Any) -> list[str]:
    """The fields that a batch of untyped graphs was given after it was made."""
    known = {*batch._slice_dict, "batch", "ptr", "num_nodes"}
    return [name for name, _ in batch if name not in known] if isinstance(batch, Data) else []


def _rows(batch: Any, name: str, number: int) -> Tensor:
    """The rows of one graph in a field of nodes, edges or graphs.

    Raises:
        ValueError: it has no rows of these.
    """
    value, slices = batch[name], batch._slice_dict
    if batch.is_node_attr(name):
        return value[int(batch.ptr[number]) : int(batch.ptr[number + 1])]
    if batch.is_edge_attr(name) and "edge_index" in slices:
        return value[int(slices["edge_index"][number]) : int(slices["edge_index"][number + 1])]
    if isinstance(value, Tensor) and value.dim() and len(value) == batch.num_graphs:
        return value[number : number + 1]
    raise ValueError(
        f"{name} was added to a Batch, and has no row for each node, edge or graph: which of it is of graph {number}? "
        "Give the list of graphs, each with its own"
    )


def check_one_graph(data: Data | HeteroData) -> None:
    """Check that this is one graph.

    Raises:
        ValueError: it is several, batched.
    """
    for store in data.stores:
        batch = store.get("batch")
        if isinstance(batch, Tensor) and says_graphs(batch) and batch.numel() and batch.min() != batch.max():
            remedy = "batch.to_data_list()" if isinstance(data, Batch) else "[Data(...), ...]"
            raise ValueError(
                f'data.batch says that this is {int(batch.max()) + 1} graphs in one, and task="graph" asks about one '
                f'at a time: give them as a list, {remedy}; to ask about their nodes, task="node"'
            )
