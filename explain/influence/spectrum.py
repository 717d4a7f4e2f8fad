"""The extreme eigenvalues of a curvature, measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from explain.influence.curvature import Curvature

DENSE = 1500  # parameters up to which they are those of the whole matrix
TOLERANCES = (1e-5, 1e-3, 1e-2)  # of the largest eigenvalue; the next where Lanczos does not settle


class Spectrum(NamedTuple):
    """``smallest`` and ``largest`` eigenvalue of ``A``, ``tolerance`` relative to the largest, ``how`` measured."""

    smallest: float
    largest: float
    tolerance: float
    how: str

    def shifted(self, damping: float) -> Spectrum:
        """That of ``A + damping I``."""
        return self._replace(smallest=self.smallest + damping, largest=self.largest + damping)

    @property
    def positive(self) -> bool:
        """Whether the smallest eigenvalue is above zero by more than rounding."""
        return self.smallest > 1e-12 * abs(self.largest)


class Indefinite(ValueError):
    """The curvature has an eigenvalue that is not positive: no inverse to trust. The message has the remedy."""

    def __init__(self, name: str, spectrum: Spectrum) -> None:
        super().__init__(
            f"the {name} is not positive definite: its smallest eigenvalue is {spectrum.smallest:.3g} (largest "
            f"{spectrum.largest:.3g}), so the model is not at a minimum of its training loss. Use "
            f"damping={sufficient_damping(spectrum):.2g}, curvature='ggn', or train until the gradient vanishes"
        )


def sufficient_damping(spectrum: Spectrum) -> float:
    """The least damping that leaves the smallest eigenvalue at a thousandth of the largest.

    >>> sufficient_damping(Spectrum(-0.5, 10.0, 0.0, "dense"))
    0.51
    """
    return max(0.0, 1e-3 * spectrum.largest - spectrum.smallest)


def extreme_eigenvalues(A: Curvature, generator: torch.Generator) -> Spectrum:
    """Both ends of the spectrum of ``A``: by the whole matrix up to 1,500 parameters, else by Lanczos (scipy's ARPACK).

    The smallest is found as the largest of ``largest I - A``, which Lanczos finds in far fewer products. Where ``A``
    has a known floor that is taken instead: measuring would cost more than most solutions.
    """
    if A.size <= DENSE:
        values = torch.linalg.eigvalsh(A.dense())
        return Spectrum(float(values[0]), float(values[-1]), 0.0, "dense")
    if A.floor is not None:
        largest, tolerance = largest_eigenvalue(A, generator, tolerance=TOLERANCES[-1])
        return Spectrum(A.floor, largest, tolerance, "lanczos; the smallest is a lower bound")
    largest, tolerance = largest_eigenvalue(A, generator)
    top = max(abs(largest), 1e-300)
    gap, other = largest_eigenvalue(A, generator, flip=top)
    return Spectrum(top - gap, largest, max(tolerance, other), "lanczos")


def largest_eigenvalue(
    A: Curvature, generator: torch.Generator, *, flip: float | None = None, tolerance: float | None = None
) -> tuple[float, float]:
    """The largest eigenvalue of ``A``, or of ``flip I - A``, by Lanczos, and the relative tolerance it was found to.

    Raises:
        Unsettled: Lanczos found none within any tolerance.
    """

    def product(v: np.ndarray) -> np.ndarray:
        vector = torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64).reshape(-1))
        result = (A @ vector).cpu()
        return (result if flip is None else flip * vector - result).numpy()

    if A.size < 3:  # ARPACK wants fewer eigenvalues than there are
        values = torch.linalg.eigvalsh(A.dense())
        return (float(values[-1]) if flip is None else flip - float(values[0])), 0.0
    operator = LinearOperator((A.size, A.size), matvec=product, dtype=np.float64)
    start = torch.randn(A.size, generator=generator, dtype=torch.float64).numpy()
    for limit in TOLERANCES if tolerance is None else (tolerance, *TOLERANCES[-1:]):
        try:
            found = eigsh(
                operator,
                1,
                which="LA",
                v0=start,
                tol=limit,
                ncv=min(A.size, 8 if limit >= TOLERANCES[-1] else 24),
                maxiter=40,
                return_eigenvectors=False,
            )
        except ArpackNoConvergence:
            continue
        return float(found[0]), limit
    raise Unsettled(f"the largest eigenvalue of {A.size} parameters did not settle: give damping= and scale=")


class Unsettled(RuntimeError):
    """An iteration did not settle."""
