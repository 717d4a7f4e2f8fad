"""The cycles of LiSSA: recursion, true residual, and what to do when it grows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.solvers.cg import Preconditioner
from explain.influence.solvers.solution import relative

SHORTEST, LONGEST = 2, 500  # steps of a cycle
DOUBLINGS = 10
STALLED = 0.99  # a cycle that leaves more of the residual than this has gained nothing


class Recursion:
    """``A^-1 b`` so far, ``x``, with its true residual ``left``; each `cycle` adds one recursion on what is left.

    ``samples [repeats, *b.shape]`` are the repeats of the last cycle, ``remaining`` is about what further cycles would
    add, ``finished`` whether they would add nothing. ``smallest`` is the smallest eigenvalue of ``M^-1 A``, ``scale``
    the assumed largest.
    """

    def __init__(
        self,
        A: Curvature,
        b: Tensor,
        smallest: float,
        scale: float,
        batch_size: int,
        repeats: int,
        momentum: bool,
        adapts: bool,
        generator: torch.Generator,
        preconditioner: Preconditioner | None = None,
        tolerance: float = 1e-4,
    ) -> None:
        self.A, self.b, self.smallest, self.generator = A, b.double(), smallest, generator
        self.scale, self.momentum, self.batch_size, self.repeats = scale, momentum, batch_size, repeats
        self.preconditioner, self.tolerance = preconditioner, tolerance
        self.x, self.left = torch.zeros_like(self.b), self.b
        self.samples, self.remaining = self.x.expand(repeats, *b.shape), self.x
        self.residual = relative(self.left, self.b)
        self.steps = self.idle = 0
        self.doublings = DOUBLINGS if adapts else 0
        self.finished = False

    def cycle(self, most: int) -> int:
        """One recursion on ``b - A x``, kept where the true residual falls; gives its number of steps."""
        steps = min(max(SHORTEST, math.ceil(self._needed())), LONGEST, most)
        samples = self.x + self._recursion(steps)
        self.steps += steps
        x = samples.mean(0)
        left = self.b - self.A @ x if x.isfinite().all() else torch.full_like(x, torch.inf)
        residual = relative(left, self.b)
        if residual < self.residual:
            self.idle = self.idle + 1 if residual > STALLED * self.residual else 0
            self.finished = self.idle == 2
            self.remaining = (x - self.x) * residual / (self.residual - residual)  # as of a geometric series
            self.x, self.left, self.samples, self.residual = x, left, samples, residual
        else:
            self._calmer()
        return steps

    def _needed(self) -> float:
        """Steps of a cycle: about those to the tolerance; the residual then tells."""
        condition = self.scale / self.smallest
        if not self.momentum:
            return condition
        wanted = math.log(max(self.residual / self.tolerance, 1.0)) / 2 + 0.7  # momentum contracts by e^2 or better
        return math.sqrt(condition) * min(4.0, max(1.0, wanted))

    def _calmer(self) -> None:
        """The last cycle grew: without momentum, then with shorter steps, where the scale is ours to choose."""
        if self.momentum:
            self.momentum = False
        elif self.doublings:
            self.scale, self.doublings = 2 * self.scale, self.doublings - 1
        else:
            self.finished = True

    def _recursion(self, steps: int) -> Tensor:
        """``x <- x + M^-1 (v - A_batch x) / scale``, with momentum ``+ beta (x - x_before)``, of each repeat."""
        v = self.left
        beta = (1 - math.sqrt(min(1.0, self.smallest / self.scale))) ** 2 if self.momentum else 0.0
        first = self._step(v).expand(self.repeats, *v.shape)
        bound = 100 * self.scale / self.smallest * float(first.norm())  # of any that settles
        x, before = first, first
        for _ in range(steps - 1):
            x, before = x + self._step(v - self._product(x)) + beta * (x - before), x
            if not x.norm() <= bound:
                return torch.full_like(x, torch.inf)
        return x

    def _step(self, r: Tensor) -> Tensor:
        """``M^-1 r / scale`` of each repeat."""
        if self.preconditioner is None:
            return r / self.scale
        if r.dim() == self.b.dim():
            return self.preconditioner(r) / self.scale
        return torch.stack([self.preconditioner(one) for one in r]) / self.scale

    def _product(self, x: Tensor) -> Tensor:
        """``A_batch x`` with its own batch for each repeat."""
        total = self.A.objective.size
        if self.batch_size == total:
            return (self.A @ x[0])[None]
        batches = torch.randint(total, (self.repeats, self.batch_size), generator=self.generator)
        columns = x.reshape(self.repeats, self.A.size, -1)
        return self.A.sampled(batches.to(x.device), columns).reshape(x.shape)
