"""Pruning: the number against sparsity, for an order in which weights or edges go, beside chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

import torch
from torch import Tensor, nn

from explain.guard import untouched

SPARSITIES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)


@dataclass(frozen=True)
class PruningCurve:
    """The number after a share of the parts has gone.

    Args:
        sparsity: shares that are gone, 0 to 1.
        values: the number at each, in the order that was given.
        chance: the mean over random orders at each.
        lowest: the lowest of the random orders at each.
        highest: the highest of them.
    """

    sparsity: tuple[float, ...]
    values: tuple[float, ...]
    chance: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    @property
    def area(self) -> float:
        """The mean height by the trapezoid rule: high where what goes first does not matter."""
        return _area(self.sparsity, self.values)

    @property
    def area_of_chance(self) -> float:
        """The same of random orders."""
        return _area(self.sparsity, self.chance)


def pruning_curve(
    order: Tensor,
    number: Callable[[Tensor], float],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    draws: int = 3,
    seed: int = 0,
) -> PruningCurve:
    """The number of what is kept, for a growing share of parts gone, the first of ``order`` first.

    Args:
        order: int64 ``[parts]``, each part once, the least important first: `by_magnitude`, `by_saliency`, or
            ``why.scores.abs().argsort()``.
        number: of ``keep``, bool ``[parts]``: `weights_kept`, or of edges ``lambda keep: accuracy(net(x,
            edge_index[:, keep]))``.
        sparsities: shares that go, growing.
        draws: random orders beside it.
        seed: of these.

    Raises:
        ValueError: an order that does not have each part once; shares outside of 0 to 1 or not growing; no draws.

    >>> worth = torch.tensor([4.0, 1.0, 2.0, 1.0])
    >>> curve = pruning_curve(worth.argsort(), lambda keep: float(worth[keep].sum()), (0, 0.5, 1), seed=1)
    >>> curve.values, curve.area > curve.area_of_chance
    ((8.0, 6.0, 0.0), True)
    """
    parts, shares = len(order), tuple(float(share) for share in sparsities)
    if order.dim() != 1 or not torch.equal(order.sort().values, torch.arange(parts, device=order.device)):
        raise ValueError("order must have each part once, positions from 0, such as scores.abs().argsort()")
    growing = all(low < high for low, high in pairwise(shares))
    if not shares or not growing or shares[0] < 0 or shares[-1] > 1 or draws < 1:
        raise ValueError(f"sparsities must grow within 0 to 1, with draws of 1 or more, got {shares} and {draws}")
    generator = torch.Generator().manual_seed(seed)
    chances = [torch.randperm(parts, generator=generator) for _ in range(draws)]
    values, *rest = ([number(_kept(one, share)) for share in shares] for one in (order, *chances))
    at = list(zip(*rest, strict=True))
    lowest, highest = tuple(min(row) for row in at), tuple(max(row) for row in at)
    return PruningCurve(shares, tuple(values), tuple(mean(row) for row in at), lowest, highest)


def weights_kept(net: nn.Module, number: Callable[[nn.Module], float]) -> Callable[[Tensor], float]:
    """The number of a network whose other weights are 0, as a function of ``keep [weights]``.

    The network stays as it is. Weights are the entries of its parameters with two axes or more, one parameter after
    another; biases stay.

    >>> net = nn.Linear(3, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 2.0)
    >>> weights_kept(net, lambda net: float(net(torch.ones(3))))(torch.tensor([True, False, True]))
    4.0
    """

    def kept(keep: Tensor) -> float:
        with untouched(net), torch.no_grad():
            own = _weights(net)
            before = [weight.detach().clone() for weight in own]
            try:
                for weight, part in zip(own, keep.split([weight.numel() for weight in own]), strict=True):
                    weight.mul_(part.view_as(weight).to(weight))
                return number(net)
            finally:
                for weight, values in zip(own, before, strict=True):
                    weight.copy_(values)

    return kept


def by_magnitude(net: nn.Module) -> Tensor:
    """The order of weights by ``|w|``, the smallest first, int64 ``[weights]``."""
    return torch.cat([weight.detach().abs().flatten() for weight in _weights(net)]).argsort(stable=True)


def by_saliency(net: nn.Module, losses: Callable[[nn.Module], Tensor]) -> Tensor:
    """The order of weights by ``sum_i (w dl_i/dw)^2``, the smallest first, int64 ``[weights]``.

    What each example's loss changes without the weight, to first order, squared: the sum of the gradients itself is
    nothing where training has converged.

    Args:
        net: the network.
        losses: of the network, one an example, ``[examples]``.

    Raises:
        ValueError: losses of another shape.

    Source: Theis et al. 2018; Molchanov et al. 2019.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> by_saliency(net, lambda net: net(torch.tensor([[0.0, 1.0], [0.0, 2.0]])).squeeze(1)).tolist()
    [0, 1]
    """
    with untouched(net), torch.enable_grad():
        own = [weight.requires_grad_() for weight in _weights(net)]
        found = losses(net)
        if found.dim() != 1:
            raise ValueError(f"losses must be one an example, [examples] (reduction='none'), got {list(found.shape)}")
        worth = [torch.zeros_like(weight) for weight in own]
        for one in found:
            slopes = torch.autograd.grad(one, own, retain_graph=True, allow_unused=True)
            for total, weight, slope in zip(worth, own, slopes, strict=True):
                if slope is not None:
                    total += (weight.detach() * slope).square()
    return torch.cat([one.flatten() for one in worth]).argsort(stable=True)


def _weights(net: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in net.parameters() if parameter.dim() > 1]


def _kept(order: Tensor, share: float) -> Tensor:
    keep = torch.ones(len(order), dtype=torch.bool, device=order.device)
    keep[order[: round(share * len(order))]] = False
    return keep


def _area(x: Sequence[float], y: Sequence[float]) -> float:
    """The mean height over the shares that were asked for; of one share its value."""
    steps = zip(x, x[1:], y, y[1:], strict=False)
    return sum((b - a) * (c + d) / 2 for a, b, c, d in steps) / (x[-1] - x[0]) if len(x) > 1 else y[0]
