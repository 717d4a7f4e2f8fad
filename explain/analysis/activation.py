"""What activates a unit most: an input that is sought for it, beside the best one that the data have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explain.guard import untouched

Read = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class MostActivating:
    """An input that was sought, and the best of the data beside it.

    Args:
        input: the input that was found, within the bounds, of the shape that was asked for.
        activation: of the unit at it.
        best: which of the real inputs activates the unit most, or None where none were given.
        best_activation: of the unit at that one, or None.
        climb: the activation after each step, the best of all starts.
        starts: what each start ended at; far apart where the landscape has several hills.
    """

    input: Tensor
    activation: float
    best: int | None
    best_activation: float | None
    climb: tuple[float, ...]
    starts: tuple[float, ...]


def unit(layer: str, channel: int, call: Callable[[nn.Module, Tensor], Any] | None = None) -> Read:
    """Reads a unit: the mean of one channel of a layer's output, in the call of the network that runs it.

    Of ``[n, channels, *places]`` the channel is the second axis, of ``[n, channels]`` too; of a graph's ``[nodes,
    channels]`` it is one unit of every node, their mean.

    Args:
        layer: its name in the network.
        channel: which.
        call: how the network is given an input, ``net(input)`` where not given: ``lambda net, x: net(x, t, label)``.

    Raises:
        ValueError: on reading, a layer that is not there or that the call does not run; a channel that it lacks.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> unit("0", 1)(net, torch.zeros(1, 2)).shape
    torch.Size([])
    """

    def read(net: nn.Module, x: Tensor) -> Tensor:
        with _outputs(net, layer) as seen:
            (call or (lambda net, x: net(x)))(net, x)
        if not seen:
            raise ValueError(f"{layer!r} did not run in this call of {type(net).__name__}")
        output = seen[-1]
        if not 0 <= channel < output.size(1):
            raise ValueError(f"{layer!r} has channels 0 to {output.size(1) - 1}, got {channel}")
        return output[:, channel].mean()

    return read


def most_activating(
    net: nn.Module,
    read: Read,
    shape: Sequence[int],
    bounds: tuple[float, float],
    *,
    real: Sequence[Tensor] | Tensor | None = None,
    starts: int = 3,
    steps: int = 100,
    rate: float = 0.05,
    smooth: float = 0.0,
    seed: int = 0,
) -> MostActivating:
    """``argmax read(net, x)`` over ``x`` within bounds, by projected gradient ascent from several starts.

    Each step goes ``rate`` of the range along the sign of the gradient, shrinking to nothing, and back into the bounds:
    a linear unit is driven into a corner of them. What is found is the best of all starts and steps, a lower bound of
    the maximum; of an input that no data look like, unless ``smooth`` asks for one that changes little from place to
    place.

    Args:
        net: the network.
        read: of network and input, the activation, a scalar: `unit`, or any function, such as ``lambda net, x: net(
            data.x.index_put((node,), x), data.edge_index)[42, 3]`` for the features of a node.
        shape: of the input.
        bounds: the lowest and the highest number that the input may have, those of the data.
        real: inputs of the data, each of that shape, to hold it against.
        starts: how many, drawn evenly within the bounds.
        steps: of each.
        rate: the first step, as a share of the range.
        smooth: weight of the mean squared difference of neighbours along the last two axes, which is taken off while it
            climbs; what is told is the activation itself.
        seed: of the starts.

    Raises:
        ValueError: bounds that are no range; an activation that is no scalar or hangs on no input; real inputs of
            another shape.

    Source: Erhan et al. 2009; Mahendran and Vedaldi 2016 (smooth).

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
    >>> found = most_activating(net, unit("Linear", 0), (1, 2), (0.0, 1.0), real=[torch.tensor([[0.5, 0.5]])])
    >>> found.input.tolist(), found.activation, found.best_activation
    ([[1.0, 0.0]], 2.0, 0.5)
    """
    low, high = (float(bound) for bound in bounds)
    if not low < high or starts < 1 or steps < 1:
        raise ValueError(f"bounds must be a range (low, high), with a start and a step or more, got {bounds}")
    generator = torch.Generator().manual_seed(seed)
    with untouched(net):
        like = next(net.parameters(), torch.zeros(()))
        climbs = [
            _climbed(net, read, drawn, low, high, steps, rate, smooth)
            for drawn in (
                (low + (high - low) * torch.rand(*shape, generator=generator)).to(like) for _ in range(starts)
            )
        ]
        best, best_activation = _best_of(net, read, real, tuple(shape), like)
    x, reached, climb = max(climbs, key=lambda found: found[1])
    return MostActivating(x, reached, best, best_activation, climb, tuple(found[1] for found in climbs))


def most_activating_nodes(
    activations: Tensor, edge_index: Tensor, k: int = 5, hops: int = 2
) -> list[tuple[int, float, Tensor]]:
    """The ``k`` nodes of the data that activate a unit most, each with the nodes that it hears within so many layers.

    Args:
        activations: of the unit at each node, ``[nodes]``, such as a column of a layer's output.
        edge_index: ``[2, edges]``.
        k: how many.
        hops: layers up to the unit: what lies further cannot have moved it.

    Raises:
        ValueError: activations that are not one a node.

    >>> most_activating_nodes(torch.tensor([0.0, 3.0, 1.0]), torch.tensor([[0, 2], [1, 0]]), k=1, hops=1)
    [(1, 3.0, tensor([0, 1]))]
    """
    if activations.dim() != 1:
        raise ValueError(f"activations must be one a node, [nodes], got {list(activations.shape)}: take one channel")
    top = activations.detach().topk(min(k, len(activations)))
    found = []
    for value, node in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        heard = torch.zeros(len(activations), dtype=torch.bool, device=edge_index.device)
        heard[node] = True
        for _ in range(hops):
            heard[edge_index[0][heard[edge_index[1]]]] = True
        found.append((node, value, heard.nonzero().view(-1)))
    return found


def _climbed(
    net: nn.Module, read: Read, x: Tensor, low: float, high: float, steps: int, rate: float, smooth: float
) -> tuple[Tensor, float, tuple[float, ...]]:
    """Where one start led: the best input, its activation, and the activation at each step.

    Raises:
        ValueError: an activation that is no number of the input.
    """
    best, reached, climb = x, float("-inf"), []
    for step in range(steps + 1):
        x = x.detach().requires_grad_()
        activation = read(net, x)
        if activation.numel() != 1 or not activation.requires_grad:
            raise ValueError(
                f"an activation must be one number that hangs on the input, got {list(activation.shape)}"
                + ("" if activation.requires_grad else ", which has no gradient")
            )
        climb.append(float(activation.detach()))
        if climb[-1] > reached:
            best, reached = x.detach(), climb[-1]
        (slope,) = torch.autograd.grad(activation - smooth * _roughness(x), x)
        size = rate * (high - low) * (1 - step / (steps + 1))
        x = (x.detach() + size * slope.sign()).clamp(low, high)
    return best, reached, tuple(climb)


def _roughness(x: Tensor) -> Tensor:
    """The mean squared difference of neighbours along the last two axes."""
    axes = [axis for axis in range(max(0, x.dim() - 2), x.dim()) if x.size(axis) > 1]
    return torch.stack([x.diff(dim=axis).square().mean() for axis in axes]).sum() if axes else x.new_zeros(())


@torch.no_grad()
def _best_of(
    net: nn.Module, read: Read, real: Sequence[Tensor] | Tensor | None, shape: tuple[int, ...], like: Tensor
) -> tuple[int | None, float | None]:
    """Which of the real inputs activates most, and how far.

    Raises:
        ValueError: one of another shape.
    """
    if real is None or not len(real):
        return None, None
    wrong = next((one for one in real if tuple(one.shape) != shape), None)
    if wrong is not None:
        raise ValueError(f"real inputs must have the shape {list(shape)}, got {list(wrong.shape)}")
    reached = [float(read(net, one.to(like))) for one in real]
    best = max(range(len(reached)), key=reached.__getitem__)
    return best, reached[best]


@contextmanager
def _outputs(net: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Within: what a layer gives, call by call.

    Raises:
        ValueError: a layer that is not there.
    """
    parts = {name or type(net).__name__: part for name, part in net.named_modules()}
    if layer not in parts:
        raise ValueError(f"{layer!r} is no module of {type(net).__name__}; it has {', '.join(list(parts)[:12])}")
    seen: list[Tensor] = []
    hook = parts[layer].register_forward_hook(lambda layer, args, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()
