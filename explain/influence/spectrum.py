"""The extreme eigenvalues of a curvature, measured when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from explain.influence.curvature import Curvature

DENSE = 1500  # parameters up to which they are those of the whole matrix
COSTLESS = (
    "some change of the parameters costs nothing: inputs that repeat each other or are of very different sizes, "
    "parameters that undo each other, or more parameters than examples"
)
TOLERANCES = (1e-5, 1e-3, 1e-2)  # of the largest eigenvalue; the next where Lanczos does not settle


class Ends(NamedTuple):
    """Both ends as they were measured, ``tolerance`` relative to the largest, ``how``."""

    smallest: float
    largest: float
    tolerance: float
    how: str


class Spectrum:
    """``smallest`` and ``largest`` eigenvalue of ``A``, ``tolerance`` relative to the largest, ``how`` measured.

    Measured once, when first read: a solver that needs neither end does not pay for them. A lower bound that is known
    without measuring stands in for the smallest.

    >>> spectrum = Spectrum(1.0, 4.0)
    >>> spectrum.shifted(0.5).largest, spectrum.positive
    (4.5, True)
    """

    def __init__(
        self,
        smallest: float,
        largest: float,
        tolerance: float = 0.0,
        how: str = "given",
    ) -> None:
        self._measure: Callable[[], Ends] | None = None
        self._found: list[Ends] = [Ends(smallest, largest, tolerance, how)]  # shared by all that are shifted
        self._floor: float | None = None
        self._shift = 0.0

    @classmethod
    def lazily(cls, measure: Callable[[], Ends], floor: float | None) -> Spectrum:
        """That which ``measure`` finds, called at most once."""
        made = cls(0.0, 0.0)
        made._found, made._measure, made._floor = [], measure, floor
        return made

    @property
    def smallest(self) -> float:
        """The smallest eigenvalue, or a lower bound that is known without measuring."""
        known = self._floor if self._floor is not None else self._ends().smallest
        return known + self._shift

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return self._ends().largest + self._shift

    @property
    def tolerance(self) -> float:
        """How exactly, relative to the largest."""
        return self._ends().tolerance

    @property
    def how(self) -> str:
        """How it was measured."""
        if self._floor is None:
            return self._ends().how
        return f"{self._found[0].how if self._found else 'not measured'}; the smallest is a lower bound"

    @property
    def measured(self) -> bool:
        """Whether the largest is known already."""
        return bool(self._found)

    @property
    def positive(self) -> bool:
        """Whether the smallest eigenvalue is above zero by more than rounding."""
        if self._floor is not None:
            return self.smallest > 0
        return self.smallest > 1e-12 * abs(self.largest)

    def shifted(self, damping: float) -> Spectrum:
        """That of ``A + damping I``."""
        other = self._copy()
        other._shift += damping
        return other

    def _replace(self, smallest: float) -> Spectrum:
        """With another smallest eigenvalue: one that a solver met."""
        return Spectrum(smallest, self.largest, self.tolerance, self.how)

    def _copy(self) -> Spectrum:
        other = Spectrum(0.0, 0.0)
        other._found, other._measure, other._floor, other._shift = self._found, self._measure, self._floor, self._shift
        return other

    def _ends(self) -> Ends:
        if not self._found:
            assert self._measure is not None
            self._found.append(self._measure())
        return self._found[0]


class Indefinite(ValueError):
    """The curvature has an eigenvalue that is not positive: no inverse to trust. The message has the remedy."""

    def __init__(self, A: Curvature, spectrum: Spectrum) -> None:
        enough = rounded_up(A.damping + sufficient_damping(spectrum))
        with_damping = f" with damping {A.damping:.3g}" if A.damping else ""
        says = (
            f"the {A.name}{with_damping} is not positive definite: its smallest eigenvalue is {spectrum.smallest:.3g}"
        )
        if A.name == "hessian" and not singular(A, spectrum):
            why = ", so the model is not at a minimum of its training loss"
            remedy = f"damping={enough}, curvature='ggn', or train until the gradient vanishes"
        else:
            why, remedy = (
                f", so that {COSTLESS}",
                f"damping={enough}, a weight_decay, or inputs of one scale",
            )
        super().__init__(f"{says} (largest {spectrum.largest:.3g}){why}. Use {remedy}")


def singular(A: Curvature, spectrum: Spectrum) -> bool:
    """Whether the smallest eigenvalue is zero but for what rounding makes of the largest, above or below.

    That is no sign of a training that has not ended: the loss does not curve along some change of the parameters.
    """
    rounding = max(1e-9, 10 * torch.finfo(A.theta.dtype).eps)
    return abs(spectrum.smallest) <= rounding * abs(spectrum.largest)


def rounded_up(value: float) -> str:
    """Two digits, never less than the value.

    >>> rounded_up(2.03), rounded_up(0.51), rounded_up(1e-7)
    ('2.1', '0.51', '1e-07')
    """
    found = float(f"{value:.2g}")
    return f"{found if found >= value else found + 10.0 ** (math.floor(math.log10(value)) - 1):.2g}"


def sufficient_damping(spectrum: Spectrum, penalty: float = 0.0) -> float:
    """The least damping that leaves the smallest eigenvalue at a thousandth of the largest.

    With the penalty of a trained loss whose Hessian this is, at less where less will do: at the penalty, which is all
    that holds a direction that no example says anything about, but at ten times what the smallest is below zero. That
    much is left of a training that has not ended, and the inverse is then sure to about a tenth in every direction.

    >>> sufficient_damping(Spectrum(-0.5, 10.0, 0.0, "dense"))
    0.51
    >>> sufficient_damping(Spectrum(-1e-5, 10.0, 0.0, "dense"), penalty=0.001)
    0.00101
    """
    floor = 1e-3 * spectrum.largest
    if penalty > 0:
        floor = min(floor, max(penalty, -10 * spectrum.smallest))
    return max(0.0, floor - spectrum.smallest)


def extreme_eigenvalues(A: Curvature, generator: torch.Generator) -> Spectrum:
    """Both ends of the spectrum of ``A``: by the whole matrix of few parameters, else by Lanczos (scipy's ARPACK).

    The smallest is found as the largest of ``largest I - A``, which Lanczos finds in far fewer products. Where ``A``
    has a known floor that is taken instead: measuring would cost more than most solutions.
    """
    return Spectrum.lazily(lambda: _measured(A, generator), A.floor)


def _measured(A: Curvature, generator: torch.Generator) -> Ends:
    if A.has_matrix or (A.size <= DENSE and A.floor is None and A.affordable):
        values = torch.linalg.eigvalsh(A.dense())
        return Ends(float(values[0]), float(values[-1]), 0.0, "dense")
    if A.floor is not None:
        largest, tolerance = largest_eigenvalue(A, generator, tolerance=TOLERANCES[-1])
        return Ends(A.floor, largest, tolerance, "lanczos")
    largest, tolerance = largest_eigenvalue(A, generator)
    top = max(abs(largest), 1e-300)
    gap, other = largest_eigenvalue(A, generator, flip=top)
    return Ends(top - gap, largest, max(tolerance, other), "lanczos")


def largest_eigenvalue(
    A: Curvature, generator: torch.Generator, *, flip: float | None = None, tolerance: float | None = None
) -> tuple[float, float]:
    """The largest eigenvalue of ``A``, or of ``flip I - A``, by Lanczos, and the relative tolerance it was found to.

    Raises:
        Unsettled: Lanczos found none within any tolerance.
    """

    def product(v: torch.Tensor) -> torch.Tensor:
        return A @ v if flip is None else flip * v - A @ v

    if A.size < 3:  # ARPACK wants fewer eigenvalues than there are
        values = torch.linalg.eigvalsh(A.dense())
        return (float(values[-1]) if flip is None else flip - float(values[0])), 0.0
    return largest_of(product, A.size, generator, tolerance)


def largest_of(
    product: Callable[[torch.Tensor], torch.Tensor],
    size: int,
    generator: torch.Generator,
    tolerance: float | None = None,
) -> tuple[float, float]:
    """The largest eigenvalue of any symmetric ``product`` on ``[size]``, and the relative tolerance it was found to.

    Raises:
        Unsettled: it was not found in so many products.
        ArpackError: the search failed otherwise.
    """

    def apply(v: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64).reshape(-1))).cpu().numpy()

    operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
    start = torch.randn(size, generator=generator, dtype=torch.float64).numpy()
    for limit in TOLERANCES if tolerance is None else (tolerance, *TOLERANCES[-1:]):
        try:
            found = eigsh(
                operator,
                1,
                which="LA",
                v0=start,
                tol=limit,
                ncv=min(size, 8 if limit >= TOLERANCES[-1] else 24),
                maxiter=40,
                return_eigenvectors=False,
            )
        except ArpackNoConvergence:
            continue
        except ArpackError:
            if apply(start).any():
                raise
            return 0.0, 0.0  # a product of nothing but zeros, of which ARPACK makes an error
        return float(found[0]), limit
    raise Unsettled(f"the largest eigenvalue of {size} parameters did not settle: give damping= and scale=")


class Unsettled(RuntimeError):
    """An iteration did not settle."""
