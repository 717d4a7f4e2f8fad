"""What a network of DiGress' type is told beside the graph, for it cannot be seen by looking at one pair."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def cycles(A: Tensor) -> Tensor:
    """How many cycles of 3, 4 and 5 edges each node lies on, ``A [b, n, n]`` to ``[b, n, 3]``.

    From closed walks, less those that are no cycles: with ``d`` the degrees, ``t = diag(A^3) / 2``,

    - ``c4 = (diag(A^4) - d (d - 1) - A d) / 2``,
    - ``c5 = (diag(A^5) - 4 d t - 2 A t - 2 (A^2 * A) d + 10 t) / 2``.

    >>> cycles((1 - torch.eye(4))[None])[0, 0]  # of four nodes that are all joined
    tensor([3., 3., 0.])
    """
    d, A2 = A.sum(-1), A @ A
    A3 = A2 @ A
    t = A3.diagonal(dim1=1, dim2=2) / 2

    def over_neighbours(weights: Tensor, values: Tensor) -> Tensor:
        return (weights @ values[..., None])[..., 0]

    c4 = ((A2 @ A2).diagonal(dim1=1, dim2=2) - d * (d - 1) - over_neighbours(A, d)) / 2
    walks = (A3 @ A2).diagonal(dim1=1, dim2=2)
    c5 = (walks - 4 * d * t - 2 * over_neighbours(A, t) - 2 * over_neighbours(A2 * A, d) + 10 * t) / 2
    return torch.stack([t, c4, c5], -1)


SCALES = (0.5, 1.0, 2.0)  # how long heat runs, of a normalised Laplacian
LOWEST = 5  # eigenvalues


class Spectrum(NamedTuple):
    """What the Laplacian ``L = I - D^-1/2 A D^-1/2`` of each graph says.

    Args:
        heat: ``exp(-s L)`` for each of `SCALES`, ``[b, n, n, 3]``: how much of what starts at one node is at another.
        whole: how many components there are, over ``n``, and the lowest eigenvalues that are not zero, ``[b, 6]``.
    """

    heat: Tensor
    whole: Tensor


def spectrum(A: Tensor, real: Tensor) -> Spectrum:
    """Spectral features of ``A [b, n, n]``; ``real [b, n]``: not padding, which has no heat and no eigenvalue.

    DiGress gives eigenvectors as they are, which have no sign of their own, and no own direction where eigenvalues
    agree; their heat kernel says the same and hangs on neither.

    >>> path = torch.diag(torch.ones(2), 1)[None]
    >>> spectrum(path + path.mT, torch.ones(1, 3).bool()).whole[0].round(decimals=2)  # one of three; 1, 2
    tensor([0.3300, 1.0000, 2.0000, 0.0000, 0.0000, 0.0000])
    """
    d = A.sum(-1)
    scale = d.clamp_min(1).rsqrt()
    own = torch.where(real, (d > 0).to(A), 4.0)  # 2 is the largest that is real
    L = torch.diag_embed(own) - scale[..., None] * A * scale[:, None]
    values, vectors = torch.linalg.eigh(L)
    heat = torch.stack([(vectors * (-s * values[:, None]).exp()) @ vectors.mT for s in SCALES], -1)
    low, high = values > 1e-4, values < 3
    found = torch.where(low & high, values, torch.inf).sort(-1).values[:, :LOWEST]
    found = torch.where(found.isinf(), 0.0, found)
    parts = ((~low).sum(-1) / real.sum(-1)).to(A)
    whole = torch.cat([parts[:, None], F.pad(found, (0, LOWEST - found.size(1)))], -1)
    return Spectrum(heat * (real[:, :, None] & real[:, None])[..., None], whole)
