"""Whether a curvature is the derivative it stands for: a central difference of first derivatives beside ``A v``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from explain.doubts import doubt
from explain.influence.curvature import Curvature, GaussNewton, Mode
from explain.influence.linear_maps import Bytes, twice_differentiable
from explain.types import Unsupported

EXAMPLES = 16  # of the training set, that the difference is taken on
WORK = 2**24  # bytes of one forward pass of these, above which there are fewer
WIDENED = 2**30  # bytes of one forward pass up to which a model of single precision is evaluated in double
STEPS = {torch.float64: (1e-6, 2.5e-7), torch.float32: (1e-2, 5e-3)}  # of |theta|; the second is the one that counts
LEAST = 1e-3  # a parameter, on average: where all are penalised to nothing, steps do not vanish with them
_AWAY = 10  # of the coarse step in single precision
_SIMPLER = {"hessian": ", use curvature='ggn', which is made of first derivatives"}
AGREES = {torch.float64: 1e-4, torch.float32: 2e-2}


class Differences(NamedTuple):
    """``d = (g(theta + e v) - g(theta - e v)) / 2 e`` of two steps ``e``, and ``g(theta)``, float64 ``[p]`` each."""

    coarse: Tensor
    fine: Tensor
    middle: Tensor
    dtype: torch.dtype

    @property
    def spread(self) -> float:
        """By how much the two differ, relative to the finer."""
        return _apart(self.coarse, self.fine)


def hvp_checks(A: Curvature, generator: torch.Generator) -> dict[str, Any]:
    """``hvp_error``: ``|A v - d| / |d|`` of one random ``v`` on a few examples, and a note where it says nothing.

    ``d`` is a central difference of first derivatives, in double precision where the model can be evaluated so. Where
    the differences of two steps disagree the loss has a kink there, and neither is a derivative: that is said.

    Warns:
        UserWarning: a Gauss-Newton matrix that is zero.

    Raises:
        Unsupported: both differences agree with each other and not with ``A v``: a second derivative is wrong.
    """
    if A.theta.dtype not in STEPS:
        return {"hvp_error": None, "hvp_note": f"{A.theta.dtype} has too few digits for a difference"}
    batch = _few(A)
    v = torch.randn(A.size, generator=generator, dtype=torch.float64).to(A.theta.device)
    v /= v.norm()
    found = _differences(A, batch, v)
    with twice_differentiable():
        product = A.linear_map(batch)(v.to(A.theta)).detach().double()
    error = _apart(product, found.fine)
    noise = 1e3 * torch.finfo(found.dtype).eps * float(found.middle.norm()) / _step(A, found.dtype, 1)
    if float(found.fine.norm()) <= noise and float(product.norm()) <= noise:
        if A.name == GaussNewton.name:
            doubt(
                "the Gauss-Newton matrix of this loss is zero, as the loss is linear in the outputs (a hinge, an "
                "absolute error, or -log p of a net that answers log p?): only weight decay and damping are inverted. "
                "Say loss='cross_entropy' or 'bce' where that was trained, which are read as losses of the logits"
            )
        return {"hvp_error": error, "hvp_note": "the second derivative is below the rounding of the first"}
    if found.spread > AGREES[found.dtype]:
        note = f"differences of two steps disagree by {found.spread:.2g}: the loss has a kink here (ReLU, max)"
        return {"hvp_error": error, "hvp_note": note}
    wrong = float((product - found.fine).norm()) - noise > AGREES[torch.float32] * float(found.fine.norm())
    if wrong or (A.theta.dtype == torch.float64 and error > AGREES[found.dtype] + 10 * found.spread):
        jump = _jump(A, batch, v, found.dtype)
        if jump >= error / 2:
            note = f"differences on the two sides are {jump:.2g} apart: the loss has a kink here (ReLU, max)"
            return {"hvp_error": error, "hvp_note": note}
        raise Unsupported(
            f"the {A.name} of this model is wrong: A v is {error:.2g} off a central difference of its first "
            f"derivatives, and the differences of two steps agree to {found.spread:.1g}. An operation has a wrong "
            "second derivative (a fused kernel, or an autograd.Function whose backward reads what it saved detached): "
            f"write it in plain torch operations{_SIMPLER.get(A.name, '')}, or freeze the parameters before it"
        )
    return {"hvp_error": error}


def _apart(a: Tensor, b: Tensor) -> float:
    size = float(b.norm())
    return float((a - b).norm()) / size if size else float(a.norm())


def _step(A: Curvature, dtype: torch.dtype, which: int) -> float:
    return STEPS[dtype][which] * max(float(A.theta.norm()), LEAST * A.size**0.5)


def _differences(A: Curvature, batch: Tensor, v: Tensor) -> Differences:
    """In double precision where the model can be, and is then the same function; else in its own."""
    own = A.theta.dtype
    if own == torch.float64:
        return _central(A, batch, v, own, nullcontext)
    if _affordable(A, batch):
        try:
            wide = _central(A, batch, v, torch.float64, InDouble)
        except Exception:  # an operation that takes one dtype only
            return _central(A, batch, v, own, nullcontext)
        if _same(A, batch, v):
            return wide
    return _central(A, batch, v, own, nullcontext)


def _same(A: Curvature, batch: Tensor, v: Tensor) -> bool:
    """Whether the model in double is the same function: asked away from ``theta``, a kink or rounding at a minimum."""
    away = _away(A, v)
    plain = A.first_derivative(batch, away.to(A.theta), nullcontext)(away.to(A.theta)).double()
    wide = A.first_derivative(batch, away, InDouble)(away)
    return _apart(wide, plain) < AGREES[torch.float32]


def _jump(A: Curvature, batch: Tensor, v: Tensor, dtype: torch.dtype) -> float:
    """By how much the difference is another one on either side of ``theta``: little, but where ``theta`` is a kink."""
    mode = nullcontext if dtype == A.theta.dtype else InDouble
    one, other = (_central(A, batch, v, dtype, mode, _away(A, side * v, dtype)).fine for side in (1, -1))
    return _apart(one, other)


def _away(A: Curvature, v: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return A.theta.double() + _AWAY * _step(A, dtype, 0) * v


def _few(A: Curvature) -> Tensor:
    """Up to 16 examples, fewer where one is a forward pass of many rows: it is operations that are proved."""
    batch = next(iter(A.objective.batches()))[:EXAMPLES]
    return batch[: max(2, len(batch) * WORK // max(1, _made(A, batch)))]


def _affordable(A: Curvature, batch: Tensor) -> bool:
    return _made(A, batch) <= WIDENED


def _made(A: Curvature, batch: Tensor) -> int:
    """Bytes of one forward pass."""
    with torch.no_grad(), Bytes() as used:
        A.objective.outputs(A.objective.params, batch)
    return used.total


def _central(
    A: Curvature, batch: Tensor, v: Tensor, dtype: torch.dtype, mode: Mode, theta: Tensor | None = None
) -> Differences:
    theta, v = (A.theta if theta is None else theta).to(dtype), v.to(dtype)
    gradient = A.first_derivative(batch, theta, mode)

    def central(step: float) -> Tensor:
        return (gradient(theta + step * v) - gradient(theta - step * v)).double() / (2 * step)

    coarse, fine = (central(_step(A, dtype, which)) for which in range(2))
    return Differences(coarse, fine, gradient(theta).double(), dtype)


class InDouble(TorchFunctionMode):
    """Within: what a model of single precision computes is computed in double, its constants and buffers too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation on widened tensors; of attributes only the dtype is another."""
        if getattr(func, "__name__", "") == "__get__":
            return _widened(func(*args, **(kwargs or {})))
        return tree_map(_widened, func(*tree_map(_widened, args), **tree_map(_widened, kwargs or {})))


def _widened(thing: Any) -> Any:
    if thing is torch.float32:
        return torch.float64
    return thing.double() if isinstance(thing, Tensor) and thing.dtype == torch.float32 else thing
