"""What is called: the user's module without its wrappers, an encoder with its decoder, or the user's own call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

Decoder = Callable[[Tensor, Tensor], Tensor]
UserCall = Callable[[nn.Module, Any], Any]


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``: the same function.

    Coalitions are graphs of other sizes on one device: a compiled network would be compiled again for each, and a
    parallel one would scatter the edges of one graph.
    """
    while True:
        inner: Any = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


class Linked(nn.Module):
    """An encoder and a decoder as one module, so that link models are called like any other."""

    def __init__(self, module: nn.Module, encode: str, decode: Decoder) -> None:
        super().__init__()
        self.module = module
        self.encode = encode
        self.decode = decode

    @property
    def encoder(self) -> Callable[..., Any]:
        """What turns the graph into embeddings."""
        return getattr(self.module, self.encode)

    def forward(self, *args: Any, edge_label_index: Tensor, **arguments: Any) -> Tensor:
        """Scores of these pairs."""
        z = self.encoder(*args, **arguments)
        return self.decode(_rows_of(z), edge_label_index)


class Scripted(nn.Module):
    """A torch.jit module inside a plain one, whose parameters torch.func may replace."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **arguments: Any) -> Any:
        """What it answers."""
        return self.module(*args, **arguments)


class Called(nn.Module):
    """The user's own call on a data object, as a module."""

    def __init__(self, module: nn.Module, call: UserCall, decode: Decoder | None = None) -> None:
        super().__init__()
        self.module = module
        self.call = call
        self.decode = decode

    def forward(self, data: Data | HeteroData) -> Any:
        """What the user's call says of this graph; with a decoder, its scores of ``data.edge_label_index``."""
        found = self.call(self.module, data)
        if self.decode is None:
            return found
        return self.decode(_rows_of(found), data.edge_label_index)


def _rows_of(answer: Any) -> Tensor:
    """The embeddings, apart from what they are: an encoder may answer with its own parameter."""
    return (answer[0] if isinstance(answer, tuple) else answer).clone()


def callable_module(module: nn.Module, task: str, decoder: Decoder | None) -> nn.Module:
    """The module that answers for a task: itself, or an encoder and a decoder in one."""
    if isinstance(module, torch.jit.ScriptModule):
        return Scripted(module)
    if task != "edge":
        return module
    if decoder is not None:
        return Linked(module, "forward", decoder)
    decode: Any = getattr(module, "decode", None)
    if callable(decode) and callable(getattr(module, "encode", None)):
        return Linked(module, "encode", decode)
    return module
