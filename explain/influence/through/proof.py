"""Whether what a step is pulled back by is the derivative of its gradient: beside differences of two gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explain.influence.differences import AGREES, LEAST, STEPS
from explain.influence.through.course import Course
from explain.types import Unsupported


class Proof(NamedTuple):
    """The largest error of a step's ``H v``, of its size, and a note on steps that no difference speaks about.

    ``error``: None where it speaks about none.
    """

    error: float | None = None
    note: str = ""

    def checks(self) -> dict[str, object]:
        """As an answer has them."""
        return {"hvp_error": self.error} | ({"hvp_note": self.note} if self.note else {})

    def and_(self, other: Proof) -> Proof:
        """Of both."""
        errors = [each for each in (self.error, other.error) if each is not None]
        return Proof(max(errors, default=None), self.note or other.note)


def proved(course: Course, t: int, theta: Tensor, v: Tensor, product: Tensor) -> Proof:
    """``H v`` of step ``t`` at ``theta [p]`` beside ``(g(theta + h v) - g(theta - h v)) / 2h``, ``|v| = 1``.

    Called within `Course.differentiable`.

    Args:
        course: the training.
        t: the step.
        theta: its parameters.
        v: ``[p]``.
        product: ``H v``.

    Raises:
        Unsupported: they are not the same, and the loss has no kink here.
    """
    dtype, size = theta.dtype, float(v.norm())
    if dtype not in STEPS or not size:
        return Proof(note="of half precision no difference speaks" if size else "")
    v, product = v / size, (product / size).double()

    def gradient(step: float) -> Tensor:
        return course.slope(theta + step * v, t).gradient.double()

    middle = gradient(0.0)
    lengths = [step * max(float(theta.norm()), LEAST * len(theta) ** 0.5) for step in STEPS[dtype]]
    sides = [(gradient(h), gradient(-h)) for h in lengths]
    coarse, fine = ((one - other) / (2 * h) for (one, other), h in zip(sides, lengths, strict=True))
    noise = 1e3 * torch.finfo(dtype).eps * float(middle.norm()) / lengths[1]
    off, scale = float((product - fine).norm()), float(fine.norm())
    if scale <= noise and float(product.norm()) <= noise:
        return Proof(note="the second derivative of a step is below the rounding of the first")
    error, spread = off / scale if scale else off, _apart(coarse, fine)
    if spread > AGREES[dtype]:
        return Proof(note=f"differences of two steps disagree by {spread:.2g}: the loss has a kink here (ReLU, max)")
    wrong = off - noise > AGREES[torch.float32] * scale
    if wrong or (dtype == torch.float64 and error > AGREES[dtype] + 10 * spread):
        (one, other), h = sides[1], lengths[1]
        jump = _apart((one - middle) / h, (middle - other) / h)
        if jump >= error / 2:
            return Proof(
                note=f"differences on the two sides are {jump:.2g} apart: the loss has a kink here (ReLU, max)"
            )
        raise Unsupported(
            f"the derivative through step {t + 1} is wrong: H v is {error:.2g} off a central difference of the step's "
            f"gradients, and the differences of two lengths agree to {spread:.1g}. An operation has a wrong second "
            "derivative (a fused kernel, or an autograd.Function whose backward reads what it saved detached): write "
            "it in plain torch operations, or freeze the parameters before it"
        )
    return Proof(error)


def _apart(one: Tensor, other: Tensor) -> float:
    size = float(other.norm())
    return float((one - other).norm()) / size if size else float(one.norm())
