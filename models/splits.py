"""Which nodes are trained on, chosen by and tested: the random splits of papers, by seed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch_geometric.data import Data


def per_class(data: Data, seed: int, labelled: int = 20, validation: int = 500, test: int = 1000) -> Data:
    """So many labelled nodes of each class, then so many to choose the weights by and to test, all at random.

    The split of DIFFormer (Wu et al. 2023) and of the semi-supervised NodeFormer, drawn in the order of their code:
    each class is shuffled by itself, then all that is left of them together. Seed 123 is the one they report.

    Raises:
        ValueError: the graph has fewer nodes.

    >>> from models.datasets import karate_club
    >>> split = per_class(karate_club(), seed=0, labelled=2, validation=10, test=10)
    >>> split.y[split.train_mask].bincount().tolist(), int(split.val_mask.sum())
    ([2, 2, 2, 2], 10)
    """
    generator = torch.Generator().manual_seed(seed)
    classes = [_shuffled((data.y == label).nonzero()[:, 0], generator) for label in range(int(data.y.max()) + 1)]
    first = [nodes[:labelled] for nodes in classes]
    rest = _shuffled(torch.cat([nodes[labelled:] for nodes in classes]), generator)
    if min(map(len, first)) < labelled or len(rest) < validation + test:
        raise ValueError(
            f"the split takes {labelled} nodes of each class, then {validation} and {test}: the graph has "
            f"{data.num_nodes}, of classes {data.y.bincount().tolist()}; ask for fewer"
        )
    return _masked(data, torch.cat(first), rest[:validation], rest[validation : validation + test])


def shares(data: Data, seed: int, train: float, validation: float) -> Data:
    """These shares of the nodes at random, the rest to test: 0.6 and 0.2 for JK, thirds for DCNN.

    >>> from models.datasets import karate_club
    >>> split = shares(karate_club(), 0, 1 / 3, 1 / 3)
    >>> int(split.train_mask.sum()), int(split.val_mask.sum()), int(split.test_mask.sum())
    (11, 12, 11)
    """
    order = _shuffled(torch.arange(data.num_nodes), torch.Generator().manual_seed(seed))
    first, second = round(train * len(order)), round((train + validation) * len(order))
    return _masked(data, order[:first], order[first:second], order[second:])


def folds(labels: Tensor, seed: int, count: int = 10) -> Tensor:
    """The fold of each example, int64 ``[examples]``; every class is spread evenly over the ``count`` folds.

    >>> folds(torch.tensor([0, 0, 0, 0, 1, 1]), seed=0, count=2).bincount()
    tensor([3, 3])
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order)) % count)


def _shuffled(nodes: Tensor, generator: torch.Generator) -> Tensor:
    return nodes[torch.randperm(len(nodes), generator=generator)]


def _masked(data: Data, train: Tensor, validation: Tensor, test: Tensor) -> Data:
    """The same data with other masks."""
    data = copy.copy(data)
    none = torch.zeros(data.num_nodes, dtype=torch.bool)
    for name, nodes in (("train_mask", train), ("val_mask", validation), ("test_mask", test)):
        data[name] = none.index_fill(0, nodes, True)
    return data
