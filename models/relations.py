"""A graph whose labels only relations tell: a network that takes all edges for one kind is at chance."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from explain.guard import random_states_kept
from models import checkpoints, convolutions, descent
from models.checkpoints import Trained
from models.convolutions import RGCN
from models.descent import descend


def planted(seed: int, nodes: int = 1500, each: int = 3) -> Data:
    """A node is of class 1 where those it hears by relation 0 have a larger mean than those by relation 1.

    Nodes have one normal number; each hears ``each`` random ones by either relation. What all of them tell together is
    as often above as below zero in both classes. Half of the nodes are to learn from, a tenth to choose weights by.

    >>> data = planted(0, nodes=4, each=1)
    >>> data.edge_type.tolist()
    [0, 0, 0, 0, 1, 1, 1, 1]
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, 1, generator=generator)
    source = torch.randint(nodes, (2, nodes, each), generator=generator)
    told = x[source, 0].mean(2)
    target = torch.arange(nodes).repeat_interleave(each).repeat(2)
    order = torch.rand(nodes, generator=generator)
    return Data(
        x=x,
        edge_index=torch.stack([source.flatten(), target]),
        edge_type=torch.arange(2).repeat_interleave(nodes * each),
        y=(told[0] > told[1]).long(),
        train_mask=order < 0.5,
        val_mask=(order >= 0.5) & (order < 0.6),
        test_mask=order >= 0.6,
    )


def blind(data: Data) -> Data:
    """The same graph with one relation in place of two."""
    data = copy.copy(data)
    data.edge_type = torch.zeros_like(data.edge_type)
    return data


def load_or_train(seed: int = 0, *, iterations: int = 500, progress: bool = True) -> Trained:
    """An `RGCN` for `planted`; ``facts["blind"]`` is what one reaches that takes all edges for one kind."""
    data = planted(seed)
    nets = {"test_accuracy": (_fresh(seed), data), "blind": (_fresh(seed), blind(data))}
    net = nets["test_accuracy"][0]

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        facts = {}
        for name, (each, given) in nets.items():
            train(each, given, iterations, progress=progress)
            facts[name] = accuracy(each, given, given.test_mask)
        return net.state_dict(), facts

    code = sys.modules[__name__], convolutions, descent
    parts = [data.x, data.edge_index, data.edge_type, data.y]
    found = checkpoints.kept("RGCN", checkpoints.origin("RGCN", code, parts, seed=seed, iterations=iterations), make)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)


def train(net: RGCN, data: Data, iterations: int, *, progress: bool = True) -> RGCN:
    """Minimise the cross-entropy of the training nodes; the weights that do best on the validation nodes are kept."""
    best, kept = 0.0, net.state_dict()

    def loss() -> Tensor:
        return F.cross_entropy(_logits(net, data)[data.train_mask], data.y[data.train_mask])

    def then(iteration: int) -> None:
        nonlocal best, kept
        if iteration % 10 == 0 and (found := accuracy(net, data, data.val_mask)) > best:
            best, kept = found, copy.deepcopy(net.state_dict())

    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    descend(loss, optimizer, iterations, then=then, name="RGCN", progress=progress)
    net.load_state_dict(kept)
    return net.eval()


@torch.no_grad()
def accuracy(net: RGCN, data: Data, mask: Tensor) -> float:
    """Of the nodes of the mask, the share whose class is named."""
    return float((_logits(net, data).argmax(1) == data.y)[mask].double().mean())


def _logits(net: RGCN, data: Data) -> Tensor:
    return net(data.x, data.edge_index, data.edge_type)


def _fresh(seed: int) -> RGCN:
    with random_states_kept():
        torch.manual_seed(seed)
        return RGCN(1, 2, relations=2)
