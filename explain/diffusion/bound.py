"""How the steps of the schedule are weighted: the terms of the variational bound, and weights by signal and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from explain.diffusion.process import Gaussian
from explain.spelling import came

StepWeights: TypeAlias = Literal["snr", "min_snr", "elbo"] | Callable[[Tensor], Tensor]
WEIGHTS = ("snr", "min_snr", "elbo")
GAMMA = 5.0  # of "min_snr", as Hang et al. train


def check_weights(weights: StepWeights | None, payoff: object) -> None:
    """Raise where these are no weights of squared errors, or the number has none.

    Raises:
        ValueError: naming what there is.
    """
    if weights is None:
        return
    if not callable(weights) and weights not in WEIGHTS:
        raise ValueError(
            f"weights must be one of {', '.join(WEIGHTS)}, or a function of the steps t [n] -> [n], "
            f"{came(weights, WEIGHTS)}"
        )
    if payoff not in ("error", "evidence"):
        raise ValueError(
            f"weights are of squared errors, payoff='error' or 'evidence', got payoff={payoff!r:.60}"
            + (", which has its own weights" if payoff == "elbo" else "")
        )


def error_weights(weights: StepWeights | None, process: Gaussian, t: Tensor) -> Tensor:
    """The weight of ``|e - e_hat|^2`` at each step, float64 ``[n]``: that of ``|x0 - x0_hat|^2`` by ``SNR(t)``.

    With ``SNR(t) = a_t^2 / s_t^2`` and ``|x0 - x0_hat|^2 = |e - e_hat|^2 / SNR(t)`` the squared error of the image has
    the weight

    =============  ========================================================================
    weights        of ``|x0 - x0_hat|^2``
    =============  ========================================================================
    "snr"          ``SNR(t)``: the plain error of the noise, as None
    "min_snr"      ``min(SNR(t), 5)`` (Hang et al. 2023)
    "elbo"         ``(SNR(t-1) - SNR(t)) / 2``, at the first step ``SNR / 2``: see `bound_terms`
    a function     ``weights(t)``
    =============  ========================================================================

    Raises:
        ValueError: a step without signal, or a function that does not give one finite number a step.
    """
    if weights is None or weights == "snr":
        return torch.ones(t.shape, dtype=torch.float64, device=t.device)
    variance = process.sigma(t).square().to(t.device)  # 1 / SNR
    if not bool(variance.isfinite().all()):
        silent = float(t[~variance.isfinite()][0])
        raise ValueError(f"at t={silent:g} there is no signal, and an error of x0 has no weight there: leave it out")
    if weights == "min_snr":
        return (GAMMA * variance).clamp_max(1)
    if weights == "elbo":
        first, _ = chain(process)
        before = process.sigma((t - 1).clamp_min(first)).square().to(t.device)
        return torch.where(t == first, 0.5, 0.5 * (variance / before - 1))
    assert callable(weights)
    found = weights(t)
    if not isinstance(found, Tensor) or found.shape != t.shape or not bool(found.isfinite().all()):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"weights must give one finite number for each step, [{len(t)}], got {got}")
    return found.to(variance) * variance


def chain(process: Gaussian) -> tuple[int, int]:
    """The first and the last step of the bound: those with noise, and with signal.

    >>> chain(Gaussian(None, 10, "flow_prediction"))
    (1, 9)
    """
    levels = process.sigma(torch.arange(process.steps + (process.signal is None)))
    found = ((levels > 0) & levels.isfinite()).nonzero().view(-1)
    return int(found[0]), int(found[-1])


def check_chain(process: Gaussian, steps: Sequence[float]) -> None:
    """Raise where the bound has no term for a step.

    Raises:
        ValueError: a step between two, or outside of those with noise and signal.
    """
    first, last = chain(process)
    if wrong := [t for t in steps if t != int(t) or not first <= t <= last]:
        raise ValueError(
            f"the bound has terms for the whole steps {first} to {last}, those with noise and signal, got {wrong[0]:g}"
        )


def bound_terms(process: Gaussian, errors: Tensor, squares: Tensor, count: int, t: Tensor) -> Tensor:
    """The terms of the evidence lower bound, in nats, ``[n]``; over all steps they sum to ``ELBO <= log p(x0)``.

    ``log p(x0) >= E log p(x0 | x_first) - sum_t KL(q(x_(t-1) | x_t, x0) | p(x_(t-1) | x_t)) - KL(q(x_last | x0) | p)``

    Each step's term is ``-(SNR(t-1) - SNR(t)) / 2 |x0 - x0_hat|^2``, the divergence where the model's step has the
    variance of the posterior ``q``. With the first step goes the reconstruction, ``log N(x0; x0_hat, 1 / SNR)``, with
    the last the prior, ``-KL(N(a x0, s^2) | N(0, 1)) = -(a^2 |x0|^2 + D (s^2 - 1 - log s^2)) / 2``.

    Args:
        process: the noise.
        errors: ``|e - e_hat|^2`` of each row, ``[n]``.
        squares: ``a_t^2 |x0|^2`` of each row, ``[n]``.
        count: ``D``, how many numbers are summed.
        t: ``[n]``.

    Sources: Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 13 to 15.
    """
    first, last = chain(process)
    terms = -error_weights("elbo", process, t).to(errors) * errors
    sigma = process.sigma(t).to(errors)
    noise = process.levels(t, errors)[1].square()
    reconstruction = -count / 2 * (2 * math.pi * sigma.square()).log()
    prior = -0.5 * (squares + count * (noise - 1 - noise.log()))
    return terms + (t == first) * reconstruction + (t == last) * prior


def said(process: Gaussian) -> str:
    """What the bound takes to be so."""
    first, last = chain(process)
    deviation = float(process.sigma(torch.tensor([first])))
    return (
        f"nats, of the density of x0 as given: steps {first} to {last} with the variance of q(x_(t-1) | x_t, x0); "
        f"p(x0 | x_{first}) normal around x0_hat with deviation {deviation:.3g}, its term with t={first}; the prior of "
        f"x_{last} standard normal, its term with t={last}"
    )
