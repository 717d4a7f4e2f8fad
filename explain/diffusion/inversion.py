"""From a real picture back to the noise that a run would make it of, and how well it does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
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
    iterations, model = checked_count(iterations, "iterations"), number.model
    weight = torch.full((1,), number.guidance, device=image.device)

    def asked(seen: Tensor, t: Tensor) -> Tensor:
        place = number.place(t).to(seen.device).reshape(1)
        return guided(model.denoiser, seen, place, number.condition, number.null, weight)

    with evaluating(model.denoiser):
        start = gone_back(prepared(number.scheduler, number.steps), asked, image, iterations)
    if not bool(start.isfinite().all()):
        return Inversion(start, start, float("inf"))
    made = replace(number, latents=start).samples(number.weights, 1)[0]
    return Inversion(start, made, missed(made, image))


@torch.no_grad()
def gone_back(
    scheduler: Any,
    asked: Callable[[Tensor, Tensor], Tensor],
    image: Tensor,
    iterations: int,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Tensor:
    """The noise of deviation 1 that a run of this scheduler takes to ``image [*shape]``; see `inverted`.

    Args:
        scheduler: set to its steps.
        asked: the prediction for what the network is shown, ``[1, *shape]``, at a timestep of the scheduler.
        image: where the run is to end.
        iterations: of each step's equation.
        options: further arguments of the scheduler's steps.

    Raises:
        Unsupported: steps that cannot be gone backwards.
    """
    x = image[None]
    for step in reversed(affine_steps(scheduler, x, options)):
        before = x
        for _ in range(iterations):
            x = (before - step.slope * asked(x * step.seen, step.t)) / step.factor
    return x[0] / getattr(scheduler, "init_noise_sigma", 1.0)


def missed(found: Tensor, wanted: Tensor) -> float:
    """``|found - wanted| / |wanted|``."""
    return float((found - wanted).double().norm() / wanted.double().norm().clamp_min(1e-12))


def affine_steps(scheduler: Any, like: Tensor, options: Mapping[str, Any]) -> list[_Step]:
    """What each step makes of its sample and of a prediction, proved on others.

    Raises:
        Unsupported: it is no straight line in both: steps that add noise, clip, or remember.
    """
    generator, times = torch.Generator().manual_seed(0), scheduler.timesteps
    one, none = (torch.full(like.shape, value, device=like.device) for value in (1.0, 0.0))
    x, p = ([torch.randn(like.shape, generator=generator).to(one) * 3 for _ in times] for _ in "xp")
    with other_random_states(0):
        factors = _walked(scheduler, lambda k: (one, none), options)
        slopes = _walked(scheduler, lambda k: (none, one), options)
        proofs = _walked(scheduler, lambda k: (x[k], p[k]), options)
    found = []
    for k, t in enumerate(times):
        factor, slope = float(factors[k][1].mean()), float(slopes[k][1].mean())
        expected = factor * x[k] + slope * p[k]
        close = (proofs[k][1] - expected).abs().max() <= _PROOF * expected.abs().max()
        if not bool(close) or factor == 0:
            name = type(scheduler).__name__
            raise Unsupported(
                f"a step of {name} is not a x_t + b prediction alone: it adds noise, clips (clip_sample, "
                "thresholding) or remembers earlier predictions, and cannot be gone backwards. Use "
                "DDIMScheduler(..., clip_sample=False), EulerDiscreteScheduler or FlowMatchEulerDiscreteScheduler"
            )
        found.append(_Step(t, float(factors[k][0].mean()), factor, slope))
    return found


def _walked(
    scheduler: Any, given: Callable[[int], tuple[Tensor, Tensor]], options: Mapping[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    """What the network sees of each step's sample, and the sample after it, for these samples and predictions."""
    own, found = copy.deepcopy(scheduler), []
    for k, t in enumerate(own.timesteps):
        x, prediction = given(k)
        seen = own.scale_model_input(x, t) if hasattr(own, "scale_model_input") else x
        found.append((seen, own.step(prediction, t, x, **options, return_dict=True).prev_sample))
    return found


def check_tolerance(tolerance: Any) -> None:
    """Raise where this is no tolerance.

    Raises:
        ValueError: it is no positive number.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance > 0:
        raise ValueError(f"tolerance must be a number above 0, of the picture's size, got {tolerance!r:.60}")


def check_reconstructed(error: float, tolerance: float, steps: int, guidance: float | None = 1.0) -> None:
    """Raise where the run does not lead back to the picture: what it says would be about another one.

    Raises:
        ValueError: the measured error, and the remedy.
    """
    if error <= tolerance:
        return
    unguided = "" if guidance in (None, 1) else f", guidance=1 (not {guidance:g})"
    raise ValueError(
        f"the run from the inverted noise misses the picture by {error:.2g} of its size, more than "
        f"tolerance={tolerance:g}: it would explain another picture. Take more steps than {steps}{unguided}, "
        "or more iterations"
    )
