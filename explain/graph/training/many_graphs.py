"""Training examples that are spread over many graphs: the graphs themselves, or the labelled nodes of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data

from explain.graph.number import GraphNumber
from explain.graph.tensors.inputs import structure_of
from explain.graph.tensors.members import Members
from explain.graph.tensors.structure import Copies, copies
from explain.guard import evaluating
from explain.loaders import positions_of
from explain.types import Parameters, Players, Unsupported

Predict: TypeAlias = Callable[[Parameters, Tensor], Tensor]
SINGLE = 2**12  # graphs of which each, collated by itself, is kept
TOGETHER = 2**15  # nodes of graphs that are evaluated one after the other before their losses are differentiated


class Training(NamedTuple):
    """What was trained on: outputs of examples, their labels, who they are, and what was taken without being told."""

    predict: Predict
    labels: Tensor
    players: Players
    assumed: str = ""
    batch_size: int | None = None


def training_graphs(number: GraphNumber, train: Any) -> tuple[list[Data], Tensor]:
    """The graphs, in the order of their data set, and their positions in it."""
    given = train if train is not None else number.model.data
    if isinstance(given, Batch):
        given = Members(given)
    elif isinstance(given, Data):
        given = [given]
    if isinstance(given, DataLoader):
        positions = positions_of(given)
        return [given.dataset[i] for i in positions.tolist()], positions
    graphs = list(given)
    return graphs, torch.arange(len(graphs))


def whole_graphs(number: GraphNumber, train: Any) -> Training:
    """Each graph with its own label.

    Raises:
        ValueError: a graph without labels, or with another number of them.
        Unsupported: a forward without ``batch``.
    """
    model = number.model
    graphs, positions = training_graphs(number, train)
    if any(not isinstance(graph.get("y"), Tensor) for graph in graphs):
        raise ValueError("training graphs need labels: y is missing")
    if len({graph.y.numel() for graph in graphs}) > 1:
        raise ValueError("training graphs need as many labels each, y [1] or [1, tasks]")
    labels = torch.stack([graph.y.reshape(-1) for graph in graphs])
    labels = labels[:, 0] if labels.size(1) == 1 else labels
    if not {"batch", "data"} & set(model.inputs.sources.values()) and len(graphs) > 1:
        raise Unsupported("influence over many graphs needs a forward that takes batch")

    def collated(chosen: tuple[int, ...]) -> Copies:
        together = Batch.from_data_list([graphs[i] for i in chosen])
        return copies(structure_of(together, model.inputs), 1)

    one, several = lru_cache(SINGLE)(collated), lru_cache(2)(collated)  # the same graphs are asked for again and again

    def predict(params: Parameters, batch: Tensor) -> Tensor:
        made = (one if len(batch) == 1 else several)(tuple(batch.tolist()))
        with evaluating(model.module):
            return model.outputs(made, None, None, params)

    players = Players("train", positions, tuple(f"graph {i}" for i in positions.tolist()))
    assumed = f"all {len(graphs)} wrapped graphs were trained on: else give Influence(train=graphs)"
    return Training(predict, labels, players, assumed if train is None else "")


def nodes_of_graphs(number: GraphNumber, train: Any) -> Training:
    """The labelled nodes of every graph, each graph evaluated by itself, as a forecaster's snapshots are.

    Those of ``train_mask`` where the graphs have one. Players are ``(graph, node)``.

    Raises:
        ValueError: graphs without a label a node, masks of several splits, or no training node.
        Unsupported: typed graphs.
    """
    model = number.model
    if len(number.graph.counts) > 1:
        raise Unsupported("influence over the nodes of many graphs is for graphs of one node type")
    graphs, positions = training_graphs(number, train)
    chosen = [_chosen(graph) for graph in graphs]
    sizes = torch.tensor([len(nodes) for nodes in chosen])
    owner = torch.arange(len(graphs)).repeat_interleave(sizes)
    nodes = torch.cat(chosen)
    labels = torch.cat([graph.y[some] for graph, some in zip(graphs, chosen, strict=True)])
    labels = labels[:, 0] if labels.dim() == 2 and labels.size(1) == 1 else labels
    made = [copies(structure_of(graph, model.inputs), 1) for graph in graphs]

    def predict(params: Parameters, batch: Tensor) -> Tensor:
        at = batch.cpu()
        order = owner[at].argsort(stable=True)
        which, counts = owner[at].unique(return_counts=True)
        parts = nodes[at[order]].to(batch.device).split(counts.tolist())
        with evaluating(model.module):
            rows = [
                model.outputs(made[graph], None, None, params)[some]
                for graph, some in zip(which.tolist(), parts, strict=True)
            ]
        return torch.cat(rows)[order.argsort().to(batch.device)]

    index = torch.stack([positions[owner], nodes.cpu()], 1)
    names = tuple(f"graph {graph}, node {node}" for graph, node in index.tolist())
    masked = all(isinstance(graph.get("train_mask"), Tensor) for graph in graphs)
    which = "the nodes of train_mask" if masked else "every node, as there is no train_mask"
    assumed = f"{which}, of all {len(graphs)} wrapped graphs: else give Influence(train=graphs)"
    largest = max(int(graph.num_nodes or 1) for graph in graphs)
    together = max(1, TOGETHER // largest) * max(1, int(sizes.max()))
    return Training(predict, labels, Players("train", index, names), assumed if train is None else "", together)


def _chosen(graph: Data) -> Tensor:
    """Training nodes of one graph.

    Raises:
        ValueError: not a label a node, or no mask of them.
    """
    labels, mask, count = graph.get("y"), graph.get("train_mask"), int(graph.num_nodes or 0)
    if not isinstance(labels, Tensor) or labels.dim() == 0 or len(labels) != count:
        got = list(labels.shape) if isinstance(labels, Tensor) else "none"
        raise ValueError(f"training graphs need a label a node, y [{count}] or [{count}, outputs], got {got}")
    if mask is None:
        return torch.arange(count)
    if mask.dtype != torch.bool or mask.shape != (count,):
        raise ValueError(f"train_mask must be bool [{count}], got {mask.dtype} {list(mask.shape)}: choose a column")
    return mask.nonzero().view(-1)
