"""How noise comes and goes: what a step does to an image, and what a prediction says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

Prediction: TypeAlias = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")


class Process(Protocol):
    """What a family of denoisers must say about its noise; room for cold and categorical processes.

    Images ``[batch, ...]``; ``t`` a number or ``[batch]``. ``noise`` is the draw that a step is made with.
    """

    steps: int

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t`` of a clean image."""

    def absent(self, fill: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What stands at ``t`` where ``x_t`` is taken away: the fill, with the same draw."""

    def wanted(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should have predicted: the target of its training loss."""

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean image that a prediction implies."""

    def noise_in(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """``x_t = a_t x_0 + s_t e``, in whatever parameterisation the model predicts.

    ===================  ====================  ======================  ======================
    prediction           the model predicts    ``x_0``                 ``e``
    ===================  ====================  ======================  ======================
    "epsilon"            ``e``                 ``(x - s p) / a``       ``p``
    "sample"             ``x_0``               ``p``                   ``(x - a p) / s``
    "v_prediction"       ``a e - s x_0``       ``a x - s p``           ``s x + a p``
    "flow_prediction"    ``e - x_0``           ``x - s p``             ``x + a p``
    ===================  ====================  ======================  ======================

    The last line holds where ``a + s = 1`` (flow matching), the one before where ``a^2 + s^2 = 1``.

    Args:
        signal: ``a_t``, float64 ``[T]`` for diffusion; None for flow matching, ``a_t = 1 - t/T``.
        steps: ``T``; ``t`` runs from 0 to ``T - 1``, to ``T`` for flow matching.
        prediction: see the table.

    Sources: Ho et al. 2020; Salimans and Ho 2022 (v); Lipman et al. 2023 (flow).

    >>> process = Gaussian(torch.tensor([0.9, 0.1]).sqrt().double(), 2, "epsilon")
    >>> x0, e, t = torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([1])
    >>> x = process.noised(x0, e, t)
    >>> torch.allclose(process.clean(x, e, t), x0)
    True
    """

    signal: Tensor | None
    steps: int
    prediction: Prediction

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``a_t`` and ``s_t``, shaped to multiply ``like [batch, ...]``."""
        if self.signal is None:
            s = torch.as_tensor(t, dtype=torch.float64) / self.steps
            a = 1 - s
        else:
            a = self.signal[torch.as_tensor(t, dtype=torch.long, device=self.signal.device)]
            s = (1 - a**2).clamp_min(0).sqrt()
        shape = (-1, *[1] * (like.dim() - 1))
        return a.to(like.device, like.dtype).reshape(shape), s.to(like.device, like.dtype).reshape(shape)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``a_t x_0 + s_t e``."""
        a, s = self.levels(t, x0)
        return a * x0 + s * noise

    def absent(self, fill: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The fill at the same step with the same draw, so that absence does not change the noise level."""
        return self.noised(fill, noise, t)

    def wanted(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``e``, ``x_0``, ``a e - s x_0`` or ``e - x_0``."""
        a, s = self.levels(t, x0)
        return {
            "epsilon": lambda: noise,
            "sample": lambda: x0,
            "v_prediction": lambda: a * noise - s * x0,
            "flow_prediction": lambda: noise - x0,
        }[self.prediction]()

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """``x_0`` by the table."""
        a, s = self.levels(t, x_t)
        return {
            "epsilon": lambda: (x_t - s * prediction) / a,
            "sample": lambda: prediction,
            "v_prediction": lambda: a * x_t - s * prediction,
            "flow_prediction": lambda: x_t - s * prediction,
        }[self.prediction]()

    def noise_in(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """``e`` by the table."""
        a, s = self.levels(t, x_t)
        return {
            "epsilon": lambda: prediction,
            "sample": lambda: (x_t - a * prediction) / s,
            "v_prediction": lambda: s * x_t + a * prediction,
            "flow_prediction": lambda: x_t + a * prediction,
        }[self.prediction]()

    def checked_step(self, t: float) -> float:
        """``t`` where it is a step of the schedule.

        Raises:
            ValueError: outside the schedule.
        """
        last = self.steps if self.signal is None else self.steps - 1
        if (
            isinstance(t, bool)
            or not isinstance(t, (int, float))
            or not 0 <= t <= last
            or (self.signal is not None and t != int(t))
        ):
            raise ValueError(f"t must be a step of the schedule, from 0 to {last}, got {t}")
        if self.prediction == "sample" and t == 0 and self.signal is None:
            raise ValueError("at t=0 nothing is noise: ask for a later step")
        return t if self.signal is None else int(t)


def process_of(scheduler: Any, prediction_type: str | None) -> Gaussian:
    """The process that a diffusers scheduler was made for.

    Raises:
        ValueError: the scheduler predicts something else than ``prediction_type``, something unknown, or flows that it
            does not run.
        TypeError: no diffusers scheduler, or one without a Gaussian process.
    """
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping) or not hasattr(scheduler, "step"):
        got = f"the class {scheduler.__name__}" if isinstance(scheduler, type) else type(scheduler).__name__
        raise TypeError(f"scheduler must be a diffusers scheduler such as DDIMScheduler(1000), got {got}")
    steps = int(config.get("num_train_timesteps", 0))
    matching = "FlowMatch" in type(scheduler).__name__  # these have no prediction_type
    flow = matching or config.get("use_flow_sigmas")
    declared: Any = "flow_prediction" if matching else config.get("prediction_type", "epsilon")
    if prediction_type is not None and prediction_type != declared:
        raise ValueError(
            f"the model predicts {prediction_type!r}, {type(scheduler).__name__} is configured for {declared!r}: "
            f"make it with prediction_type={prediction_type!r}"
        )
    if declared not in PREDICTIONS:
        raise ValueError(f"prediction_type must be one of {', '.join(PREDICTIONS)}, got {declared!r}")
    if declared == "flow_prediction":
        if not flow:
            raise ValueError(
                f"{type(scheduler).__name__} does not run flow matching: use FlowMatchEulerDiscreteScheduler({steps}), "
                "or a scheduler with use_flow_sigmas=True"
            )
        return Gaussian(None, steps, "flow_prediction")
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise TypeError(f"{type(scheduler).__name__} has no alphas_cumprod: give betas=[T] instead of a scheduler")
    return Gaussian(torch.as_tensor(scheduler.alphas_cumprod).double().sqrt(), steps, declared)
