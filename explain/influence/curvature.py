"""Curvature of the trained loss as an operator, ``A @ v``: the Hessian, and the Gauss-Newton matrix.

Nothing is stored but linearisations. That of a batch is kept where all of them fit into a memory budget, and a product
costs about one gradient; else they are built anew for each product, and memory stays that of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from explain.influence.assembly import assembled
from explain.influence.linear_maps import (
    Bytes,
    Columns,
    Flat,
    LinearMap,
    affine,
    pullback,
    pushforward,
    slope,
    twice_differentiable,
)
from explain.progress import in_sight
from explain.types import NonFinite, Objective

Mode: TypeAlias = Callable[[], AbstractContextManager[Any]]
WORK = 2**31  # bytes made by all products of a whole matrix, up to which it costs a second or two
MEMORY = 2**30  # bytes of linearisations that are kept between products
Totals: TypeAlias = Callable[[type["Curvature"], Tensor], Tensor]  # (kind, rows [k, p]) -> sum_i C_i v [k, p]
_ELSEWHERE: WeakKeyDictionary[Objective, Totals] = WeakKeyDictionary()


@contextmanager
def summed_elsewhere(objective: Objective, totals: Totals) -> Iterator[None]:
    """Within: products with the curvature of all examples of this objective are summed by ``totals``."""
    _ELSEWHERE[objective] = totals
    try:
        yield
    finally:
        del _ELSEWHERE[objective]


@dataclass
class _Kept:
    """What copies of one operator share."""

    matrix: Tensor | None = None
    affine: bool | None = None
    work: int | None = None
    linear: list[LinearMap] = field(default_factory=list)
    columns: Columns = field(default_factory=Columns)
    samples: Columns = field(default_factory=Columns)
    beside: Columns = field(default_factory=partial(Columns, measured=False))
    rows: dict[int, Any] = field(default_factory=dict)
    products: int = 0


class Curvature:
    """``A = (1/m) sum_i C_i + (weight_decay + damping) I``, over all examples or the ``m`` of one batch.

    ``A @ v`` takes ``[p]`` or a block ``[p, k]`` and gives float64 of the same shape; ``p`` is ``A.size``. A new kind
    of curvature is a subclass with one method.
    """

    name: ClassVar[str]
    derivatives: ClassVar[str] = "reverse over reverse, plain attention"  # what any operation with two derivatives has

    def __init__(self, objective: Objective, damping: float = 0.0, batch: Tensor | None = None) -> None:
        self.objective = objective
        self.damping = float(damping)
        self.batch = batch
        self.flat = Flat(objective.params)
        self.theta = self.flat.vector(objective.params)
        self.size = self.flat.size
        self._kept = _Kept()

    def __matmul__(self, v: Tensor) -> Tensor:
        """``A v``, float64.

        Raises:
            ValueError: ``v`` does not have ``p`` rows.
            NonFinite: the second derivative of the loss is NaN or infinite.
        """
        if v.dim() not in (1, 2) or len(v) != self.size:
            raise ValueError(f"A @ v needs [{self.size}] or [{self.size}, k], got {list(v.shape)}")
        v = v.detach().to(self.theta.device, torch.float64)
        if self._kept.matrix is not None:
            return self._kept.matrix @ v + self.damping * v
        rows = v.reshape(self.size, -1).T
        self._kept.products += len(rows)
        result = self._data(rows).T.reshape(v.shape) + self.ridge * v
        if not result.isfinite().all():
            raise NonFinite("the second derivative of the training loss is NaN or infinite: check the training data")
        return result

    @property
    def floor(self) -> float | None:
        """What no eigenvalue is below, where that is known without measuring."""
        return None

    @property
    def gauss_newton(self) -> bool:
        """Whether ``A`` is ``(1/m) sum_i J_i^T H_out,i J_i`` plus the diagonal."""
        return False

    @property
    def linear(self) -> bool:
        """Whether the outputs are linear in the parameters; measured once, on the first batch."""
        if self._kept.affine is None:
            batch = next(iter(self._batches()))
            self._kept.affine = affine(lambda theta: self.objective.outputs(self.flat.params(theta), batch), self.theta)
        return self._kept.affine

    @property
    def ridge(self) -> float:
        """What is added to the diagonal, ``weight_decay + damping``."""
        return self.objective.weight_decay + self.damping

    @property
    def work(self) -> int:
        """Bytes that one evaluation of all training losses makes: what a product costs, but for a small factor."""
        if self._kept.work is None:
            batch = self.batch if self.batch is not None else next(iter(self.objective.batches()))
            count = self.objective.size if self.batch is None else len(self.batch)
            with torch.no_grad(), Bytes() as made:
                self.objective.train_loss(self.objective.params, batch)
            self._kept.work = made.total * -(-count // len(batch))
        return self._kept.work

    @property
    def affordable(self) -> bool:
        """Whether a product for each parameter costs less than an iteration would, or little."""
        return self.size * self.work <= WORK

    @property
    def kept_rows(self) -> dict[int, Any]:
        """By their number, the rows that a preconditioner was made of: each solution asks for them again."""
        return self._kept.rows

    @property
    def has_matrix(self) -> bool:
        """Whether the whole matrix was made already."""
        return self._kept.matrix is not None

    @property
    def products(self) -> int:
        """How many vectors this operator was applied to."""
        return self._kept.products

    def dense(self, progress: bool = False) -> Tensor:
        """``A``, float64 ``[p, p]``. Made once; from then on products use it."""
        if not self.assembles():
            identity = torch.eye(self.size, dtype=torch.float64, device=self.theta.device)
            blocks = in_sight(identity.split(256), desc="curvature", progress=progress)
            matrix = torch.cat([self.damped(0.0) @ rows.T for rows in blocks], 1)
            self._kept.matrix = (matrix + matrix.T) / 2
        assert self._kept.matrix is not None
        return self._kept.matrix + self.damping * torch.eye(self.size, dtype=torch.float64, device=self.theta.device)

    def assembles(self) -> bool:
        """Whether the whole matrix is had for less than a product a parameter; then it is made."""
        if self._kept.matrix is None:
            self._kept.matrix = self._assembled()
        return self._kept.matrix is not None

    def _assembled(self) -> Tensor | None:
        """The matrix without damping, where it can be had for less than a product a parameter."""
        if self.batch is not None or not self.gauss_newton:
            return None
        with twice_differentiable():
            data = assembled(self.objective)
        if data is None:
            return None
        data /= self.objective.size
        data.diagonal().add_(self.objective.weight_decay)
        return data

    def damped(self, damping: float) -> Self:
        """The same operator with another damping; what was computed is shared."""
        other = copy.copy(self)
        other.damping = float(damping)
        return other

    def on(self, batch: Tensor) -> Self:
        """The same operator with the mean over the examples of this batch only."""
        return type(self)(self.objective, self.damping, batch)

    def sampled(self, batches: Tensor, block: Tensor) -> Tensor:
        """``A`` of batch ``j`` times the columns of ``block[j]``: ``[r, m], [r, p, k] -> [r, p, k]``."""

        def product(batch: Tensor, columns: Tensor) -> Tensor:
            apply = self.linear_map(batch)
            return self._kept.beside(apply, columns.T).T

        self._kept.products += len(block) * block.size(2)
        with twice_differentiable():
            data = self._kept.samples(product, batches, block.to(self.theta.dtype))
        return data.detach().double() / batches.size(1) + self.ridge * block

    def total(self, rows: Tensor, batches: Iterable[Tensor] | None = None) -> Tensor:
        """``sum_i C_i v`` for each row ``v [p]`` of a block, summed in float64: over some batches of the examples.

        Over all of them, or those of its own batch, where none are given; linearisations of these are kept.
        """
        found = torch.zeros_like(rows)
        for apply in self._linear_maps() if batches is None else map(self.linear_map, batches):
            with twice_differentiable():
                found += self._kept.columns(apply, rows.to(self.theta.dtype)).detach()
        return found

    def _data(self, rows: Tensor) -> Tensor:
        """``(1/m) sum_i C_i v`` for each row ``v``."""
        if self.batch is not None:
            return self.total(rows) / len(self.batch)
        elsewhere = _ELSEWHERE.get(self.objective)
        found = self.total(rows) if elsewhere is None else elsewhere(type(self), rows)
        return found / self.objective.size

    def _linear_maps(self) -> Iterator[LinearMap]:
        """One a batch, kept where all of them fit into the memory budget."""
        if self._kept.linear:
            yield from self._kept.linear
            return
        made: list[LinearMap] = []
        keep, used = True, Bytes()
        for batch in self._batches():
            with used:
                apply = self.linear_map(batch)
            keep = keep and (not made or used.total <= MEMORY)
            made = [*made, apply] if keep else []
            yield apply
        self._kept.linear = made if keep else []

    def _batches(self) -> Iterable[Tensor]:
        """All examples, or those of the batch, no more at once than the objective takes."""
        if self.batch is None:
            return self.objective.batches()
        return self.batch.split(len(next(iter(self.objective.batches()))))

    def linear_map(self, batch: Tensor) -> LinearMap:
        """``v -> sum_i C_i v`` over this batch, ``[p] -> [p]``."""
        raise NotImplementedError(f"{type(self).__name__} has no linear_map")

    def first_derivative(self, batch: Tensor, theta: Tensor, mode: Mode) -> LinearMap:
        """A map ``[p] -> [p]`` whose derivative at ``theta`` `linear_map` is, by plain first derivatives.

        Args:
            batch: the examples.
            theta: the parameters, ``[p]``, of any dtype.
            mode: within it the model is evaluated.
        """
        raise NotImplementedError(f"{type(self).__name__} has no first_derivative")


class Hessian(Curvature):
    """``H = (1/n) sum_i d2 loss_i / d theta2 + (weight_decay + damping) I``: exact, indefinite away from a minimum.

    The pullback of the gradient (reverse over reverse), since ``H`` is symmetric.

    >>> from explain.training import TrainingObjective
    >>> from explain.types import Players
    >>> x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    >>> objective = TrainingObjective({"w": torch.zeros(1, 1)}, Players("train", torch.arange(2)),
    ...                               lambda p, at: x[at] @ p["w"], y, lambda p: p["w"].sum(), weight_decay=0.5)
    >>> Hessian(objective) @ torch.ones(1)                       # 2 mean(x^2) + 0.5
    tensor([10.5000], dtype=torch.float64)
    """

    name = "hessian"

    @property
    def gauss_newton(self) -> bool:
        """Whether the outputs are linear in the parameters."""
        return self.linear

    @property
    def floor(self) -> float | None:
        """``weight_decay + damping`` for a loss that is convex in outputs that are linear in the parameters."""
        return self.ridge if self.objective.convex and self.ridge > 0 and self.gauss_newton else None

    def linear_map(self, batch: Tensor) -> LinearMap:
        """``v -> sum_i H_i v``."""

        def total(theta: Tensor) -> Tensor:
            return self.objective.train_loss(self.flat.params(theta), batch).sum()

        return pullback(slope(total), self.theta)[1]

    def first_derivative(self, batch: Tensor, theta: Tensor, mode: Mode) -> LinearMap:
        """``sum_i grad loss_i``."""

        def gradient(at: Tensor) -> Tensor:
            at = at.detach().requires_grad_()
            with torch.enable_grad(), mode():
                total = self.objective.train_loss(self.flat.params(at), batch).sum()
            return _gradient(total, at)

        return gradient


class GaussNewton(Curvature):
    """``G = (1/n) sum_i J_i^T H_out,i J_i + (weight_decay + damping) I``: the Hessian of the linearised model.

    ``J_i [outputs, p]`` is the Jacobian of the outputs and ``H_out,i`` the Hessian of the loss in them, so ``G`` is
    positive semidefinite for a loss that is convex in the outputs, and equals ``H`` for a linear model (Schraudolph
    2002). Of a classifier that answers with probabilities, outputs are the logits they were made of.
    """

    name = "ggn"

    @property
    def gauss_newton(self) -> bool:
        """It is, by definition."""
        return True

    @property
    def floor(self) -> float | None:
        """``weight_decay + damping`` for a loss that is convex in the outputs."""
        return self.ridge if self.objective.convex else None

    def linear_map(self, batch: Tensor) -> LinearMap:
        """``v -> sum_i J_i^T H_out,i J_i v``."""
        outputs, pull = pullback(lambda theta: self.objective.outputs(self.flat.params(theta), batch), self.theta)
        push = pushforward(pull, outputs)
        curve = pullback(slope(lambda o: self.objective.loss(o, batch).sum()), outputs)[1]
        return lambda v: pull(curve(push(v)))

    def first_derivative(self, batch: Tensor, theta: Tensor, mode: Mode) -> LinearMap:
        """``sum_i J_i(theta)^T grad loss_i(outputs_i)``, the Jacobian held fixed."""

        def outputs(at: Tensor) -> Tensor:
            with torch.enable_grad(), mode():
                return self.objective.outputs(self.flat.params(at), batch)

        start = theta.detach().requires_grad_()
        held = outputs(start)

        def gradient(at: Tensor) -> Tensor:
            given = outputs(at.detach()).detach().requires_grad_()
            with torch.enable_grad(), mode():
                total = self.objective.loss(given, batch).sum()
            return _gradient(held, start, _gradient(total, given))

        return gradient


def _gradient(value: Tensor, at: Tensor, direction: Tensor | None = None) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(at)
    return torch.autograd.grad(value, at, direction, retain_graph=direction is not None, materialize_grads=True)[0]
