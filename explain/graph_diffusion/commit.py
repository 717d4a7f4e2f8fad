"""Readings of a run that are not credit: when each label is settled, and whether labels are right together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def settled_from(classes: Tensor, last: Tensor) -> Tensor:
    """The first step from which each node's class stays what it ends as, int64 ``[...]``; ``steps`` for never before.

    Args:
        classes: what is foreseen at each step, int64 ``[steps, ...]``.
        last: what the run ends in, int64 ``[...]``.

    >>> settled_from(torch.tensor([[0, 1], [1, 1], [1, 0]]), torch.tensor([1, 0]))
    tensor([1, 2])
    """
    steps = torch.arange(1, len(classes) + 1).view(-1, *[1] * last.dim()).to(classes.device)
    return torch.where(classes != last, steps, 0).amax(0)


class Together(NamedTuple):
    """How right runs are, node by node and neighbourhood by neighbourhood.

    ``node``: share of right labels. ``subgraph``: share of nodes right together with all their neighbours, in one run.
    ``independent``: what that share would be if every label were drawn by itself from its own marginal.
    ``joint - independent`` is what labels know of one another.
    """

    node: float
    subgraph: float
    independent: float


def together(ends: Tensor, truth: Tensor, edge_index: Tensor, judged: Tensor) -> Together:
    """See `Together`; means over runs and over the nodes that are ``judged``.

    Args:
        ends: the class of each node in each run, int64 ``[runs, n]``.
        truth: int64 ``[n]``.
        edge_index: ``[2, E]``.
        judged: bool ``[n]``.
    """
    right = (ends == truth).double()  # [runs, n]
    sources, targets = edge_index
    all_right = right.clone().scatter_reduce(
        1, targets.expand(len(ends), -1), right[:, sources], "amin", include_self=True
    )
    marginal = right.mean(0)
    apart = marginal.clone().scatter_reduce(0, targets, marginal[sources], "prod", include_self=True)
    return Together(float(right[:, judged].mean()), float(all_right[:, judged].mean()), float(apart[judged].mean()))
