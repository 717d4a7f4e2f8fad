"""What each attention of a network reads, and which of its tokens follow when something that it is given is moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from explain.attention.interception import Interception, attends
from explain.guard import random_states_kept
from explain.types import Unsupported

_MOVED = 1e-5  # relative change of a query or key from which on it follows


@dataclass(frozen=True, eq=False)
class Read:
    """What one attention reads: ``queries [q, 4]``, ``keys`` and ``values [k, 4]``, for ``rows`` of a batch.

    Of every token all features of all rows and heads, in four random directions: enough to see whether it changes, and
    little enough to keep of every layer.
    """

    module: str
    queries: Tensor
    keys: Tensor
    values: Tensor
    rows: int


class _Reads(Interception):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.found: list[Read] = []

    def scaled_dot_product(self, arguments: dict[str, Any]) -> Tensor:
        query = arguments["query"]
        q, k, v = (_print(arguments[name].movedim(-2, 0)) for name in ("query", "key", "value"))
        rows = query[..., 0, 0].numel() // (query.size(-3) if query.dim() > 3 else 1)
        self.found.append(Read(self.parts[-1], q, k, v, rows))
        return super().scaled_dot_product(arguments)

    def multi_head(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        query = arguments["query"]  # [tokens, batch, width] or [tokens, width]
        q, k, v = (_print(arguments[name]) for name in ("query", "key", "value"))
        self.found.append(Read(self.parts[-1], q, k, v, query.size(1) if query.dim() == 3 else 1))
        return super().multi_head(arguments)


def _print(tokens: Tensor) -> Tensor:
    """``[n, ...] -> [n, 4]``, the same directions for as many features."""
    features = tokens.detach().flatten(1).float()
    directions = torch.randn(features.size(1), 4, generator=torch.Generator().manual_seed(0))
    return features @ directions.to(features.device) / features.size(1) ** 0.5


class Reads(list[Read]):
    """What the attentions of one call read, in order; ``unseen``: layers whose attention cannot be seen."""

    def __init__(self, found: list[Read], unseen: list[str]) -> None:
        super().__init__(found)
        self.unseen = unseen


def reads(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reads:
    """What the attentions of one call read, in order; random states stay as they are."""
    watch = _Reads(net)
    with watch.opened(), torch.no_grad(), random_states_kept():
        net(*args, **kwargs)
    return Reads(watch.found, _unseen(net, watch))


def _unseen(net: nn.Module, watch: _Reads) -> list[str]:
    """Layers that are attention by their names, and ran without one that was seen in, below or around them."""
    seen = {read.module for read in watch.found}

    def near(name: str) -> bool:
        return any(f"{a}.".startswith(f"{b}.") for one in seen for a, b in ((one, name), (name, one)))

    return [name for name, part in net.named_modules() if name in watch.ran and attends(part) and not near(name)]


def follow(before: Tensor, after: Tensor) -> Tensor:
    """Which tokens ``[n, d]`` change, bool ``[n]``."""
    return (after - before).abs().amax(1) > _MOVED * before.abs().max().clamp_min(1e-12)


class _Called(Exception):
    """Ends a run at the network's first call."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args_, self.kwargs = args, kwargs


def first_call(net: nn.Module, run: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that a run calls the network with first, where the run then ends.

    Raises:
        Unsupported: it never calls it.
    """

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        raise _Called(args, kwargs)

    handle = net.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except _Called as met:
        return met.args_, met.kwargs
    finally:
        handle.remove()
    raise Unsupported(f"the run never called {type(net).__name__} itself")
