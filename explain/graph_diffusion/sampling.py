"""Runs of a denoiser of labels: ancestral steps, known labels in their place, corrected towards them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from explain.graph_diffusion.copies import Copies
from explain.graph_diffusion.processes import LabelProcess

MET = 1e-4  # of the squared distance to a known label, on average: nearer, its logarithm would push without bound


class Moment(NamedTuple):
    """A step of a run: which, its ``t``, the labels foreseen there and the state after it, both ``[rows, n, C]``."""

    step: int
    t: int
    foreseen: Tensor
    after: Tensor
    correction: Tensor | None = None


def spaced(times: list[int], steps: int) -> list[int]:
    """``steps`` of the schedule's steps, the first and the last among them where there are two.

    >>> spaced([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], 4)
    [9, 6, 3, 0]
    """
    last = len(times) - 1
    return [times[round(i * last / max(1, steps - 1))] for i in range(steps)]


def run(
    predict: Callable[[Tensor, int], Tensor],
    process: LabelProcess,
    copies: Copies,
    labels: Tensor,
    seeds: list[int],
    times: list[int],
    constrained: bool,
    differentiable: bool = False,
) -> Iterator[Moment]:
    """A run of every copy, rows ordered as they are; ``seeds`` one a row.

    Each step asks ``predict``, goes on as the process does, and moves by ``-grad_y log |Y_L - y0_hat_L|^2`` towards the
    known labels where it is ``constrained`` (manifold-constrained sampling, Chung et al. 2022, as DPM-SNC takes it; not
    in the last step, nor where they are met). It puts the known labels, noised to the step that was reached, in their
    place. The noise of a node is the seed's, whoever else is there.

    Args:
        predict: ``(y [rows * n, C], t) -> prediction``.
        process: the noise.
        copies: whose label is known, which steps look, and which correct.
        labels: one-hot ``[n, C]``, or one a row ``[rows, n, C]``.
        seeds: of the noise.
        times: the steps, from the noisiest on.
        constrained: whether known labels correct the run.
        differentiable: whether derivatives go through all of it.
    """
    known = copies.known
    rows, n, classes = len(known), known.size(1), labels.size(-1)
    own = {seed: torch.Generator().manual_seed(seed) for seed in dict.fromkeys(seeds)}
    place = torch.tensor([list(own).index(seed) for seed in seeds])

    def noise() -> Tensor:
        drawn = torch.stack([process.draw((n, classes), generator) for generator in own.values()])
        return drawn.to(labels)[place.to(labels.device)]

    Y = (labels if copies.labels is None else copies.labels).expand(rows, n, classes)
    y = process.start(noise())
    held = process.unseen(y)
    for step, t in enumerate(times):
        before = times[step + 1] if step + 1 < len(times) else None
        looks = None if copies.looks is None else copies.looks[:, step]
        pulls = known.any(1) if copies.corrected is None else known.any(1) & copies.corrected[:, step]
        if looks is not None:
            pulls = pulls & looks
        pulled = constrained and before is not None and bool(pulls.any())
        with torch.set_grad_enabled(differentiable or pulled):
            if not differentiable:
                y = y.detach()
            if pulled and not y.requires_grad:
                y.requires_grad_()
            foreseen = process.foreseen(y, predict(y.flatten(0, 1), t).view(rows, n, classes), t)
            if looks is not None:
                foreseen = torch.where(looks[:, None, None], foreseen, held)
            after = process.step(y, foreseen, t, before, noise())
            correction = None
            if pulled:
                goal = process.noised(Y, None, torch.zeros_like(y))
                distance = ((goal - foreseen).square() * known[..., None]).sum((1, 2))
                apart = pulls & (distance > MET * known.sum(1))
                log = torch.where(apart, distance, 1.0).log().sum()
                correction = torch.autograd.grad(log, y, create_graph=differentiable)[0]
                after = after - correction
            clamped = process.noised(Y, before, noise())
            after = torch.where(known[..., None], clamped, after)
        held = foreseen if differentiable else foreseen.detach()
        y = after if differentiable else after.detach()
        yield Moment(step, t, held, y, None if correction is None else correction.detach())
