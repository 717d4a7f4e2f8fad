"""Attention that no softmax tells of: all-pair kernels, whose weights a function of the layer's inputs says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from explain.attention.written_out import shares
from explain.spelling import there_is

Told: TypeAlias = Mapping[str, Callable[..., Any]] | None


class ToldMap(NamedTuple):
    """Weights ``[batch, heads, queries, keys]``; or ``[E, heads]`` along ``edge_index [2, E]``."""

    weights: Tensor
    edge_index: Tensor | None


def layers_told(net: nn.Module, told: Told) -> dict[str, Callable[..., Any]]:
    """The function of each layer that is told of, by its name in the network; a pattern tells of no part of a layer.

    Raises:
        ValueError: a name that no module has.
        TypeError: no functions by name.
    """
    if told is None:
        return {}
    if not isinstance(told, Mapping) or not all(callable(function) for function in told.values()):
        raise TypeError(
            "attention must say a function for each layer by name, {'convs.*': lambda layer, *inputs: weights}, got "
            f"{type(told).__name__}"
        )
    names = [name or type(net).__name__ for name, _ in net.named_modules()]
    found: dict[str, Callable[..., Any]] = {}
    for pattern, function in told.items():
        own = [name for name in names if fnmatchcase(name, pattern)]
        if not own:
            there = there_is(pattern, names[:12])
            raise ValueError(f"attention={pattern!r} is no module of {type(net).__name__}{there}")
        found |= dict.fromkeys((name for name in own if not _inside(name, own)), function)
    return found


def _inside(name: str, layers: Collection[str]) -> bool:
    """Whether it is a part of one of the layers: "convs.*" matches ``convs.0.lin`` too."""
    return any(name.startswith(f"{layer}.") for layer in layers)


@torch.no_grad()
def asked(function: Callable[..., Any], name: str, layer: nn.Module, args: Any, kwargs: Any, flow: str) -> ToldMap:
    """The weights that a function says of one call of a layer.

    Raises:
        ValueError: they are no shares, each row with a sum of 1.
        TypeError: neither weights nor ``(edge_index, weights)``.
    """
    answer = function(layer, *args, **kwargs)
    if isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Tensor) for part in answer):
        edge_index, weights = answer
        weights = weights.detach().reshape(len(weights), -1)
        if edge_index.dim() != 2 or len(weights) != edge_index.size(1):
            raise ValueError(
                f"attention of {name} must be (edge_index [2, E], weights [E, heads]), got {list(edge_index.shape)} "
                f"and {list(answer[1].shape)}"
            )
        if not shares(weights, edge_index[0 if flow == "target_to_source" else 1]):
            raise ValueError(f"attention of {name}: the weights of the edges into each node must add up to 1")
        return ToldMap(weights, edge_index.detach())
    if not isinstance(answer, Tensor) or not 2 <= answer.dim() <= 4:
        got = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise TypeError(
            f"attention of {name} must be weights [queries, keys], [heads, queries, keys] or [batch, heads, queries, "
            f"keys], or (edge_index, weights), got {got}"
        )
    weights = answer.detach()
    gap = float((weights.sum(-1) - 1).abs().max())
    if not gap < 1e-3 or float(weights.min()) < 0:
        raise ValueError(
            f"attention of {name} must be shares, never negative and each row with a sum of 1, got rows that miss it "
            f"by {gap:.3g} and a smallest weight of {float(weights.min()):.3g}; weights with signs, as SGFormer's, "
            "are read by explain.analysis.diffusivity"
        )
    return ToldMap(weights.view(*[1] * (4 - weights.dim()), *weights.shape), None)
