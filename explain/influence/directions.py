"""Directions in a model's outputs that together make up the Hessian of the loss there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from explain.influence.linear_maps import LinearMap, pullback, slope, twice_differentiable
from explain.types import Objective

FEW = 32  # outputs of an example up to which every direction is taken
DRAWS = 8


def directions(
    objective: Objective, outputs: Tensor, batch: Tensor, samples: int | None, generator: torch.Generator
) -> Iterator[Tensor]:
    """Directions ``z_i``, each shaped as ``outputs``, whose ``sum z_i z_i^T`` is the Hessian of ``loss_i`` in them.

    Every column of a square root of it, or ``samples`` random combinations of them, right on average; when None all
    columns up to 32 outputs, else 8 combinations. Signs are random, one an example, so that examples which share rows
    of a layer (nodes of one graph) do not mix on average. A negative part, of a loss that is not convex, is left out.
    """
    count, size = len(outputs), outputs[0].numel()
    root = _root(objective, outputs, batch, generator)

    def direction(combination: Tensor) -> Tensor:
        found = root * combination if root.dim() == 2 else (root @ combination[:, :, None])[:, :, 0]
        return found.to(outputs.dtype).view(outputs.shape)

    if samples is None and size <= FEW:
        for j in range(size):
            alone = torch.zeros(count, size).to(root)
            alone[:, j] = _signs(root, generator, count)
            yield direction(alone)
        return
    draws = samples or DRAWS
    for _ in range(draws):
        yield direction(_signs(root, generator, count, size) / draws**0.5)


def _root(objective: Objective, outputs: Tensor, batch: Tensor, generator: torch.Generator) -> Tensor:
    """A square root of the Hessian of each ``loss_i``: ``[m, d]`` where it is diagonal, else ``[m, d, d]``.

    Whether it has is seen from two products with random signs: of a diagonal matrix both give the diagonal.
    """
    count, size = len(outputs), outputs[0].numel()
    with twice_differentiable():
        curve = pullback(slope(lambda o: objective.loss(o, batch).sum()), outputs)[1]
        probes = [_signs(outputs, generator, count, size) for _ in range(2)]
        first, second = (curve(probe.view(outputs.shape)).reshape(count, size) * probe for probe in probes)
        if torch.allclose(first, second, rtol=1e-4, atol=1e-6 * float(first.abs().max())):
            return first.detach().clamp_min(0).sqrt()
        values, vectors = torch.linalg.eigh(_dense(curve, outputs).double())
    return vectors * values.clamp_min(0).sqrt()[:, None]


def _dense(curve: LinearMap, outputs: Tensor) -> Tensor:
    """``[m, d, d]``."""
    rows = []
    for j in range(outputs[0].numel()):
        one = torch.zeros_like(outputs).view(len(outputs), -1)
        one[:, j] = 1
        rows.append(curve(one.view(outputs.shape)).detach().reshape(len(outputs), -1))
    return torch.stack(rows, 1)


def _signs(like: Tensor, generator: torch.Generator, *shape: int) -> Tensor:
    return (2 * torch.randint(0, 2, shape, generator=generator) - 1).to(like)
