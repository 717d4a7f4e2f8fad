"""Diffusion in paper form: one image, one draw, one coalition at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ddim(net, alphas: Tensor, x: Tensor, label: int, null: int, weights: list[float], times: list[int]) -> Tensor:
    """Deterministic DDIM (Song et al. 2021, eq. 12) with classifier-free guidance ``u + w (c - u)`` at every step."""
    for i, t in enumerate(times):
        previous = alphas[times[i + 1]] if i + 1 < len(times) else alphas[0]
        with torch.no_grad():
            c = net(x[None], torch.tensor([t]), torch.tensor([label])).sample[0]
            u = net(x[None], torch.tensor([t]), torch.tensor([null])).sample[0]
        e = u + weights[i] * (c - u)
        clean = (x - (1 - alphas[t]).sqrt() * e) / alphas[t].sqrt()
        x = previous.sqrt() * clean + (1 - previous).sqrt() * e
    return x


def step_error(net, alphas: Tensor, x0: Tensor, kept: Tensor, fill: Tensor, draws, label: int) -> float:
    """``-mean |e - e_hat|^2`` of an image that shows the fill, noised with the same draw, outside ``kept [H, W]``."""
    total = 0.0
    for t, e in draws:
        a, s = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        x = torch.where(kept, a * x0 + s * e, a * fill + s * e)
        with torch.no_grad():
            found = net(x[None], torch.tensor([t]), torch.tensor([label])).sample[0]
        total -= float((e - found).square().sum())
    return total / len(draws)


def gaussian_bound(kept: list[float], x0: float, mean: float, variance: float) -> list[float]:
    """The bound's expected terms at each step, for one number of ``N(mean, variance)`` and the exact ``E[x0 | x_t]``.

    ``kept`` is ``a_t^2`` with ``s_t^2 = 1 - a_t^2``. ``x0_hat - x0 = (k a - 1) (x0 - mean) + k s e`` with the
    regression ``k = a variance / (a^2 variance + s^2)`` of ``x0`` on ``x_t`` (Kingma et al. 2021, eq. 13 to 15).
    """
    terms = []
    for t, a2 in enumerate(kept):
        s2 = 1 - a2
        k = a2**0.5 * variance / (a2 * variance + s2)
        error = (k * a2**0.5 - 1) ** 2 * (x0 - mean) ** 2 + k**2 * s2
        if t == 0:
            terms.append(-error * a2 / s2 / 2 - math.log(2 * math.pi * s2 / a2) / 2)
        else:
            terms.append(-(kept[t - 1] / (1 - kept[t - 1]) - a2 / s2) / 2 * error)
    a2 = kept[-1]
    terms[-1] -= (a2 * x0**2 + (1 - a2) - 1 - math.log(1 - a2)) / 2
    return terms


def chain_density(kept: list[float], x0: float, mean: float, variance: float) -> float:
    """``log p(x0)`` of the chain that starts at ``N(0, 1)`` and steps to ``N(mu_q(x_t, x0_hat), var_q)``, exactly.

    Every step is linear with normal noise, so that mean and variance are carried from step to step (Ho et al. 2020,
    eq. 6 and 7).
    """
    at, spread = 0.0, 1.0
    for t in range(len(kept) - 1, -1, -1):
        a2, s2 = kept[t], 1 - kept[t]
        k = a2**0.5 * variance / (a2 * variance + s2)  # x0_hat = mean + k (x_t - a mean)
        if t == 0:
            slope, offset, noise = k, mean * (1 - k * a2**0.5), s2 / a2
        else:
            before = kept[t - 1]
            step = a2 / before
            on_x0, on_x = before**0.5 * (1 - step) / s2, step**0.5 * (1 - before) / s2
            slope, offset = on_x + on_x0 * k, on_x0 * mean * (1 - k * a2**0.5)
            noise = (1 - before) / s2 * (1 - step)
        at, spread = slope * at + offset, slope**2 * spread + noise
    return -((x0 - at) ** 2) / (2 * spread) - math.log(2 * math.pi * spread) / 2
