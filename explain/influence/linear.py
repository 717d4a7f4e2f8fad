"""Derivatives as linear maps on one flat vector: built once by ``torch.func``, applied many times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

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


def affine(f: Callable[[Tensor], Tensor], at: Tensor) -> bool:
    """Whether ``f`` is a linear map plus a constant: whether its own tangent at ``at`` predicts it elsewhere.

    >>> affine(lambda x: 3 * x + 1, torch.ones(4)), affine(lambda x: x * x, torch.ones(4))
    (True, False)
    """
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(at.shape, generator=generator, dtype=torch.float64).to(at)
    step *= at.norm().clamp_min(1.0) / step.norm()
    with torch.no_grad():
        one, two, three = f(at), f(at + step), f(at - 2 * step)
        change = (two - one).double()
        bent = (three - one).double() + 2 * change  # zero where f is a straight line
    if not (change.isfinite().all() and bent.isfinite().all() and change.any()):  # a constant says nothing
        return False
    size = max(float(change.norm()), torch.finfo(at.dtype).eps * float(one.double().norm()))
    return float(bent.norm()) <= 10 * math.sqrt(torch.finfo(at.dtype).eps) * size


def pushforward(pull: LinearMap, outputs: Tensor) -> LinearMap:
    """``v -> J v`` out of ``u -> J^T u``: the derivative of a linear map is the map, transposed.

    Two passes backwards where forward mode takes one forwards, but cached, and for any operation that backwards knows.
    """
    with twice_differentiable():
        push = vjp(pull, torch.zeros_like(outputs))[1]
    return lambda v: push(v, retain_graph=True)[0]


class Bytes(TorchDispatchMode):
    """Within: counts the bytes of every tensor that is made, an upper bound of what a linearisation keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation itself; views cost nothing."""
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not func.is_view:
            self.total += made.nbytes
        return made


class Columns:
    """Applies a function to each row of its blocks: at once by ``vmap`` or one by one, whichever is faster.

    Measured at the first block, in processor time: ``vmap`` wins severalfold for small graphs and tables and loses for
    convolutions. Not ``measured``, it is used wherever it can be.
    """

    def __init__(self, measured: bool = True, chunk: int | None = CHUNK) -> None:
        self.together: bool | None = None
        self.measured, self.chunk = measured, chunk

    def __call__(self, apply: Callable[..., Tensor], *blocks: Tensor) -> Tensor:
        """``[k, ...], ... -> [k, q]``."""
        rows = len(blocks[0])
        if rows == 1:
            return apply(*(block[0] for block in blocks))[None]
        if self.together is None:
            decide = _faster_together if self.measured else _can_together
            self.together = decide(apply, *(block[:4] for block in blocks))
        if self.together:
            return vmap(apply, chunk_size=self.chunk)(*blocks)
        return torch.stack([apply(*row) for row in zip(*blocks, strict=True)])


def _can_together(apply: Callable[..., Tensor], *blocks: Tensor) -> bool:
    try:
        vmap(apply)(*blocks)
    except RuntimeError:  # an operation without a batching rule, or a branch on a value
        return False
    return True


def _faster_together(apply: Callable[..., Tensor], *blocks: Tensor) -> bool:
    rows = list(zip(*blocks, strict=True))
    if not _can_together(apply, *blocks):  # not timed: the first call of an operation sets it up
        return False
    apply(*rows[0])
    together: list[float] = []
    singly: list[float] = []
    while len(singly) < 3 and sum(together) + sum(singly) < 0.2:  # the least of three: other work disturbs a clock
        together.append(_seconds(lambda: vmap(apply)(*blocks)))
        singly.append(_seconds(lambda: apply(*rows[0])))
        if not 0.5 < len(rows) * min(singly) / max(min(together), 1e-9) < 2:  # a clear case
            break
    return min(together) < len(rows) * min(singly)


def _seconds(call: Callable[[], Tensor]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started
