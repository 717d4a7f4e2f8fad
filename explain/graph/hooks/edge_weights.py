"""Weights of edges for layers that take them, whether or not the user's forward passes any."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch_geometric.nn import MessagePassing


def takes_weights(layer: nn.Module) -> bool:
    """Whether a layer can be given a weight an edge."""
    return isinstance(layer, MessagePassing) and "edge_weight" in inspect.signature(layer.forward).parameters


@contextmanager
def edge_weights(module: nn.Module, weights: Tensor) -> Iterator[None]:
    """Within: layers that take edge weights and are given none are given these."""

    def given(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        bound = inspect.signature(layer.forward).bind(*args, **kwargs)
        index = bound.arguments.get("edge_index")
        fits = isinstance(index, Tensor) and index.size(-1) == len(weights)
        if fits and bound.arguments.get("edge_weight") is None:
            bound.arguments["edge_weight"] = weights
        return bound.args, bound.kwargs

    layers = [layer for layer in module.modules() if takes_weights(layer)]
    handles = [layer.register_forward_pre_hook(given, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
