"""Guided predictions and whole sampling runs, many coalitions at a time and each as if it were alone."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.diffusion.denoiser import Condition
from explain.diffusion.process import Process

_STEP_NOISE = 0x5DEECE66  # the same seed would add the starting noise once more


def guided(
    denoiser: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    condition: Condition,
    null: Condition,
    weight: Tensor,
    same: Tensor | None = None,
) -> Tensor:
    """Classifier-free guidance ``u + w (c - u)``, each branch evaluated only where it counts, and only once.

    ``c`` and ``u`` are the predictions with the condition and with the null the model was trained with (Ho and Salimans
    2021; ``w = 1`` is the plain conditional model, ``w = 0`` the unconditional one).

    Args:
        denoiser: ``(x, t, condition, branch=) -> prediction``.
        x: ``[n, *shape]``.
        t: the step of each row, ``[n]``.
        condition: of ``c``; one row, or as many as there are different images, over and over.
        null: of ``u``.
        weight: ``w`` of each row, ``[n]``.
        same: rows with equal numbers hold the same image and step and are evaluated once; all differ when None.
    """
    group = torch.arange(len(x), device=x.device) if same is None else torch.unique(same, return_inverse=True)[1]
    groups = int(group.max()) + 1
    first = torch.full((groups,), len(x), device=x.device).scatter_reduce(
        0, group, torch.arange(len(x), device=x.device), "amin"
    )
    branches = {}
    for name, rows, given in (("cond", weight != 0, condition), ("uncond", weight != 1, null)):
        wanted = torch.zeros(groups, dtype=torch.bool, device=x.device)
        wanted[group[rows]] = True
        chosen = first[wanted]
        answer = torch.zeros(groups, *x.shape[1:], dtype=x.dtype, device=x.device)
        if len(chosen):
            answer[wanted] = denoiser(x[chosen], t[chosen], _at(given, chosen), branch=name)
        branches[name] = answer[group]
    w = weight.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
    return torch.where(w == 1, branches["cond"], branches["uncond"] + w * (branches["cond"] - branches["uncond"]))


def _at(condition: Condition, rows: Tensor) -> Condition:
    """The conditions of these rows."""
    return {name: value if len(value) == 1 else value[rows % len(value)] for name, value in condition.items()}


class Fork(NamedTuple):
    """From step ``at [n]`` on each row meets the noise of its own of ``seeds``, as all with equal ``stream [n]`` do."""

    at: Tensor
    seeds: list[int]
    stream: Tensor


class Looks:
    """Which steps of each row ask the network; between, the clean image that it foresaw at the last look is held to.

    Before the first look it is zero, the middle grey of images in [-1, 1]. The sampler takes all its steps: at those
    without a look its prediction is ``x0_hat`` of the last one, said in the network's own parameterisation.

    Args:
        at: bool ``[n, steps]``.
        process: what a prediction says about the image and its noise.
    """

    def __init__(self, at: Tensor, process: Process) -> None:
        self.at, self.process = at, process
        self.clean: Tensor | None = None

    def held(self, x: Tensor, prediction: Tensor, t: Tensor, asked: Tensor) -> Tensor:
        """The predictions for ``x [n, *shape]`` at ``t``, of rows that did not ask those of the held image."""
        clean = torch.zeros_like(x) if self.clean is None else self.clean
        asked = asked.view(-1, *[1] * (x.dim() - 1))
        self.clean = torch.where(asked, self.process.clean(x, prediction, t), clean)
        return torch.where(asked, prediction, self.process.saying(clean, x, t.reshape(1)))


class Moment(NamedTuple):
    """One step of a run: its number, the scheduler's timestep and where that is in the schedule, the scaled ``x_t`` and
    its prediction, and the images after it.
    """

    step: int
    t: Tensor
    position: Tensor
    seen: Tensor
    prediction: Tensor
    after: Tensor


def prepared(scheduler: Any, steps: int) -> Any:
    """A copy of the user's scheduler, set to these steps.

    Raises:
        ValueError: it has no such schedule.
    """
    found = copy.deepcopy(scheduler)
    try:
        found.set_timesteps(steps)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"{type(scheduler).__name__} cannot make a run of {steps} steps: {error}") from error
    return found


def run(
    denoiser: Callable[..., Tensor],
    scheduler: Any,
    start: Tensor,
    seeds: list[int],
    weights: Tensor,
    condition: Condition,
    null: Condition,
    position: Callable[[Tensor], Tensor] = lambda t: t,
    *,
    alike: Tensor | None = None,
    fork: Fork | None = None,
    eta: float | None = None,
    looks: Looks | None = None,
) -> Iterator[Moment]:
    """A sampling run of every row with its own guidance weights, on a fresh copy of the scheduler.

    Args:
        denoiser: ``(x, t, condition, branch=) -> prediction``.
        scheduler: as `prepared`.
        start: ``x_T [n, *shape]``; rows with equal seeds start alike.
        seeds: one a row, of the noise that stochastic schedulers add: rows with equal seeds meet the same noise.
        weights: guidance weights ``[n, steps]``.
        condition: the label or embedding, of all rows or one a row.
        null: its absence.
        position: where in the schedule a timestep of the scheduler is: what the denoiser is asked about.
        alike: rows with equal numbers start alike; those with equal seeds when None.
        fork: from where on rows meet another noise.
        eta: given to the scheduler's steps.
        looks: at which steps a row asks the network; at all of them when None.

    Rows that have met the same seed and the same weights so far are one row to the network.
    """
    scheduler = copy.deepcopy(scheduler)  # schedulers remember; coalitions must not share their memory
    options = _noise_options(scheduler, seeds) | ({} if eta is None else {"eta": eta})
    x = start * getattr(scheduler, "init_noise_sigma", 1.0)
    known = torch.tensor(seeds, device=x.device) if alike is None else alike.to(x.device)
    if any(len(value) > 1 for value in condition.values()):
        known = torch.arange(len(x), device=x.device)
    history = torch.unique(known, return_inverse=True)[1]
    calls = _calls_of_steps(scheduler, weights.size(1))
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        step = calls[i]
        weight = weights[:, step].to(x.device)
        if fork is not None and "generator" in options:
            for row in (fork.at == step).nonzero().view(-1).tolist() if i == calls.index(step) else ():
                options["generator"][row] = _noise_of(fork.seeds[row])
        place = position(t).to(x.device)
        if looks is None:
            prediction = guided(denoiser, scaled, place.expand(len(x)), condition, null, weight, history)
        else:
            asked = looks.at[:, step].to(x.device)
            prediction = torch.zeros_like(x)
            if bool(asked.any()):
                rows, given = scaled[asked], (_at(condition, asked.nonzero().view(-1)), null)
                prediction[asked] = guided(
                    denoiser, rows, place.expand(len(rows)), *given, weight[asked], history[asked]
                )
            prediction = looks.held(scaled, prediction, place, asked)
        after = scheduler.step(prediction, t, x, **options, return_dict=True).prev_sample
        met = [history.double(), weight.double()]
        if looks is not None:
            met.append(looks.at[:, step].to(history.device).double())
        if fork is not None:
            met.append(torch.where(fork.at <= step, fork.stream, -1).to(history.device).double())
        history = torch.unique(torch.stack(met), dim=1, return_inverse=True)[1]
        yield Moment(step, t, place, scaled, prediction, after)
        x = after


def _calls_of_steps(scheduler: Any, steps: int) -> list[int]:
    """The asked-for step that each call of the network belongs to: some schedulers call more than once a step."""
    times = [float(t) for t in scheduler.timesteps]
    if len(times) == steps:  # schedules that round may hold a time twice
        return list(range(steps))
    distinct = sorted(set(times), reverse=True)
    return [min(distinct.index(t) * steps // len(distinct), steps - 1) for t in times]


def _noise_options(scheduler: Any, seeds: list[int]) -> dict[str, Any]:
    """A generator a row, so that every row meets the noise it would meet alone; another stream than ``x_T`` is from."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": [_noise_of(seed) for seed in seeds]}


def _noise_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed ^ _STEP_NOISE)
