"""Energy of node states over edges and over all pairs, and the diffusivity that lowers it best (DIFFormer's theory)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.spelling import came

Penalty: TypeAlias = Literal["squares", "s", "a"]

# delta of the squared distance u, delta(0) = 0, and its derivative f: S_ij = f(u_ij) / sum_l f(u_il)
PENALTIES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "squares": (lambda u: u, torch.ones_like),
    "s": (lambda u: 2 * u - u.square() / 4, lambda u: 2 - u / 2),
    "a": (
        lambda u: u - 2 * (torch.nn.functional.softplus(u / 2 - 1) - torch.nn.functional.softplus(u.new_tensor(-1.0))),
        lambda u: torch.sigmoid(1 - u / 2),
    ),
}
BLOCK = 2**22  # pairs at a time


class Energy(NamedTuple):
    """``local``: over the edges of a graph; ``everywhere``: over all ordered pairs of nodes."""

    local: float
    everywhere: float


def energy(states: Tensor, edge_index: Tensor, penalty: Penalty = "squares") -> Energy:
    """``sum delta(|z_i - z_j|^2)`` over edges ``(i, j)`` and over all pairs, in float64.

    =============  ================================  =====================
    penalty        delta(u)                          f(u) = delta'(u)
    =============  ================================  =====================
    "squares"      ``u``, Dirichlet's                ``1``
    "s"            ``2 u - u^2 / 4``                 ``2 - u / 2``
    "a"            ``u - 2 log(1 + e^(u/2 - 1))``    ``sigmoid(1 - u/2)``
    =============  ================================  =====================

    Each is 0 where two states are equal ("a" up to its constant, which is taken off).

    Args:
        states: ``[nodes, columns]``.
        edge_index: ``[2, edges]``; an edge given both ways counts twice, as a pair does in the sum over all.
        penalty: "squares", or DIFFormer's, "s" and "a".

    Raises:
        ValueError: another penalty; states that are no matrix of finite numbers; for "s", two states more than a
            distance of 2 apart, where its penalty falls.

    Source: Wu et al. 2023 (DIFFormer), eq. 3 and theorem 1.

    >>> energy(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0, 1], [1, 0]]))
    Energy(local=2.0, everywhere=12.0)
    """
    delta, _ = _checked(states, penalty)
    z = states.detach().double()
    source, target = edge_index
    local = delta(_within((z[source] - z[target]).square().sum(1), penalty)).sum()
    rows = max(1, BLOCK // max(1, len(z)))
    everywhere = sum(float(delta(_within(torch.cdist(part, z).square(), penalty)).sum()) for part in z.split(rows))
    return Energy(float(local), float(everywhere))


def best_diffusivity(states: Tensor, penalty: Penalty) -> Tensor:
    """``S_ij = f(|z_i - z_j|^2) / sum_l f(|z_i - z_l|^2)``, float64 ``[nodes, nodes]``, rows sum to 1.

    A step ``z' = (1 - tau) z + tau S z`` with ``0 < tau < 1`` lowers the `energy` over all pairs. On vectors of length
    1 "s" is ``1 + cos`` and "a" ``sigmoid(cos)``, before rows are divided by their sums.

    Args:
        states: ``[nodes, columns]``.
        penalty: see `energy`.

    Raises:
        ValueError: as `energy`.

    >>> best_diffusivity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), "s")
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)
    """
    _, f = _checked(states, penalty)
    z = states.detach().double()
    weights = f(_within(torch.cdist(z, z).square(), penalty)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def _checked(states: Tensor, penalty: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    if penalty not in PENALTIES:
        raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}, {came(penalty, PENALTIES)}")
    if states.dim() != 2 or not bool(states.isfinite().all()):
        raise ValueError(f"states must be finite numbers [nodes, columns], got {list(states.shape)}")
    return PENALTIES[penalty]


def _within(u: Tensor, penalty: str) -> Tensor:
    if penalty == "s" and u.numel() and float(u.max()) > 4 * (1 + 1e-9):
        raise ValueError(
            f"the penalty 's' falls beyond a distance of 2, and two states are {float(u.max()) ** 0.5:.3g} apart: give "
            "states of length 1, torch.nn.functional.normalize(states)"
        )
    return u
