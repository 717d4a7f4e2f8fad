"""What a function in a forward does, as operations: activations, sums, constants, pooling."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import nn as pyg

from explain.graph.games.fast.layers import Builder
from explain.graph.games.fast.program import Affine, Combine, Concat, Largest, Pool, Refused, Rowwise


@dataclass(frozen=True)
class Rows:
    """A computed value ``[rows, channels]``: the position of its operation."""

    at: int


POOLS = {pyg.global_add_pool: False, pyg.global_mean_pool: True}
_ELEMENTWISE: set[Any] = {torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.exp, torch.square, torch.sin}
_ELEMENTWISE |= {torch.cos, torch.abs, F.relu, F.relu_, F.relu6, F.elu, F.elu_, F.leaky_relu, F.leaky_relu_, F.gelu}
_ELEMENTWISE |= {F.silu, F.selu, F.celu, F.softplus, F.hardtanh, F.mish, F.logsigmoid, F.sigmoid, F.tanh, F.hardswish}
_METHODS = {name: getattr(torch, name) for name in ("relu", "sigmoid", "tanh", "exp", "square", "abs", "sin", "cos")}
_METHODS["relu_"] = torch.relu
_ALONG: dict[Any, Callable[..., Tensor]] = {"log_softmax": F.log_softmax, "softmax": F.softmax}
_ALONG |= {F.log_softmax: F.log_softmax, torch.log_softmax: F.log_softmax, F.softmax: F.softmax}
_ALONG |= {torch.softmax: F.softmax, F.normalize: F.normalize}
_ARITHMETIC: dict[Any, str] = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "add_": "add", "mul_": "mul"}
_ARITHMETIC |= {operator.add: "add", operator.iadd: "add", torch.add: "add", operator.sub: "sub", torch.sub: "sub"}
_ARITHMETIC |= {operator.mul: "mul", operator.imul: "mul", torch.mul: "mul", operator.truediv: "div", torch.div: "div"}


def called(builder: Builder, target: Any, args: tuple, kwargs: dict[str, Any]) -> Rows:
    """Append the call of a function, or of a method by name, in a forward.

    Raises:
        Refused: a function without a fast path.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    if target in POOLS:
        return Rows(builder.add(Pool((rows(args[0]),), POOLS[target])))
    if target in (F.dropout, F.alpha_dropout):
        if kwargs.get("training", args[2] if len(args) > 2 else True):
            raise Refused("dropout that stays on in eval mode")
        return Rows(rows(args[0]))
    if target in _ALONG:
        return _along(builder, name, _ALONG[target], args, kwargs)
    if target in _ELEMENTWISE or target in _METHODS:
        return _elementwise(builder, _METHODS.get(target, target), args, kwargs)
    if target in (torch.cat, torch.concat):
        if kwargs.get("dim", args[1] if len(args) > 1 else 0) not in (1, -1):
            raise Refused("rows put one after another")
        return Rows(builder.add(Concat(tuple(rows(part) for part in args[0]))))
    if target in (torch.maximum, torch.max) and len(args) == 2:
        return Rows(builder.add(Largest((rows(args[0]), rows(args[1])))))
    if target in _ARITHMETIC and len(args) == 2 and not kwargs:
        return _arithmetic(builder, _ARITHMETIC[target], *args)
    raise Refused(f"{name} in forward has no fast path")


def rows(value: Any) -> int:
    """The position of a computed value.

    Raises:
        Refused: it is something else.
    """
    if not isinstance(value, Rows):
        raise Refused(f"forward computes with {type(value).__name__} where rows were expected")
    return value.at


def _elementwise(builder: Builder, function: Callable[..., Tensor], args: tuple, kwargs: dict[str, Any]) -> Rows:
    options = {name: value for name, value in kwargs.items() if name != "inplace"}
    if any(isinstance(value, Rows) for value in (*args[1:], *options.values())):
        raise Refused("an activation with computed settings")
    if len(args) == 1 and not options:
        return Rows(builder.add(Rowwise((rows(args[0]),), function)))
    return Rows(builder.add(Rowwise((rows(args[0]),), lambda x: function(x, *args[1:], **options))))


def _along(builder: Builder, name: str, function: Callable[..., Tensor], args: tuple, kwargs: dict[str, Any]) -> Rows:
    options = {key: value for key, value in kwargs.items() if key not in ("dim", "_stacklevel", "dtype")}
    dim = kwargs.get("dim", 1 if function is F.normalize else args[1] if len(args) > 1 else None)
    if dim not in (1, -1) or kwargs.get("dtype") is not None or (function is F.normalize and len(args) > 1):
        raise Refused(f"{name} over anything but the channels")
    return Rows(builder.add(Rowwise((rows(args[0]),), lambda x: function(x, dim=1, **options))))


def _arithmetic(builder: Builder, name: str, left: Any, right: Any) -> Rows:
    if isinstance(left, Rows) and isinstance(right, Rows):
        if name not in ("add", "sub"):
            raise Refused(f"{name} of two computed values")
        return Rows(builder.add(Combine((left.at, right.at), (1.0, 1.0 if name == "add" else -1.0))))
    if isinstance(right, Rows):
        if name not in ("add", "mul"):
            raise Refused(f"a constant {name} a value")
        left, right = right, left
    constant = _constant(right)
    if name in ("add", "sub"):
        return Rows(builder.add(Affine((rows(left),), None, constant if name == "add" else -constant)))
    return Rows(builder.add(Affine((rows(left),), constant if name == "mul" else 1 / constant, None)))


def _constant(value: Any) -> Tensor:
    if isinstance(value, (int, float)):
        return torch.tensor(float(value), dtype=torch.float64).view(1)
    if not isinstance(value, Tensor) or (value.dim() > 0 and value.numel() != value.size(-1)):
        raise Refused("a constant that differs from row to row")
    return value.detach().reshape(-1)
