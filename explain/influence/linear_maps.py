"""Derivatives as linear maps on one flat vector: built once, applied many times.

By ``torch.func`` where the model is within it. A forward that is not (an ``autograd.Function`` without
``setup_context``, ``.item()`` and branches on values, a recurrent layer, a collated list of graphs) is differentiated
by plain autograd instead, one vector at a time: slower, and the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from explain.layouts import held_bytes
from explain.obstacles import obstacle
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
        RuntimeError: whatever else the model raises.
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
        try:
            value, pull = vjp(f, at)[:2]
        except Exception as error:  # whatever it could not do; what plain autograd cannot do either is raised there
            return _plain_pullback(f, _watched(at, error))
    return value, lambda u: pull(u, retain_graph=True)[0]


def slope(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``x -> grad f(x)`` of a scalar ``f``, which may be differentiated again.

    >>> slope(lambda x: x.square().sum())(torch.ones(2))
    tensor([2., 2.])
    """

    def gradient(at: Tensor) -> Tensor:
        try:
            return grad(f)(at)
        except Exception as error:  # as in `pullback`
            value, pull = _plain_pullback(f, _watched(at, error))
            return pull.gradient(torch.ones_like(value))

    return gradient


class _PlainPull:
    """``u -> J^T u`` out of a graph that autograd keeps."""

    def __init__(self, value: Tensor, at: Tensor) -> None:
        self.value, self.at = value, at

    def __call__(self, u: Tensor) -> Tensor:
        """Differentiable in ``u`` only: what is applied again and again keeps no graph."""
        return self._product(u, u.requires_grad)

    def gradient(self, u: Tensor) -> Tensor:
        """The same, differentiable in the point too."""
        return self._product(u, True)

    def _product(self, u: Tensor, again: bool) -> Tensor:
        if not self.value.requires_grad:
            return torch.zeros_like(self.at)
        with torch.enable_grad():
            return torch.autograd.grad(
                self.value, self.at, u, retain_graph=True, create_graph=again, materialize_grads=True
            )[0]


def _watched(at: Tensor, error: Exception) -> Tensor:
    """The point as autograd watches it; within another transform, which is not left from inside, the error itself."""
    if at.requires_grad:
        return at
    try:
        return at.detach().requires_grad_()
    except RuntimeError:
        raise error from error.__cause__


def _plain_pullback(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, _PlainPull]:
    with torch.enable_grad():
        value = f(at)
    return value if at.grad_fn is not None else value.detach(), _PlainPull(value, at)


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
    anywhere = torch.ones_like(outputs)  # not at 0, where some derivatives (logcumsumexp's) take a logarithm
    with twice_differentiable():
        if isinstance(pull, _PlainPull):
            return _plain_pullback(pull, anywhere.requires_grad_())[1]
        push = vjp(pull, anywhere)[1]
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
            self.total += held_bytes(made)
        return made


class Columns:
    """Applies a function to each row of its blocks: at once by ``vmap`` or one by one, whichever is faster.

    Measured at the first block, in processor time: ``vmap`` wins severalfold for small graphs and tables and loses for
    convolutions. Not ``measured``, it is used wherever it can be; ``obstacle`` is what it said where it cannot.
    """

    def __init__(self, measured: bool = True, chunk: int | None = CHUNK) -> None:
        self.together: bool | None = None
        self.obstacle = ""
        self.measured, self.chunk = measured, chunk

    def __call__(self, apply: Callable[..., Tensor], *blocks: Tensor) -> Tensor:
        """``[k, ...], ... -> [k, q]``."""
        rows = len(blocks[0])
        if rows == 1:
            return apply(*(block[0] for block in blocks))[None]
        if self.together is None:
            few = [block[:4] for block in blocks]
            self.obstacle = _obstacle(apply, *few)
            self.together = not self.obstacle and (not self.measured or _faster_together(apply, *few))
        if self.together:
            try:
                return vmap(apply, chunk_size=self.chunk)(*blocks)
            except Exception as error:  # as in `_obstacle`, for a later row
                self.together, self.obstacle = False, obstacle(error)
        return torch.stack([apply(*row) for row in zip(*blocks, strict=True)])


def _obstacle(apply: Callable[..., Tensor], *blocks: Tensor) -> str:
    """Why ``vmap`` cannot: an operation without a batching rule, a branch on a value. Own errors come back singly."""
    try:
        vmap(apply)(*blocks)
    except Exception as error:
        return obstacle(error)
    return ""


def _faster_together(apply: Callable[..., Tensor], *blocks: Tensor) -> bool:
    rows = list(zip(*blocks, strict=True))
    apply(*rows[0])  # not timed: the first call of an operation sets it up
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
