"""Damping that nobody has to tune: the one with which the curvature of half of the examples foretells the rest's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.example_gradients import example_gradients
from explain.progress import in_sight

COLUMNS = 16  # examples whose gradients are asked about
STEPS = 8  # of their block Krylov space
MEMORY = 2**30  # bytes that it may take
SPLITS = 2  # of the examples at random, each half in both roles
A_DECADE = 8  # dampings that are tried in each power of ten
FEWEST = 12  # examples that are worth splitting


def held_out_damping(A: Curvature, largest: float, progress: bool = False) -> float | None:
    """The ``d`` whose ``x = (A_a + d I)^-1 g`` does best by ``A_b``: least ``x^T A_b x / 2 - g^T x``.

    ``A_a`` and ``A_b`` are the curvatures of two random halves of the examples, ``g`` gradients, at length 1, of a few
    that are in neither. With too little damping ``x`` follows directions that examples of ``a`` alone bend, and an
    influence then foretells a training that leaves some of them out badly; with too much it forgets the curvature.
    Summed over both roles and two splits. All dampings share one Krylov space: 512 products with half of the examples.

    Args:
        A: without damping of its own; its penalty counts.
        largest: eigenvalue of ``A``, of which dampings are tried from a millionth to tenfold.
        progress: a bar where it takes more than five seconds.

    Returns:
        None of fewer than 12 examples, of gradients that are all zero, or where a Krylov space does not fit in memory.
    """
    count = min(COLUMNS, A.objective.size // 4, MEMORY // (24 * A.size * STEPS))
    if A.objective.size < FEWEST or not count or not largest > 0:
        return None
    generator = torch.Generator().manual_seed(0)
    dampings = grid(largest)
    total, said = torch.zeros_like(dampings), False
    with in_sight(total=4 * SPLITS * STEPS, desc="damping", progress=progress) as bar:
        for _ in range(SPLITS):
            order = torch.randperm(A.objective.size, generator=generator).to(A.theta.device)
            asked, rest = order.tensor_split([count])
            g = torch.cat([rows for _, rows in example_gradients(A.objective, asked)])
            g = g[g.norm(dim=1) > 0].T
            if not g.size(1):
                continue
            said = True
            halves = [A.on(half) for half in rest.tensor_split(2)]
            for a, b in (halves, halves[::-1]):
                total += judged(a, b, g / g.norm(dim=0), dampings)
                bar.update(2 * STEPS)
    return float(dampings[total.argmin()]) if said else None


def grid(largest: float) -> Tensor:
    """From about a millionth of it to about ten times it, float64: powers of ten and seven between each two.

    >>> grid(0.5)[[0, 8, -1]]
    tensor([1.0000e-06, 1.0000e-05, 1.0000e+01], dtype=torch.float64)
    """
    top = math.ceil(math.log10(largest)) + 1
    return 10.0 ** (torch.arange(A_DECADE * (top - 7), A_DECADE * top + 1, dtype=torch.float64) / A_DECADE)


def judged(A: Curvature, B: Curvature, g: Tensor, dampings: Tensor) -> Tensor:
    """The mean of ``x^T B x / 2 - g^T x`` over columns ``g [p, k]`` with ``x = (A + d I)^-1 g``, for each ``d``.

    ``x`` is sought in the Krylov space of ``A`` from all of ``g``.
    """
    V, own, other = krylov(A, B, g)
    values, vectors = torch.linalg.eigh(own)
    seen, seen_by_other = vectors.T @ (V.T @ g), vectors.T @ other @ vectors
    x = seen / (values[:, None] + dampings.to(values)[:, None, None])  # [dampings, m, k]
    return ((x * (seen_by_other @ x)).sum(1) / 2 - (seen * x).sum(1)).mean(1).cpu()


def krylov(A: Curvature, B: Curvature, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``V [p, m]``, an orthonormal basis of the span of ``g, A g, A^2 g, ...``, with ``V^T A V`` and ``V^T B V``."""
    basis: list[Tensor] = []
    by_A, by_B = [], []
    new = _orthonormal(g, basis)
    while new.size(1) and len(basis) < STEPS:
        basis.append(new)
        by_A.append(A @ new)
        by_B.append(B @ new)
        new = _orthonormal(by_A[-1], basis)
    V = torch.cat(basis, 1)
    return V, _within(V, by_A), _within(V, by_B)


def _orthonormal(block: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """What of the columns is outside the basis, as orthonormal columns."""
    size = torch.linalg.matrix_norm(block, 2)
    for _ in range(2):  # once leaves rounding
        for known in basis:
            block = block - known @ (known.T @ block)
    columns, sizes = torch.linalg.svd(block, full_matrices=False)[:2]
    return columns[:, sizes > 1e-8 * size]


def _within(V: Tensor, products: Sequence[Tensor]) -> Tensor:
    found = V.T @ torch.cat(list(products), 1)
    return (found + found.T) / 2
