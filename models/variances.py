"""Sets whose number is a mean over ordered pairs: what Janossy pooling of two can say, and of one cannot."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.guard import evaluating, random_states_kept
from models import checkpoints, descent, janossy
from models.checkpoints import Trained
from models.descent import descend
from models.janossy import JanossyPooling


class Sets(NamedTuple):
    """``members [n, 1]``, the set ``[n]`` of each, and the variance ``[sets]`` of each set."""

    members: Tensor
    owner: Tensor
    variance: Tensor


def sets(count: int, seed: int) -> Sets:
    """Two to six numbers about a mean of their own, which says nothing of how far apart they are.

    ``sum over i != j of (x_i - x_j)^2 / (2 n (n - 1))``, the variance, is a mean over ordered pairs.

    >>> found = sets(2, seed=0)
    >>> found.variance[0].isclose(found.members[found.owner == 0].var())
    tensor(True)
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2, 7, (count,), generator=generator)
    owner = torch.arange(count).repeat_interleave(sizes)
    mean, width = (torch.randn(count, generator=generator), torch.rand(count, generator=generator))
    members = mean[owner] + width[owner] * torch.randn(len(owner), generator=generator)
    variance = torch.stack([part.var() for part in members.split(sizes.tolist())])
    return Sets(members[:, None], owner, variance)


class SetNumber(nn.Module):
    """A number of each set: linear in what `JanossyPooling` says of it.

    Args:
        k: members that are read together.
        hidden: columns of what is said.
    """

    def __init__(self, k: int, hidden: int = 16) -> None:
        super().__init__()
        self.pooling, self.out = JanossyPooling(1, hidden, k), nn.Linear(hidden, 1)

    def forward(self, members: Tensor, owner: Tensor, count: int) -> Tensor:
        """Members ``[n, 1]`` and the set ``[n]`` of each to numbers ``[count]``."""
        return self.out(self.pooling(members, owner, count))[:, 0]


def load_or_train(k: int, *, seed: int = 0, iterations: int = 600, progress: bool = True) -> Trained:
    """A `SetNumber` for variances; ``facts["test_accuracy"]`` is the share that it explains of other sets'."""
    learned, held_out = sets(600, seed=2 * seed), sets(600, seed=2 * seed + 1)
    with random_states_kept():
        torch.manual_seed(seed)
        net = SetNumber(k)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        train(net, learned, iterations, progress=progress)
        return net.state_dict(), {"test_accuracy": explained(net, held_out)}

    code = sys.modules[__name__], janossy, descent
    config = checkpoints.origin("SetNumber", code, [*learned, *held_out], k=k, seed=seed, iterations=iterations)
    found = checkpoints.kept(f"SetNumber-{k}", config, make)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)


def train(net: SetNumber, data: Sets, iterations: int, *, progress: bool = True) -> SetNumber:
    """Minimise the squared error of all sets, in place."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)

    def loss() -> Tensor:
        return F.mse_loss(net(data.members, data.owner, len(data.variance)), data.variance)

    descend(loss, optimizer, iterations, name="set number", progress=progress)
    return net.eval()


@torch.no_grad()
def explained(net: SetNumber, data: Sets) -> float:
    """``1 - mean (y - f)^2 / var(y)``."""
    with evaluating(net):
        missed = net(data.members, data.owner, len(data.variance)) - data.variance
    return 1 - float(missed.square().mean() / data.variance.var(correction=0))
