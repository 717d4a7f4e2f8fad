"""Derivatives as linear maps on one flat vector: built once by ``torch.func``, applied many times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from explain.types import Parameters, Unsupported

LinearMap: TypeAlias = Callable[[Tensor], Tensor]
CHUNK = 32  # columns of a block that go through one vmap


class Flat:
    """Parameters as one vector and back, in the order of their names in the dictionary.

    >>> flat = Flat({"a": torch.ones(2, 2), "b": torch.zeros(1)})
    >>> flat.size, flat.vector({"a": torch.ones(2, 2), "b": torch.zeros(1)})
    (5, tensor([1., 1., 1., 1., 0.]))
    """

    def __init__(self, params: Parameters) -> None:
        self.like = params
        self.sizes = [p.numel() for p in params.values()]
        self.size = sum(self.sizes)

    def vector(self, params: Parameters) -> Tensor:
        """``[p]``."""
        return torch.cat([params[name].reshape(-1) for name in self.like])

    def params(self, vector: Tensor) -> Parameters:
        """By name, each with its own shape and dtype."""
        pieces = zip(self.like.items(), vector.split(self.sizes), strict=True)
        return {name: piece.view(p.shape).to(p.dtype) for (name, p), piece in pieces}


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within: attention by plain matrix products, as torch's fused kernels have no second derivative.

    Raises:
        Unsupported: an operation of the model has no second derivative.
    """
    with sdpa_kernel(SDPBackend.MATH):
        try:
            yield
        except (RuntimeError, NotImplementedError) as error:
            if "derivative" not in str(error) and "differentiable" not in str(error):
                raise
            raise Unsupported(
                f"influence needs second derivatives, which an operation of this model does not have ({error}): "
                "replace it by plain torch operations, or freeze the parameters before it"
            ) from error


def pullback(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, LinearMap]:
    """``f(at)`` and ``u -> J^T u``, which may be applied again and again."""
    with twice_differentiable():
        value, pull = vjp(f, at)[:2]
    return value, lambda u: pull(u, retain_graph=True)[0]


def pushforward(pull: LinearMap, outputs: Tensor) -> LinearMap:
    """``v -> J v`` out of ``u -> J^T u``: the derivative of a linear map is the map, transposed.

    Two passes backwards where forward mode takes one forwards, but cached, and for any operation that backwards knows.
    """
    with twice_differentiable():
        push = vjp(pull, torch.zeros_like(outputs))[1]
    return lambda v: push(v, retain_graph=True)[0]


class Columns:
    """Applies a function to each row of its blocks: at once by ``vmap`` or one by one, whichever is faster.

    Measured at the first block, in processor time: ``vmap`` wins severalfold for small graphs and tables and loses for
    convolutions.
    """

    def __init__(self) -> None:
        self.together: bool | None = None

    def __call__(self, apply: Callable[..., Tensor], *blocks: Tensor) -> Tensor:
        """``[k, ...], ... -> [k, q]``."""
        rows = len(blocks[0])
        if rows == 1:
            return apply(*(block[0] for block in blocks))[None]
        if self.together is None:
            self.together = _faster_together(apply, *(block[:8] for block in blocks))
        if self.together:
            return vmap(apply, chunk_size=CHUNK)(*blocks)
        return torch.stack([apply(*row) for row in zip(*blocks, strict=True)])


def _faster_together(apply: Callable[..., Tensor], *blocks: Tensor) -> bool:
    rows = list(zip(*blocks, strict=True))
    try:
        vmap(apply)(*blocks)  # not timed: the first call of an operation sets it up
    except RuntimeError:  # an operation without a batching rule, or a branch on a value
        return False
    apply(*rows[0])
    together: list[float] = []
    singly: list[float] = []
    while len(singly) < 3 and sum(together) + sum(singly) < 0.2:  # the least of three: other work disturbs a clock
        together.append(_seconds(lambda: vmap(apply)(*blocks)))
        singly.append(_seconds(lambda: apply(*rows[0])))
    return min(together) < len(rows) * min(singly)


def _seconds(call: Callable[[], Tensor]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started
