"""The training loss of a (transductive) graph network, as `Influence` asks for it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData

from explain.graph.network import GraphNetwork
from explain.graph.number import GraphNumber
from explain.graph.players.absent_edges import ABSENT_EDGES, EDGE_EDITS
from explain.graph.players.naming import node_name
from explain.graph.tensors.cuts import Focus, Place, whole
from explain.graph.tensors.data_object import pair_store
from explain.graph.tensors.inputs import structure_of
from explain.graph.tensors.structure import Structure
from explain.graph.training import leave_one_out
from explain.graph.training.edited_loss import GraphRemoval
from explain.graph.training.insertion import graph_insertion
from explain.graph.training.many_graphs import Training, nodes_of_graphs, training_graphs, whole_graphs
from explain.graph.training.predictions import reading_nodes, reading_pairs
from explain.graph.training.suspects import suspects
from explain.losses import trained_loss
from explain.training import TrainingObjective, check_own_loss, trainable
from explain.types import Parameters, Players, Unsupported

REMOVABLE = ("labels", *leave_one_out.REMOVABLE)


def check_removable(model: GraphNetwork, remove: str | Players) -> None:
    """Check that such players can be removed from what this model was trained on.

    Raises:
        ValueError: another kind.
        Unsupported: an edit of many graphs.
    """
    if not isinstance(remove, Players) and remove not in REMOVABLE:
        known = ", ".join(f'"{kind}"' for kind in REMOVABLE)
        raise ValueError(f"remove must be {known} or such Players, got {remove!r}")
    if _of_many_graphs(model) and remove != "labels":
        raise Unsupported("of the nodes of many graphs only labels can be removed: wrap one graph to edit it")


def training_objective(number: GraphNumber, train: Any = None) -> tuple[TrainingObjective, dict[str, Any]]:
    """``J(theta) = (1/n) sum_i loss_i(theta) + weight_decay/2 |theta|^2`` over labelled nodes, pairs or graphs.

    And what was taken for it: ``loss``, and ``assumed`` where nobody had said so.

    Args:
        number: what is asked.
        train: nodes: a bool mask ``[nodes]`` or int64 positions, ``data.train_mask`` when None; pairs:
            ``(edge_label_index [2, pairs], edge_label [pairs])``, those of the data when None; graphs: a list, dataset
            or DataLoader, the wrapped graphs when None; nodes of many graphs: such graphs, with a label a node.

    Raises:
        ValueError: no training examples, or nodes or labels that graph or model do not have.
        TypeError: training nodes that are neither a mask nor positions.
    """
    model, many = number.model, _of_many_graphs(number.model)
    build = nodes_of_graphs if many else {"node": _nodes, "edge": _pairs, "graph": whole_graphs}[model.task]
    training = build(number, train)
    trained = trained_loss(model.loss, number.meaning, training.labels)
    assumed = {name: why for name, why in (("loss", trained.assumed), ("examples", training.assumed)) if why}

    def measured(params: Parameters) -> Tensor:
        return number.read(number.outputs(whole(number.graph, number.focus), 1, params=params).double())[0]

    made = TrainingObjective(
        trainable(model.net),
        training.players,
        training.predict,
        trained.labels,
        measured,
        trained.loss_of,
        model.weight_decay,
        training.batch_size,
        convex=trained.convex,
        link=trained.link,
        module=model.net,
        suspects=partial(suspects, number, build, trained, training),
        data=_tensors(training_graphs(number, train)[0] if model.task == "graph" or many else model.data),
    )
    check_own_loss(made)
    return made, {"loss": trained.name} | ({"assumed": assumed} if assumed else {})


def graph_removal(
    number: GraphNumber, place: Place, base: TrainingObjective, players: Players, train: Any
) -> GraphRemoval:
    """The objective whose players are nodes, edges or features of the graph, see `GraphRemoval`, or edges to add."""
    foci, positions = _read(number, train, base.players)
    if players.kind in (ABSENT_EDGES, EDGE_EDITS):
        return graph_insertion(number, place, base, players, foci, positions)
    return GraphRemoval(base, number, place, players, foci, positions)


def _of_many_graphs(model: GraphNetwork) -> bool:
    """Whether the nodes of many graphs are the examples."""
    return model.task == "node" and not model.single


def _tensors(graphs: Any) -> tuple[Tensor, ...]:
    """Everything that a graph, or each of several, holds."""
    each = [graphs] if isinstance(graphs, BaseData) else list(graphs)
    stores = (store for graph in each for store in graph.stores)
    return tuple(value for store in stores for _, value in sorted(store.items()) if isinstance(value, Tensor))


def _read(number: GraphNumber, train: Any, players: Players) -> tuple[list[Focus], Tensor]:
    """The nodes of each training example that is read from the explained graph, and its position."""
    everyone = torch.arange(len(players))
    if number.model.task == "node":
        return [((number.focus[0][0], node),) for node in players.index.tolist()], everyone
    if number.model.task == "edge":
        (first, _), (second, _) = number.focus
        starts = torch.tensor([[number.graph.node_starts[first]], [number.graph.node_starts[second]]])
        ends = players.geometry["ends"] - starts
        return [((first, u), (second, v)) for u, v in ends.T.tolist()], everyone
    if train is None:
        return [()], torch.tensor([number.index if not number.model.single else 0])
    graphs = training_graphs(number, train)[0]
    alike = [i for i, graph in enumerate(graphs) if _same(structure_of(graph, number.model.inputs), number.graph)]
    return [()] * bool(alike), torch.tensor(alike[:1], dtype=torch.long)


def _same(one: Structure, other: Structure) -> bool:
    if one.counts != other.counts or not torch.equal(one.flat_edges, other.flat_edges):
        return False
    pairs = [(fields.get("x"), other.nodes[kind].get("x")) for kind, fields in one.nodes.items()]
    return all(x is y or (x is not None and y is not None and torch.equal(x, y)) for x, y in pairs)


def _nodes(number: GraphNumber, train: Any) -> Training:
    graph, (kind, _) = number.graph, number.focus[0]
    data = number.model.data
    store: Any = data[kind] if isinstance(data, HeteroData) else data
    if train is None:
        train = store.get("train_mask")
        if train is None:
            raise ValueError("which nodes were trained on? give Influence(train=mask) or data.train_mask")
        if train.dim() > 1 and train.size(1) > 1:
            raise ValueError(
                f"data.train_mask {list(train.shape)} holds {train.size(1)} splits, and one was trained on: which? "
                "give its column, Influence(train=data.train_mask[:, 0])"
            )
        train = train.reshape(len(train))
    nodes = _training_nodes(train, graph.counts[kind]).to(graph.flat_edges.device)
    if not isinstance(store.get("y"), Tensor):
        raise ValueError("training nodes need labels: data.y is missing")
    if len(store.y) != graph.counts[kind]:
        raise ValueError(f"data.y must have one label a node, {graph.counts[kind]}, got {len(store.y)}")
    labels = store.y.to(nodes.device)[nodes]
    labels = labels.squeeze(-1) if labels.dim() == 2 and labels.size(1) == 1 else labels
    predict = reading_nodes(number.model, graph, kind, nodes)
    flat = nodes.cpu() + graph.node_starts[kind]
    geometry = {"node": flat, "edge_index": graph.flat_edges.cpu(), "focus": number.rows(), "classes": labels.cpu()}
    said = "" if len(graph.counts) > 1 or graph.names.nodes else "node "
    names = tuple(f"{said}{node_name(graph, node)}" for node in flat.tolist())
    players = Players("train", nodes.cpu(), names, None, geometry)
    return Training(predict, labels, players)


def _training_nodes(train: Any, count: int) -> Tensor:
    """Positions int64 of the training nodes, given so or as a mask.

    Raises:
        TypeError: neither booleans nor whole numbers.
        ValueError: a mask of another length, or no such node.
    """
    given = train if isinstance(train, Tensor) else torch.as_tensor(np.asarray(train))
    if given.dtype == torch.bool:
        if given.shape != (count,):
            raise ValueError(f"a mask of the training nodes must be [{count}], got {list(given.shape)}")
        return given.nonzero().view(-1)
    if given.dim() != 1 or given.dtype not in (torch.int32, torch.int64):
        raise TypeError(
            f"training nodes must be a bool mask [{count}] or int64 positions, got {given.dtype} {list(given.shape)}"
        )
    if len(given) and not 0 <= int(given.min()) <= int(given.max()) < count:
        raise ValueError(f"training nodes must be from 0 to {count - 1}, got {int(given.min())} to {int(given.max())}")
    if len(given.unique()) < len(given):
        raise ValueError("a training node is given twice: each is one example")
    return given.long()


def _pairs(number: GraphNumber, train: Any) -> Training:
    store = pair_store(number.model.data)
    pairs, labels = train if train is not None else (store.get("edge_label_index"), store.get("edge_label"))
    if not isinstance(pairs, Tensor) or not isinstance(labels, Tensor):
        raise ValueError("which pairs were trained on? give Influence(train=(edge_label_index, edge_label))")
    device = number.graph.flat_edges.device
    pairs, labels = pairs.to(device), labels.to(device)
    sizes = torch.tensor([[number.graph.counts[kind]] for kind, _ in number.focus], device=device)
    if pairs.dim() != 2 or len(pairs) != 2 or bool(((pairs < 0) | (pairs >= sizes)).any()):
        last = " and ".join(str(size - 1) for size in sorted({*sizes.view(-1).tolist()}))
        raise ValueError(f"training pairs must be [2, pairs] of nodes from 0 to {last}, got {list(pairs.shape)}")
    predict = reading_pairs(number.model, number.graph, pairs)
    starts = torch.tensor([number.graph.node_starts[kind] for kind, _ in number.focus])
    flat = pairs.t().cpu() + starts
    names = tuple("–".join(node_name(number.graph, node) for node in pair) for pair in flat.tolist())
    geometry = {"edge_index": number.graph.flat_edges.cpu(), "focus": number.rows(), "ends": flat.t()}
    return Training(predict, labels, Players("train", torch.arange(len(labels)), names, None, geometry))
