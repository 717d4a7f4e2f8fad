"""The bound of a variational autoencoder and the divergences of Gaussians, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def kl_gaussians(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """``KL(N(m, diag v) | N(m', diag v'))`` in nats, over the last axis, ``[*batch]``.

    ``1/2 sum (log v'/v + (v + (m - m')^2) / v' - 1)``.

    Args:
        mean: ``[*batch, D]``.
        variance: ``[*batch, D]``, above 0.
        other_mean: ``[*batch, D]`` or what broadcasts to it.
        other_variance: likewise.

    Raises:
        ValueError: a variance that is not above 0.

    >>> kl_gaussians(torch.zeros(1), torch.ones(1), torch.ones(1), torch.ones(1))
    tensor(0.5000)
    """
    if not bool((variance > 0).all() and (other_variance > 0).all()):
        raise ValueError("variances must be above 0, got one that is not: give exp(log_variance)")
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - ratio.log() + (mean - other_mean).square() / other_variance).sum(-1)


def kl_full(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """``KL(N(m, C) | N(m', C'))`` in nats, of whole covariance matrices.

    ``1/2 (tr C'^-1 C + (m' - m)^T C'^-1 (m' - m) - D + log det C' - log det C)``.

    Args:
        mean: ``[D]``.
        covariance: ``[D, D]``.
        other_mean: ``[D]``.
        other_covariance: ``[D, D]``.

    Raises:
        ValueError: a covariance that is not positive definite.

    >>> kl_full(torch.zeros(2), torch.eye(2), torch.zeros(2), 2 * torch.eye(2))
    tensor(0.1931)
    """
    factors = [torch.linalg.cholesky_ex(one) for one in (covariance, other_covariance)]
    if any(bool(info.any()) for _, info in factors):
        raise ValueError("a covariance must be positive definite: add a little to its diagonal")
    (own, _), (other, _) = factors
    white = torch.linalg.solve_triangular(other, own, upper=False)
    shift = torch.linalg.solve_triangular(other, (other_mean - mean)[:, None], upper=False)
    logs = other.diagonal().log().sum() - own.diagonal().log().sum()
    return 0.5 * (white.square().sum() + shift.square().sum() - len(mean)) + logs


class Bound(NamedTuple):
    """The evidence lower bound, ``elbo = reconstruction - kl.sum(1) <= log p(x)``, in nats.

    Args:
        elbo: of each example, ``[n]``.
        reconstruction: ``E_q log p(x | z)``, ``[n]``.
        kl: ``KL(q(z_k | x) | p(z_k))`` of each latent number, ``[n, K]``: near 0 for one that says nothing.
        error: one standard error of `elbo` over the draws, ``[n]``.
    """

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor
    error: Tensor


def vae_bound(
    x: Tensor,
    encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    *,
    draws: int = 16,
    seed: int = 0,
) -> Bound:
    """The bound of a VAE with a standard normal prior: the divergence in closed form, the rest by common draws.

    ``log p(x) >= E_q log p(x | z) - KL(q(z | x) | N(0, I))``; the gap is ``KL(q(z | x) | p(z | x))``.

    Args:
        x: ``[n, ...]``.
        encode: to the mean and the logarithm of the variance of ``q``, ``[n, K]`` each.
        log_likelihood: of ``x`` and ``z [n, K]``, ``log p(x | z)`` of each example, ``[n]``, with its constant.
        draws: of ``z``, in pairs ``m + s e`` and ``m - s e``; rounded up to even.
        seed: of these.

    Raises:
        ValueError: moments of another shape than one another, or a likelihood that is not one number an example.

    Source: Kingma and Welling 2014, eq. 3 and appendix B.

    >>> x = torch.zeros(2, 1)
    >>> normal = lambda x, z: -0.5 * ((x - z).square() + LOG_2PI).sum(1)
    >>> bound = vae_bound(x, lambda x: (x / 2, torch.full_like(x, math.log(0.5))), normal, draws=512)
    >>> bool(((bound.elbo + 0.5 * math.log(4 * math.pi)).abs() < 0.05).all())  # log N(0; 0, 2), and q is p(z | x)
    True
    """
    mean, log_variance = encode(x)
    if mean.shape != log_variance.shape or mean.dim() != 2 or len(mean) != len(x):
        raise ValueError(f"encode must give two [n, K], got {list(mean.shape)} and {list(log_variance.shape)}")
    half = max(1, -(-draws // 2))
    noise = torch.randn(half, *mean.shape, generator=torch.Generator().manual_seed(seed), dtype=mean.dtype)
    deviation = (log_variance / 2).exp()
    found = []
    for one in noise.to(mean.device):
        pair = [log_likelihood(x, mean + sign * deviation * one) for sign in (1, -1)]
        if pair[0].shape != (len(x),):
            raise ValueError(f"log_likelihood must give one number an example, [n], got {list(pair[0].shape)}")
        found.append((pair[0] + pair[1]) / 2)
    values = torch.stack(found)
    error = values.std(0) / half**0.5 if half > 1 else torch.full_like(values[0], float("nan"))
    ones = torch.ones_like(mean)
    kl = kl_gaussians(mean[..., None], (2 * deviation.log()).exp()[..., None], 0 * ones[..., None], ones[..., None])
    return Bound(values.mean(0) - kl.sum(1), values.mean(0), kl, error)
