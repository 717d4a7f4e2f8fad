"""What else a graph network may have been trained with, for `Influence` where the gradient does not vanish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from explain.graph.many import Training
from explain.losses import Trained, trained_loss
from explain.training import TrainingObjective, other_losses
from explain.types import Suspect

if TYPE_CHECKING:
    from explain.graph.targets import GraphTarget

Build = Callable[["GraphTarget", Any], Training]


def suspects(target: GraphTarget, build: Build, taken: Trained, training: Training) -> list[Suspect]:
    """Other losses of these labels, then the same loss on other nodes that the data marks or labels."""
    found = other_losses(taken, target.meaning, training.labels)
    if target.model.task == "node" and target.model.single:
        for name, nodes in _marked(target):
            if not torch.equal(nodes.nonzero().view(-1).cpu(), training.players.index.cpu()):
                change = partial(_with_examples, target, build, nodes)
                found.append(Suspect("examples", name, change, f"Influence(train=mask), those of {name}"))
    return found


def _marked(target: GraphTarget) -> Iterator[tuple[str, Tensor]]:
    data = target.model.data
    store: Any = data[target.focus[0][0]] if isinstance(data, HeteroData) else data
    masks = {name: store.get(f"{name}_mask") for name in ("train", "val", "test")}
    known = {name: mask for name, mask in masks.items() if isinstance(mask, Tensor) and mask.dim() == 1}
    if "train" in known:
        yield "train_mask", known["train"].bool()
    if {"train", "val"} <= set(known):
        yield "train_mask and val_mask", known["train"].bool() | known["val"].bool()
    wide = store.y.reshape(len(store.y), -1)
    yield "all nodes with a label", ~(wide.isnan() if wide.is_floating_point() else wide < 0).any(1)


def _with_examples(target: GraphTarget, build: Build, nodes: Tensor, objective: TrainingObjective) -> TrainingObjective:
    training = build(target, nodes)
    trained = trained_loss(target.model.loss, target.meaning, training.labels)
    return replace(
        objective,
        players=training.players,
        predict=training.predict,
        labels=trained.labels,
        loss_of=trained.loss_of,
        link=trained.link,
        batch_size=training.batch_size,
    )
