"""DiffusionModel: a trained denoiser and its noise schedule, ready to be asked about a step or a whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explain.diffusion.conventions import Convention, convention_of, said
from explain.diffusion.denoiser import Condition, Denoiser, checked_image
from explain.diffusion.networks import check_network, configuration, of_diffusers
from explain.diffusion.pipelines import parts_of
from explain.diffusion.process import Gaussian
from explain.diffusion.schedules import check_run, ddim, preconditions, process_of
from explain.diffusion.settings import checked_count, checked_shape
from explain.diffusion.targets import StepTarget, TrajectoryTarget
from explain.guard import usual_modes
from explain.losses import check_weight_decay

LOSSES = ("mse", "mae", "huber")


class DiffusionModel:
    """Any denoiser as ``(x_t, t, condition) -> prediction``, with the process that its noise comes and goes by.

    Args:
        net: a diffusers model, a diffusers pipeline, or any module or function ``(x_t [b, C, H, W], t [b], label)``.
        scheduler: a diffusers scheduler; a pipeline brings its own. It is copied for every run and never changed.
        betas: float ``[T]`` in place of a scheduler: a DDIM scheduler is made from them.
        time: the unit that the network takes its time in, "step" (``t``), "unit" (``t / T``), "sigma" (it sees
            ``x_0 + sigma e`` and ``sigma = s_t / a_t``), "log_sigma" (``log(sigma) / 4``, the preconditioned network of
            EDM), or a function of ``t [b]``. Needed but for diffusers' own networks, for which diffusers defines it.
        condition: the network's argument that takes the label, where its name does not say.
        prediction_type: "epsilon", "sample", "v_prediction" or "flow_prediction"; the scheduler's when None, with
            ``betas`` "epsilon", which the answer then says.
        null: what stands for "no label", as the model was trained: a label, an embedding, or named arguments.
        shape: ``[C, H, W]`` of the images, where the model's configuration does not tell.
        weight_decay: the penalty ``weight_decay/2 |theta|^2`` that the model was trained with.
        loss: "mse" (when None), "mae", "huber", or a function ``(predictions, wanted) -> [examples]``.
        draws: fixed (step, noise) draws that a training example's loss is averaged over.

    Raises:
        TypeError: neither scheduler nor betas, a network whose arguments or unit of time cannot be told, or a pipeline
            whose call holds more than is followed.
        ValueError: a scheduler with another prediction type than the model's.

    ``assumed`` says what was taken to be so without being told; it is written into every answer.

    >>> betas = torch.linspace(1e-4, 0.02, 10)
    >>> model = DiffusionModel(lambda x, t: x * 0, betas=betas, time="step", shape=(1, 4, 4))
    >>> model.step(torch.ones(1, 4, 4), t=5, payoff="norm").value()
    0.0
    """

    def __init__(
        self,
        net: Any,
        *,
        scheduler: Any = None,
        betas: Tensor | Sequence[float] | None = None,
        time: str | Callable[[Tensor], Tensor] | None = None,
        condition: str | None = None,
        prediction_type: str | None = None,
        null: int | Tensor | Condition | None = None,
        shape: Sequence[int] | None = None,
        weight_decay: float = 0.0,
        loss: str | Callable[[Tensor, Tensor], Tensor] | None = None,
        draws: int = 16,
    ) -> None:
        self.assumed: dict[str, str] = {}
        if not isinstance(net, torch.nn.Module) and hasattr(net, "components"):
            name, (net, scheduler, self.assumed) = type(net).__name__, parts_of(net, scheduler)
            own = "log_sigma" if preconditions(scheduler) else "step"
            if time not in (None, own):
                raise ValueError(
                    f"{name} gives its network the time as {own!r}: leave time out; of a network that takes it "
                    "otherwise wrap the network itself, with scheduler="
                )
        check_network(net)
        if (scheduler is None) == (betas is None):
            raise TypeError("give the noise schedule once: scheduler= (diffusers) or betas= ([T])")
        self.scheduler = scheduler if scheduler is not None else ddim(betas, prediction_type)
        own_edm = preconditions(self.scheduler) and time == "sigma"  # the network's answer is not what its steps take
        self.process: Gaussian = process_of(self.scheduler, None if own_edm else prediction_type)
        convention = convention_of(net, self.scheduler, self.process, time, prediction_type)
        if betas is not None and prediction_type is None and time == "sigma":
            raise TypeError(
                "what does the network answer to (x0 + sigma e, sigma)? Say prediction_type='sample' (the image), "
                "'epsilon' or 'v_prediction'"
            )
        self.denoiser = Denoiser(net, convention, condition)
        self.module = self.denoiser
        self.null = None if null is None else self.denoiser.condition(null, "null")
        self.channels = _channels_of(net)
        self.shape = checked_shape(shape, self.channels) if shape is not None else _shape_of(net)
        check_weight_decay(weight_decay)
        if loss is not None and loss not in LOSSES and not callable(loss):
            raise ValueError(
                f"loss must be one of {', '.join(LOSSES)}, a function (predictions, wanted) -> one number an image, or "
                f"None for the mean squared error, got {loss!r}"
            )
        self.weight_decay, self.loss, self.draws = weight_decay, loss, checked_count(draws, "draws")
        self.made_here = betas is not None
        self.assumed |= self._assumptions(convention, prediction_type, time)

    def _assumptions(self, convention: Convention, prediction_type: str | None, time: Any) -> dict[str, str]:
        """What was taken to be so about the network without being told."""
        names, found = self.denoiser.names, {}
        if time is None:
            found["time"] = f"{said(convention)}: as diffusers' own pipelines give it to this network"
        elif time == "unit":
            end = " of flow matching, 0 the image and 1 the noise" if self.process.signal is None else ""
            found["time"] = f"{said(convention)}{end}"
        if self.made_here and prediction_type is None:
            found["prediction_type"] = "epsilon: betas were given without it"
        if names.label is not None and names.given:
            found["condition"] = names.given
        if names.left:
            found["arguments"] = f"left at their defaults: {', '.join(names.left)}"
        return found

    def step(
        self,
        x0: Tensor,
        t: int | Sequence[int] | Tensor,
        label: int | Tensor | Condition | None = None,
        *,
        seed: int = 0,
        draws: int = 4,
        payoff: str | Callable[[Tensor], Tensor] = "error",
        region: Tensor | None = None,
        guidance: float = 1.0,
        fill: str = "mean",
        reference: Tensor | None = None,
        batch_size: int | None = None,
    ) -> StepTarget:
        """What the model says about one image at one noise level, or on average over several.

        Args:
            x0: a clean image ``[C, H, W]`` as the denoiser sees it (a latent, where there is a VAE before it); it is
                noised with draws that every coalition shares.
            t: a step of the schedule, or several to average over.
            label: the condition: a class, an embedding (``[tokens, width]`` of a prompt), or named arguments, each
                ``[1, ...]``; None for unconditional models.
            seed: of the noise.
            draws: noise draws for each step, that the number is the mean of.
            payoff: "error", ``-|e - e_hat|^2``; "evidence", ``|e - D(null)|^2 - |e - D(label)|^2``; "norm",
                ``|e_hat|^2``; "x0", the mean of ``x0_hat`` over the region; or a function ``x0_hat -> [n]``.
            region: bool ``[H, W]``, where squares are summed or means taken; everywhere when None.
            guidance: classifier-free guidance weight ``w`` in ``u + w (c - u)``.
            fill: an absent patch shows the "mean", a "reference" image, "zeros", each noised to the step with the same
                draw, or "noise" alone.
            reference: images ``[m, C, H, W]`` for "mean" and "reference".
            batch_size: images in one forward pass; by default from a memory budget.

        Raises:
            ValueError: an image of another size, a step outside the schedule, an unknown payoff or fill.
        """
        times = np.asarray(t.cpu() if isinstance(t, Tensor) else t).reshape(-1).tolist()
        steps = tuple(self.process.checked_step(time) for time in times)
        with usual_modes():
            image = self._image(x0)
            return StepTarget(
                self, image, steps, label, seed, draws, payoff, region, guidance, fill, reference, batch_size
            )

    def trajectory(
        self,
        label: int | Tensor | Condition | None = None,
        *,
        payoff: Callable[[Tensor], Tensor],
        steps: int = 50,
        guidance: float = 1.0,
        seed: int = 0,
        draws: int = 1,
        shape: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> TrajectoryTarget:
        """What a function says about the image that a whole sampling run ends in.

        Args:
            label: the condition of the run.
            payoff: ``sample [n, C, H, W] -> [n]``, one number a sample.
            steps: steps of the scheduler.
            guidance: classifier-free guidance weight ``w``.
            seed: of the starting noise, and of the noise that stochastic schedulers add.
            draws: runs from different noise that the number is the mean of.
            shape: ``[C, H, W]``, where the model does not tell.
            batch_size: images in one forward pass.

        Raises:
            ValueError: the image size is not known, steps outside the schedule, or a scheduler of learned variances.
        """
        size = checked_shape(shape, self.channels) if shape is not None else self.shape
        if size is None:
            raise ValueError("the image size is not known: give shape=(channels, height, width)")
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= self.process.steps:
            raise ValueError(f"steps must be whole, from 1 to {self.process.steps}, got {steps!r:.60}")
        check_run(self.scheduler)
        with usual_modes():
            return TrajectoryTarget(self, label, payoff, steps, guidance, seed, draws, size, batch_size)

    def absent_condition(self) -> Condition:
        """The condition that stands for "no label".

        Raises:
            ValueError: the model was wrapped without one.
        """
        if self.null is None:
            raise ValueError(
                "this needs the null condition that the model was trained with: explain.wrap(..., null=...)"
            )
        return self.null

    def _image(self, x0: Tensor) -> Tensor:
        image = checked_image(x0, self.denoiser.dtype).to(self.denoiser.device)
        if self.channels is not None and len(image) != self.channels:
            raise ValueError(f"x0 must have the {self.channels} channels of the network, got {list(image.shape)}")
        if self.shape is not None and tuple(image.shape) != self.shape:
            raise ValueError(f"x0 must be {list(self.shape)} as the model was trained, got {list(image.shape)}")
        return image


def _channels_of(net: Any) -> int | None:
    """The channels that a diffusers network denoises."""
    return configuration(net).get("in_channels") if of_diffusers(net) else None


def _shape_of(net: Any) -> tuple[int, int, int] | None:
    """``[C, H, W]`` as a diffusers configuration tells it."""
    config = configuration(net)
    size = config.get("sample_size") if of_diffusers(net) else None
    if size is None or config.get("in_channels") is None:
        return None
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return int(config["in_channels"]), int(height), int(width)
