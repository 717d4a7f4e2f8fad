"""A law that is a sum, found again by the glass box: its terms, not its sum alone, are held to those of the law."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from explain.guard import random_states_kept
from models import additive, checkpoints, descent
from models.additive import Additive
from models.checkpoints import Trained
from models.descent import descend


def own(x: Tensor) -> Tensor:
    """What each of three features says of its node, 0 where it is 0: ``sin 2a, b^2 / 2, 0``."""
    a, b, c = x.unbind(-1)
    return torch.stack([(2 * a).sin(), b.square() / 2, 0 * c], -1)


def told(x: Tensor) -> Tensor:
    """What it says of each node that hears it: ``0, -b / 2, |c| / 2``."""
    a, b, c = x.unbind(-1)
    return torch.stack([0 * a, -b / 2, c.abs() / 2], -1)


def planted(seed: int, nodes: int = 600, each: int = 3) -> Data:
    """``y_i = sum_f own_f(x_i) + sum over j -> i of sum_f told_f(x_j)``, with noise of a tenth; half is held out.

    >>> data = planted(0, nodes=4)
    >>> data.x.shape, data.edge_index.shape, data.y.shape
    (torch.Size([4, 3]), torch.Size([2, 12]), torch.Size([4]))
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, 3, generator=generator)
    source = torch.randint(nodes, (nodes * each,), generator=generator)
    target = torch.arange(nodes).repeat_interleave(each)
    clean = own(x).sum(1) + scatter(told(x).sum(1)[source], target, 0, nodes)
    train_mask = torch.rand(nodes, generator=generator) < 0.5
    return Data(
        x=x,
        edge_index=torch.stack([source, target]),
        y=clean + 0.1 * torch.randn(nodes, generator=generator),
        train_mask=train_mask,
        test_mask=~train_mask,
    )


def load_or_train(seed: int = 0, *, iterations: int = 1000, progress: bool = True) -> Trained:
    """An `Additive` for `planted`; ``facts["test_accuracy"]`` is how well its terms are the law's (`agreement`)."""
    data = planted(seed)
    with random_states_kept():
        torch.manual_seed(seed)
        net = Additive(3, 1)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        train(net, data, iterations, progress=progress)
        return net.state_dict(), {"test_accuracy": agreement(net, data)}

    code = sys.modules[__name__], additive, descent
    config = checkpoints.origin("Additive", code, [data.x, data.edge_index, data.y], seed=seed, iterations=iterations)
    found = checkpoints.kept("Additive", config, make)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)


def train(net: Additive, data: Data, iterations: int, *, progress: bool = True) -> Additive:
    """Minimise the squared error of the training nodes, in place."""

    def loss() -> Tensor:
        return F.mse_loss(net(data.x, data.edge_index)[data.train_mask, 0], data.y[data.train_mask])

    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=1e-3)
    descend(loss, optimizer, iterations, name="additive network", progress=progress)
    return net.eval()


@torch.no_grad()
def agreement(net: Additive, data: Data) -> float:
    """How much of the law's terms the network's own explain, of each feature and edge of held-out nodes.

    ``1 - sum (term - its law)^2 / sum (its law)^2``.
    """
    mine, heard = net.contributions(data.x, data.edge_index)
    held = data.test_mask[data.edge_index[1]]
    wanted = torch.cat([own(data.x)[data.test_mask], told(data.x)[data.edge_index[0]][held]])
    found = torch.cat([mine[data.test_mask, :, 0], heard[held, :, 0]])
    return 1 - float((found - wanted).square().sum() / wanted.square().sum())
