"""What else a graph network may have been trained with, for `Influence` where the gradient does not vanish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from explain.graph.number import GraphNumber
from explain.graph.training.many_graphs import Training
from explain.losses import Trained, trained_loss
from explain.training import TrainingObjective, other_losses
from explain.types import Suspect

Build = Callable[[GraphNumber, Any], Training]


def suspects(number: GraphNumber, build: Build, taken: Trained, training: Training) -> list[Suspect]:
    """Other losses of these labels, then the same loss on other nodes that the data marks or labels."""
    found = other_losses(taken, number.meaning, training.labels)
    if number.model.task == "node" and number.model.single:
        for name, nodes in _marked(number):
            if not torch.equal(nodes.nonzero().view(-1).cpu(), training.players.index.cpu()):
                change = partial(_with_examples, number, build, nodes)
                found.append(Suspect("examples", name, change, f"Influence(train=mask), those of {name}"))
    return found


def _marked(number: GraphNumber) -> Iterator[tuple[str, Tensor]]:
    data = number.model.data
    store: Any = data[number.focus[0][0]] if isinstance(data, HeteroData) else data
    masks = {name: store.get(f"{name}_mask") for name in ("train", "val", "test")}
    known = {name: mask for name, mask in masks.items() if isinstance(mask, Tensor) and mask.dim() == 1}
    if "train" in known:
        yield "train_mask", known["train"].bool()
    if {"train", "val"} <= set(known):
        yield "train_mask and val_mask", known["train"].bool() | known["val"].bool()
    wide = store.y.reshape(len(store.y), -1)
    yield "all nodes with a label", ~(wide.isnan() if wide.is_floating_point() else wide < 0).any(1)


def _with_examples(number: GraphNumber, build: Build, nodes: Tensor, objective: TrainingObjective) -> TrainingObjective:
    training = build(number, nodes)
    trained = trained_loss(number.model.loss, number.meaning, training.labels)
    return replace(
        objective,
        players=training.players,
        predict=training.predict,
        labels=trained.labels,
        loss_of=trained.loss_of,
        link=trained.link,
        batch_size=training.batch_size,
    )
