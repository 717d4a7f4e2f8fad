"""What a network is given at a step of the schedule: which picture, and which number for the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.networks import configuration, of_diffusers
from explain.diffusion.process import Gaussian, Prediction, Process, gaussian
from explain.diffusion.schedules import preconditions
from explain.spelling import came

TIMES = ("step", "unit", "sigma", "log_sigma")
_STEP_NETWORKS = {  # their own pipelines pass on what the scheduler gives
    "UNet2DModel",
    "UNet2DConditionModel",
    "UNet3DConditionModel",
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
}


@dataclass(frozen=True, eq=False)
class Convention:
    """How a network is asked about ``x_t`` at ``t``, and what its answer means.

    =============  ========================================  ======================================
    time           the picture that it sees                  the time that it is given
    =============  ========================================  ======================================
    "step"         ``x_t``                                   ``t``
    "unit"         ``x_t``                                   ``t / T``
    "sigma"        ``x_t / a_t = x_0 + sigma e``             ``sigma = s_t / a_t``
    "log_sigma"    ``x_t``                                   ``log(sigma) / 4``
    a function     ``x_t``                                   ``time(t)``, ``[b]`` to ``[b, ...]``
    =============  ========================================  ======================================

    Args:
        process: the noise.
        time: see the table.
        answers: what the network predicts, where that is not what the process is written in.

    Source: "sigma" as in k-diffusion, "log_sigma" inside the preconditioning of Karras et al. 2022.
    """

    process: Process
    time: str | Callable[[Tensor], Tensor]
    answers: Prediction

    def asked(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The picture and the time that the network is given for ``x_t [b, ...]`` at ``t [b]``.

        Raises:
            ValueError: not one time a row.
        """
        if self.time == "step":
            return x, t
        if callable(self.time):
            given = self.time(t)
            if not isinstance(given, Tensor) or given.shape[:1] != t.shape:
                got = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
                raise ValueError(f"time must give one row for each t, {list(t.shape)} or [{len(t)}, ...], got {got}")
            return x, given.to(x.device)
        if self.time == "unit":
            return x, (t.double() / self.process.steps).to(x)
        process = gaussian(self.process, "sigma")
        sigma = process.sigma(t)
        if self.time == "log_sigma":
            return x, (sigma.log() / 4).to(x)
        return x / process.levels(t, x)[0], sigma.to(x)

    def answered(self, prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The answer as the process writes it."""
        if self.answers == self.process.prediction:
            return prediction
        process = gaussian(self.process, f"an answer {self.answers!r}")
        own = Gaussian(process.signal, process.steps, self.answers, process.deviation)
        return process.wanted(own.clean(x, prediction, t), own.noise_in(x, prediction, t), t)


def convention_of(net: Any, scheduler: Any, process: Process, time: Any, prediction_type: str | None) -> Convention:
    """How this network is asked: what diffusers itself defines, or what the user says; never a guess.

    Raises:
        TypeError: a network whose unit of time nothing defines.
        ValueError: an unknown unit, or one that does not go with the process.
    """
    edm = preconditions(scheduler)
    if time is None:
        time = _defined(net, edm)
    if not callable(time) and time not in TIMES:
        raise ValueError(f"time must be one of {', '.join(TIMES)}, or a function of the step t, {came(time, TIMES)}")
    if time in ("sigma", "log_sigma") and not (isinstance(process, Gaussian) and process.signal is not None):
        kind = "flow matching" if isinstance(process, Gaussian) else "cold diffusion"
        raise ValueError(f"{kind} has no {time}: time='step' (t, up to T) or time='unit' (t / T)")
    if edm and time == "sigma":
        if prediction_type not in ("sample", "epsilon"):
            raise TypeError(
                "what does the network answer to (x0 + sigma e, sigma): prediction_type='sample' (the clean image, as "
                "EDM's own wrapper does) or 'epsilon'?"
            )
        return Convention(process, time, "sample" if prediction_type == "sample" else "epsilon")
    if edm and time != "log_sigma":
        raise ValueError(
            f"{type(scheduler).__name__} gives the network log(sigma)/4: time='log_sigma', or time='sigma' for "
            f"a network that preconditions itself; got {time!r}"
        )
    return Convention(process, time, process.prediction)


def _defined(net: Any, edm: bool) -> str:
    kinds, config = of_diffusers(net), configuration(net)
    if kinds & _STEP_NETWORKS:
        if config.get("time_embedding_type") == "fourier":
            raise TypeError(
                "a UNet2DModel with time_embedding_type='fourier' takes sigma and answers a score: give the noise that "
                "it says, wrap(lambda x, sigma: -sigma.view(-1, 1, 1, 1) * unet(x, sigma).sample, betas=..., "
                "prediction_type='epsilon', time='sigma')"
            )
        return "log_sigma" if edm else "step"
    name = type(net).__name__ if isinstance(net, nn.Module) else getattr(net, "__name__", type(net).__name__)
    if edm:
        raise TypeError(
            f"in which unit does {name} take its time? Say time='log_sigma' (it sees c_in (x0 + sigma e) and "
            "log(sigma)/4, and the scheduler preconditions) or time='sigma' (it sees x0 + sigma e and sigma, and "
            "preconditions itself)"
        )
    raise TypeError(
        f"in which unit does {name} take its time? Say time='step' (whole steps, 0 to T-1, as DDPM does), time='unit' "
        "(t / T, from 0 to 1), time='sigma' (it sees x0 + sigma e and sigma, as k-diffusion and EDM do), or a "
        "function of the step t"
    )


def said(convention: Convention) -> str:
    """The unit in a few words."""
    if callable(convention.time):
        return "a function of the step"
    return {
        "step": "step t",
        "unit": f"t / {convention.process.steps}",
        "sigma": "sigma, of x0 + sigma e",
        "log_sigma": "log(sigma) / 4",
    }[convention.time]


def position(process: Process, scheduler: Any, t: Tensor) -> Tensor:
    """A scheduler's timestep as the process counts it."""
    if not preconditions(scheduler):
        return torch.as_tensor(t)
    return gaussian(process, "sigma").at_sigma((4 * t.double()).exp())
