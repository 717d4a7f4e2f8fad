"""Diffusion in paper form: one image, one draw, one coalition at a time."""

from __future__ import annotations

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
