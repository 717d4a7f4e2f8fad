"""From a real picture back to the noise that a run would make it of, and how well it does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.diffusion.number import TrajectoryNumber
from explain.diffusion.sampling import guided, prepared
from explain.diffusion.settings import checked_count
from explain.guard import evaluating, other_random_states
from explain.types import Unsupported

_PROOF = 1e-4  # of its largest number, how far a step may be from a straight line in its arguments


class Inversion(NamedTuple):
    """A picture's starting noise, and what a run makes of it.

    Args:
        start: ``x_T [*shape]``.
        reconstruction: the sample of the run from there, ``[*shape]``.
        error: ``|reconstruction - x0| / |x0|``.
    """

    start: Tensor
    reconstruction: Tensor
    error: float


class _Step(NamedTuple):
    """``x_(t-1) = factor x_t + slope prediction``."""

    t: Tensor
    seen: float
    factor: float
    slope: float


@torch.no_grad()
def inverted(number: TrajectoryNumber, image: Tensor, iterations: int = 1) -> Inversion:
    """The noise from which the number's own run ends in this image ``[*shape]``, step by step backwards.

    Every step of a deterministic first-order sampler is ``x_(t-1) = a x_t + b D(x_t, t)``. Backwards ``x_t`` solves
    ``x_t = (x_(t-1) - b D(x_t, t)) / a``, which is iterated from ``x_(t-1)``: once is DDIM inversion (Song et al.
    2021), further iterations solve it (Pan et al. 2023), as long as they converge.

    Raises:
        ValueError: no whole number of iterations.
        Unsupported: a scheduler whose steps add noise, clip, or remember earlier predictions.
    """
    iterations = checked_count(iterations, "iterations")
    model = number.model
    weight = torch.full((1,), number.guidance, device=image.device)
    x = image[None]
    with evaluating(model.denoiser):
        for step in reversed(affine_steps(number.scheduler, number.steps, x)):
            before, place = x, number.place(step.t).to(x.device).reshape(1)
            for _ in range(iterations):
                seen = x * step.seen
                found = guided(model.denoiser, seen, place, number.condition, number.null, weight)
                x = (before - step.slope * found) / step.factor
    start = x[0] / getattr(number.scheduler, "init_noise_sigma", 1.0)
    if not bool(start.isfinite().all()):
        return Inversion(start, start, float("inf"))
    made = replace(number, latents=start).samples(number.weights, 1)[0]
    error = float((made - image).double().norm() / image.double().norm().clamp_min(1e-12))
    return Inversion(start, made, error)


def affine_steps(scheduler: Any, steps: int, like: Tensor) -> list[_Step]:
    """What each step makes of its sample and of a prediction, proved on others.

    Raises:
        Unsupported: it is no straight line in both: steps that add noise, clip, or remember.
    """
    generator = torch.Generator().manual_seed(0)
    times = prepared(scheduler, steps).timesteps
    one, none = torch.ones(like.shape), torch.zeros(like.shape)
    x = [torch.randn(like.shape, generator=generator) * 3 for _ in times]
    p = [torch.randn(like.shape, generator=generator) * 3 for _ in times]
    with other_random_states(0):
        factors = _walked(scheduler, steps, lambda k: (one, none))
        slopes = _walked(scheduler, steps, lambda k: (none, one))
        proofs = _walked(scheduler, steps, lambda k: (x[k], p[k]))
    found = []
    for k, t in enumerate(times):
        factor, slope = float(factors[k][1].mean()), float(slopes[k][1].mean())
        expected = factor * x[k] + slope * p[k]
        close = (proofs[k][1] - expected).abs().max() <= _PROOF * expected.abs().max()
        if not bool(close) or factor == 0:
            name = type(scheduler).__name__
            raise Unsupported(
                f"a step of {name} is not a x_t + b prediction alone: it adds noise, clips (clip_sample, thresholding) "
                "or remembers earlier predictions, and cannot be gone backwards. Wrap the network with "
                "DDIMScheduler(..., clip_sample=False), EulerDiscreteScheduler or FlowMatchEulerDiscreteScheduler"
            )
        found.append(_Step(t, float(factors[k][0].mean()), factor, slope))
    return found


def _walked(scheduler: Any, steps: int, given: Callable[[int], tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """What the network sees of each step's sample, and the sample after it, for these samples and predictions."""
    own, found = copy.deepcopy(prepared(scheduler, steps)), []
    for k, t in enumerate(own.timesteps):
        x, prediction = given(k)
        seen = own.scale_model_input(x, t) if hasattr(own, "scale_model_input") else x
        found.append((seen, own.step(prediction, t, x, return_dict=True).prev_sample))
    return found


def check_reconstructed(error: float, tolerance: Any, steps: int, guidance: float = 1.0) -> None:
    """Raise where the run does not lead back to the picture: what it says would be about another one.

    Raises:
        ValueError: the measured error, and the remedy; or a tolerance that is no positive number.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance > 0:
        raise ValueError(f"tolerance must be a number above 0, of the picture's size, got {tolerance!r:.60}")
    if error <= tolerance:
        return
    unguided = f", guidance=1 (not {guidance:g})" if guidance != 1 else ""
    raise ValueError(
        f"the run from the inverted noise misses the picture by {error:.2g} of its size, more than "
        f"tolerance={tolerance:g}: it would explain another picture. Take more steps than {steps}{unguided}, "
        "or more iterations"
    )
