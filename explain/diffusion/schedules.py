"""Which process a diffusers scheduler, or a list of betas, was made for, and which schedulers a run can follow."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.cold import Cold
from explain.diffusion.process import PREDICTIONS, Gaussian, Process
from explain.spelling import came

ANSWERS = tuple(kind for kind in PREDICTIONS if kind != "edm")  # what a user may say that a network predicts
_OTHER_RUNS = {
    "RePaintScheduler": "it needs the picture and the mask that are painted around",
    "UnCLIPScheduler": "its steps need to be told the next timestep",
    "DDIMInverseScheduler": "it runs from an image to noise",
    "DPMSolverMultistepInverseScheduler": "it runs from an image to noise",
    "DPMSolverSDEScheduler": "it draws one Brownian path for the whole batch, so that no row is as if it were alone",
}


def ddim(betas: Any, prediction_type: str | None) -> Any:
    """A diffusers DDIM scheduler without clipping.

    Raises:
        ValueError: betas that are no schedule.
    """
    from diffusers import DDIMScheduler

    try:
        values = torch.as_tensor(betas, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"betas must be [T] numbers between 0 and 1, got {type(betas).__name__}") from error
    if values.dim() != 1 or not len(values) or not ((values > 0) & (values < 1)).all():
        raise ValueError("betas must be [T] numbers between 0 and 1")
    if len(values) > 1 and float(values[0]) > 0.5:
        raise ValueError(
            f"betas start at {float(values[0]):.3g}, so that the first step takes away half of an image or more: of "
            "alphas give betas = 1 - alphas, of alphas_cumprod betas_t = 1 - abar_t / abar_(t-1)"
        )
    return DDIMScheduler(
        num_train_timesteps=len(values),
        trained_betas=values.numpy(),
        prediction_type=prediction_type or "epsilon",
        clip_sample=False,
    )


def process_of(scheduler: Any, prediction_type: str | None) -> Process:
    """The process that a scheduler was made for: `Cold` is both, of diffusers' see `gaussian_of`.

    Raises:
        ValueError: a `Cold` one predicts something else than ``prediction_type``.
    """
    if not isinstance(scheduler, Cold):
        return gaussian_of(scheduler, prediction_type)
    if prediction_type not in (None, "sample"):
        raise ValueError(f"a restorer of cold diffusion answers 'sample', the clean image, got {prediction_type!r}")
    return scheduler


def gaussian_of(scheduler: Any, prediction_type: str | None) -> Gaussian:
    """The process that a diffusers scheduler was made for.

    Raises:
        ValueError: the scheduler predicts something else than ``prediction_type``, something unknown, or flows that it
            does not run.
        TypeError: no diffusers scheduler, or one without a Gaussian process.
    """
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping) or isinstance(scheduler, type):
        got = f"the class {scheduler.__name__}" if isinstance(scheduler, type) else type(scheduler).__name__
        raise TypeError(f"scheduler must be a diffusers scheduler such as DDIMScheduler(1000), got {got}")
    name = type(scheduler).__name__
    steps = int(config.get("num_train_timesteps", 0))
    matching = name.startswith(("FlowMatchEuler", "FlowMatchHeun"))  # these have no prediction_type
    flow = matching or config.get("use_flow_sigmas")
    declared: Any = "flow_prediction" if matching else config.get("prediction_type", "epsilon")
    if prediction_type is not None and prediction_type not in ANSWERS:
        raise ValueError(f"prediction_type must be one of {', '.join(ANSWERS)}, {came(prediction_type, ANSWERS)}")
    if prediction_type is not None and prediction_type != declared:
        raise ValueError(
            f"the model predicts {prediction_type!r}, {name} is configured for {declared!r}: "
            f"make it with prediction_type={prediction_type!r}"
        )
    if declared not in ANSWERS:
        raise ValueError(f"prediction_type must be one of {', '.join(ANSWERS)}, {came(declared, ANSWERS)}")
    if declared == "flow_prediction":
        if not flow:
            raise ValueError(
                f"{name} does not run flow matching: use FlowMatchEulerDiscreteScheduler({steps}), "
                "or a scheduler with use_flow_sigmas=True"
            )
        return Gaussian(None, steps, "flow_prediction")
    if preconditions(scheduler):
        return _edm(scheduler, declared)
    if getattr(scheduler, "alphas_cumprod", None) is None or not hasattr(scheduler, "step"):
        raise TypeError(
            f"{name} has no {'alphas_cumprod' if hasattr(scheduler, 'step') else 'step'}: its noise is not followed "
            "here. A network D(x0 + sigma e, sigma) can be asked with betas=[T], betas_t = 1 - abar_t / abar_(t-1) of "
            "abar = 1 / (1 + sigma^2), and time='sigma'; give the prediction_type that it answers"
        )
    if config.get("timestep_type") == "continuous":
        raise TypeError(
            f"{name}(timestep_type='continuous') gives the network log(sigma)/4 of its own range of sigma: use "
            "EDMEulerScheduler, or one with timestep_type='discrete'"
        )
    return Gaussian(torch.as_tensor(scheduler.alphas_cumprod).detach().cpu().double().sqrt(), steps, declared)


def preconditions(scheduler: Any) -> bool:
    """Whether the scheduler scales and shifts around the network itself, as in Karras et al. 2022."""
    return type(scheduler).__name__ in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


def _edm(scheduler: Any, declared: str) -> Gaussian:
    """``x = c_in (x_0 + sigma e)`` with ``c_in = (sigma^2 + d^2)^(-1/2)``, noise growing with ``t``."""
    steps, deviation = int(scheduler.config.num_train_timesteps), float(scheduler.config.sigma_data)
    fresh = type(scheduler).from_config(scheduler.config)  # after a run the sigmas are those of the run
    fresh.set_timesteps(steps)  # from the largest to the smallest: a fresh one's table may end before, a run does not
    sigmas: Tensor = fresh.sigmas[:steps].double().flip(0)
    signal = (sigmas**2 + deviation**2).rsqrt()
    return Gaussian(signal, len(sigmas), "edm" if declared == "epsilon" else "v_prediction", deviation)


def check_run(scheduler: Any) -> None:
    """Raise where a run from noise to an image, one call of ``step`` after the other, is not what this one makes.

    Raises:
        ValueError: with the reason and the remedy.
    """
    kinds = {kind.__name__ for kind in type(scheduler).__mro__}
    name, config = type(scheduler).__name__, scheduler.config
    reason = next((why for kind, why in _OTHER_RUNS.items() if kind in kinds), None)
    needed = [
        p.name
        for p in list(inspect.signature(scheduler.step).parameters.values())[3:]
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if reason is None and needed:
        reason = f"its step needs {', '.join(needed)}"
    if reason is not None:
        raise ValueError(f"runs with {name} are not followed here: {reason}; take DDIMScheduler or another sampler")
    if str(config.get("variance_type")).startswith("learned"):
        raise ValueError(
            f"{name} takes learned variances, which are not followed here: run with "
            f'{name}.from_config(scheduler.config, variance_type="fixed_small"), or with DDIMScheduler'
        )
    if config.get("use_dynamic_shifting"):
        raise ValueError(
            f"{name} shifts its steps by the size of the picture, which only the pipeline knows: make it with "
            "use_dynamic_shifting=False and shift=exp(mu) of your run"
        )
