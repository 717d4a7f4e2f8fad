"""A stack of linear aggregation as a short list of operations on ``[rows, channels]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import Tensor


class Refused(Exception):
    """There is no fast path for a model or a question; the message says why."""


@dataclass(frozen=True)
class Rule:
    """The coefficients of an aggregation ``h_v = own x_v + sum over edges u -> v of c_uv x_u``.

    ``kind``: "sum", ``c = w``; "mean", ``c = w / max(edges into v, 1)``; "gcn", ``c = w (d_u d_v)^-1/2`` with ``d_v``
    the sum of the weights into ``v``. ``loop``: the weight of the loop that the layer gives to nodes without one, None
    where it adds none. ``weights``: the edge field that holds ``w``, 1 without. ``own``: the constant part of a node.
    """

    kind: Literal["sum", "mean", "gcn"]
    loop: float | None = None
    weights: str | None = None
    own: float = 0.0

    @property
    def looks_at_itself(self) -> bool:
        """Whether a node's own value is part of its aggregate, whatever its edges."""
        return self.loop is not None or self.own != 0


@dataclass(frozen=True, eq=False)
class Input:
    """The features."""

    sources: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Linear:
    """``x W^T + b``, ``weight [out, in]``."""

    sources: tuple[int, ...]
    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Aggregate:
    """``(A x) W^T + b`` for the matrix ``A`` of a rule; no ``W`` is the identity."""

    sources: tuple[int, ...]
    rule: Rule
    weight: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Attend:
    """``sum over u of alpha_uv W x_u``, ``alpha = softmax_u LeakyReLU(a_src W x_u + a_dst W x_v)``, heads side by side.

    ``weight [heads * channels, in]``, ``source``, ``target [heads, channels]``; ``loops``: every node attends to itself
    once, whatever loops are stored.
    """

    sources: tuple[int, ...]
    weight: Tensor
    source: Tensor
    target: Tensor
    slope: float
    loops: bool


@dataclass(frozen=True, eq=False)
class Affine:
    """``x * scale + shift`` channel by channel, either may be None."""

    sources: tuple[int, ...]
    scale: Tensor | None
    shift: Tensor | None


@dataclass(frozen=True, eq=False)
class Rowwise:
    """A function of each row alone, channels in dimension 1."""

    sources: tuple[int, ...]
    function: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Combine:
    """``sum of factor_i x_i``."""

    sources: tuple[int, ...]
    factors: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Concat:
    """Channels one after another."""

    sources: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Largest:
    """The largest of several values, channel by channel."""

    sources: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pool:
    """One row for the whole graph: the sum or the mean of its nodes."""

    sources: tuple[int, ...]
    mean: bool


Op: TypeAlias = Input | Linear | Aggregate | Attend | Affine | Rowwise | Combine | Concat | Largest | Pool


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in order, each naming the positions it reads, the last the answer; ``name``: what it was made of."""

    ops: tuple[Op, ...]
    name: str

    @property
    def depth(self) -> int:
        """Hops from which an edge can matter: the longest chain of aggregations."""
        depths: list[int] = []
        for op in self.ops:
            below = max((depths[i] for i in op.sources), default=0)
            depths.append(below + isinstance(op, (Aggregate, Attend)))
        return depths[-1]


def fused(ops: list[Op]) -> tuple[Op, ...]:
    """The same operations, each linear map that alone reads an aggregation joined with it, unread ones left out."""
    readers = [0] * len(ops)
    for op in ops:
        for i in op.sources:
            readers[i] += 1
    made = list(ops)
    for i, op in enumerate(ops):
        if not isinstance(op, Linear):
            continue
        below = made[op.sources[0]]
        if isinstance(below, Aggregate) and below.weight is None and below.bias is None and readers[op.sources[0]] == 1:
            made[i] = replace(below, weight=op.weight, bias=op.bias)
    return _only_read(made)


def _only_read(ops: list[Op]) -> tuple[Op, ...]:
    needed = {len(ops) - 1}
    for i in reversed(range(len(ops))):
        if i in needed:
            needed |= set(ops[i].sources)
    order = sorted(needed)
    position = {i: new for new, i in enumerate(order)}
    return tuple(replace(ops[i], sources=tuple(position[j] for j in ops[i].sources)) for i in order)
