"""What each layer does, as operations: torch_geometric's linear aggregations, and what acts on rows alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg

from explain.graph.games.fast.program import (
    Affine,
    Aggregate,
    Attend,
    Combine,
    Concat,
    Largest,
    Linear,
    Op,
    Refused,
    Rowwise,
    Rule,
)

ELEMENTWISE: tuple[type, ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.GELU,
)
ELEMENTWISE += (nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.LogSigmoid)
NOTHING = (nn.Dropout, nn.AlphaDropout, nn.Identity)  # in eval mode


class Builder(Protocol):
    """Collects operations."""

    def add(self, op: Op) -> int:
        """Append an operation; its position."""

    def inside(self, module: nn.Module, source: int) -> int:
        """Append what a module of one argument does."""


def on_rows(builder: Builder, module: nn.Module, source: int) -> int | None:
    """Append a module that acts on each row alone; None where it is not one of those known."""
    kind = type(module)
    if kind in NOTHING:
        return source
    if kind is nn.ReLU:
        return builder.add(Rowwise((source,), torch.relu))
    if kind in ELEMENTWISE:
        return builder.add(Rowwise((source,), cast(Callable[[Tensor], Tensor], module.forward)))
    if kind in (nn.Linear, pyg.Linear):
        return builder.add(_linear(module, source))
    if kind in (nn.BatchNorm1d, pyg.BatchNorm):
        return builder.add(_batch_norm(module, source))
    if kind is nn.LayerNorm or (kind is pyg.LayerNorm and module.mode == "node"):
        return builder.add(Rowwise((source,), _layer_norm(module)))
    return None


def _linear(module: Any, source: int) -> Linear:
    return Linear((source,), module.weight.detach(), None if module.bias is None else module.bias.detach())


def _batch_norm(module: Any, source: int) -> Affine:
    norm = module if isinstance(module, nn.BatchNorm1d) else module.module
    if norm.running_mean is None:
        raise Refused("a BatchNorm without running statistics looks at the whole batch")
    running: Any = norm.running_var
    scale = (running.detach() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.detach()
    shift = -norm.running_mean.detach() * scale
    return Affine((source,), scale, shift if norm.bias is None else shift + norm.bias.detach())


def _layer_norm(module: Any) -> Callable[[Tensor], Tensor]:
    weight, bias, eps = module.weight, module.bias, module.eps
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        raise Refused("a LayerNorm over more than the channels")

    def normalised(x: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.dim() - 2)
        centred = x - x.mean(1, keepdim=True)
        made = centred * (centred.square().mean(1, keepdim=True) + eps).rsqrt()
        made = made if weight is None else made * weight.detach().view(shape)
        return made if bias is None else made + bias.detach().view(shape)

    return normalised


def convolution(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    """Append a message-passing layer applied to ``source``, with the edge field it is given as weights.

    Raises:
        Refused: a layer without a fast path, or one with settings that have none.
    """
    made = CONVOLUTIONS.get(type(conv))
    if made is None:
        raise Refused(f"{type(conv).__name__} has no fast path")
    if getattr(conv, "flow", "source_to_target") != "source_to_target":
        raise Refused("messages against the arrows")
    if conv.node_dim not in (-2, 0):
        raise Refused(f"nodes in dimension {conv.node_dim}")
    if weights is not None and type(conv) in (pyg.SAGEConv, pyg.GINConv, pyg.GATConv):
        raise Refused(f"{type(conv).__name__} with edge attributes")
    return made(builder, conv, source, weights)


def _aggregation(conv: Any) -> Any:
    kind = {"add": "sum", "sum": "sum", "mean": "mean"}.get(conv.aggr) if isinstance(conv.aggr, str) else None
    if kind is None:
        raise Refused(f"{type(conv).__name__} with aggr={conv.aggr!r}")
    return kind


def _normalised(conv: Any, weights: str | None) -> Rule:
    """The rule of GCN, SGC and APPNP.

    Raises:
        Refused: messages that are not summed.
    """
    if _aggregation(conv) != "sum":
        raise Refused(f"{type(conv).__name__} with aggr={conv.aggr!r}")
    if not getattr(conv, "normalize", True):
        return Rule("sum", weights=weights)
    fill = 2.0 if getattr(conv, "improved", False) and weights is not None else 1.0  # unweighted loops all count 1
    return Rule("gcn", fill if conv.add_self_loops else None, weights)


def _gcn(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    made = builder.add(Aggregate((source,), _normalised(conv, weights)))
    bias = None if conv.bias is None else conv.bias.detach()
    return builder.add(Linear((made,), conv.lin.weight.detach(), bias))


def _sgc(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    rule, linear = _normalised(conv, weights), _linear(conv.lin, source)
    if len(linear.weight) < linear.weight.size(1):  # fewer channels to carry around
        source = builder.add(Linear((source,), linear.weight))
        for _ in range(conv.K):
            source = builder.add(Aggregate((source,), rule))
        return source if linear.bias is None else builder.add(Affine((source,), None, linear.bias))
    for _ in range(conv.K):
        source = builder.add(Aggregate((source,), rule))
    return builder.add(Linear((source,), linear.weight, linear.bias))


def _appnp(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    rule, found = _normalised(conv, weights), source
    for _ in range(conv.K):
        found = builder.add(Aggregate((found,), rule))
        found = builder.add(Combine((found, source), (1 - conv.alpha, conv.alpha)))
    return found


def _sage(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    near = source
    if conv.project:
        near = builder.add(Rowwise((builder.add(_linear(conv.lin, source)),), torch.relu))
    near = builder.add(Aggregate((near,), Rule(_aggregation(conv))))
    made = builder.add(_linear(conv.lin_l, near))
    if conv.root_weight:
        made = builder.add(Combine((made, builder.add(_linear(conv.lin_r, source))), (1.0, 1.0)))
    if conv.normalize:
        made = builder.add(Rowwise((made,), lambda x: nn.functional.normalize(x, dim=1)))
    return made


def _gin(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    made = builder.add(Aggregate((source,), Rule(_aggregation(conv), own=1 + float(conv.eps))))
    return builder.inside(conv.nn, made)


def _graph_conv(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    near = builder.add(Aggregate((source,), Rule(_aggregation(conv), weights=weights)))
    near = builder.add(_linear(conv.lin_rel, near))
    return builder.add(Combine((near, builder.add(_linear(conv.lin_root, source))), (1.0, 1.0)))


def _gat(builder: Builder, conv: Any, source: int, weights: str | None) -> int:
    if conv.lin is None or conv.aggr not in ("add", "sum"):
        raise Refused("GATConv over two node types, or with another aggr")
    heads, channels = conv.heads, conv.out_channels
    near, own = (a.detach().view(heads, channels) for a in (conv.att_src, conv.att_dst))
    attend = Attend((source,), conv.lin.weight.detach(), near, own, conv.negative_slope, conv.add_self_loops)
    made = builder.add(attend)
    if not conv.concat:
        eye = torch.eye(channels, dtype=near.dtype, device=near.device)
        made = builder.add(Linear((made,), eye.repeat(1, heads) / heads))
    if conv.res is not None:
        made = builder.add(Combine((made, builder.add(_linear(conv.res, source))), (1.0, 1.0)))
    return made if conv.bias is None else builder.add(Affine((made,), None, conv.bias.detach()))


CONVOLUTIONS: dict[type, Callable[[Builder, Any, int, str | None], int]] = {
    pyg.GCNConv: _gcn,
    pyg.SGConv: _sgc,
    pyg.APPNP: _appnp,
    pyg.SAGEConv: _sage,
    pyg.GINConv: _gin,
    pyg.GraphConv: _graph_conv,
    pyg.GATConv: _gat,
}


def jumped(builder: Builder, jump: Any, sources: tuple[int, ...]) -> int:
    """Append jumping knowledge over the layers.

    Raises:
        Refused: a mode other than "cat" and "max".
    """
    if jump.mode not in ("cat", "max"):
        raise Refused(f"jumping knowledge with mode={jump.mode!r}")
    return builder.add(Concat(sources) if jump.mode == "cat" else Largest(sources))
