"""DiffusionModel: a trained denoiser and its noise schedule, ready to be asked about a step or a whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from explain.diffusion.denoiser import Condition, Denoiser, checked_image
from explain.diffusion.process import Gaussian, process_of
from explain.diffusion.targets import StepTarget, TrajectoryTarget
from explain.guard import usual_modes


class DiffusionModel:
    """Any denoiser as ``(x_t, t, condition) -> prediction``, with the process that its noise comes and goes by.

    Args:
        net: a diffusers model, a diffusers pipeline, or any module or function ``(x_t [b, C, H, W], t [b], label)``.
        scheduler: a diffusers scheduler; a pipeline brings its own. It is copied for every run and never changed.
        betas: float ``[T]`` in place of a scheduler: a DDIM scheduler is made from them.
        prediction_type: "epsilon", "sample", "v_prediction" or "flow_prediction"; the scheduler's when None.
        null: what stands for "no label", as the model was trained: a label, an embedding, or named arguments.
        shape: ``[C, H, W]`` of the images, where the model's configuration does not tell.
        weight_decay: the penalty ``weight_decay/2 |theta|^2`` that the model was trained with.
        loss: ``(predictions, wanted) -> [examples]`` in place of the mean squared error.
        draws: fixed (step, noise) draws that a training example's loss is averaged over.

    Raises:
        TypeError: neither scheduler nor betas, or a network whose arguments cannot be told.
        ValueError: a scheduler with another prediction type than the model's.

    >>> model = DiffusionModel(lambda x, t: x * 0, betas=torch.linspace(1e-4, 0.02, 10), shape=(1, 4, 4))
    >>> model.step(torch.ones(1, 4, 4), t=5, payoff="norm").value()
    0.0
    """

    def __init__(
        self,
        net: Any,
        *,
        scheduler: Any = None,
        betas: Tensor | Sequence[float] | None = None,
        prediction_type: str | None = None,
        null: int | Tensor | Condition | None = None,
        shape: Sequence[int] | None = None,
        weight_decay: float = 0.0,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        draws: int = 16,
    ) -> None:
        if not isinstance(net, nn.Module) and hasattr(net, "components"):
            net, scheduler = _from_pipeline(net, scheduler)
        if (scheduler is None) == (betas is None):
            raise TypeError("give the noise schedule once: scheduler= (diffusers) or betas= ([T])")
        self.scheduler = scheduler if scheduler is not None else _ddim(betas, prediction_type)
        self.process: Gaussian = process_of(self.scheduler, prediction_type)
        self.denoiser = Denoiser(net)
        self.module = self.denoiser
        self.null = None if null is None else self.denoiser.condition(null)
        self.shape = tuple(shape) if shape is not None else _shape_of(net)
        self.weight_decay, self.loss, self.draws = weight_decay, loss, draws

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
        size = tuple(shape) if shape is not None else self.shape
        if size is None:
            raise ValueError("the image size is not known: give shape=(channels, height, width)")
        if not isinstance(steps, int) or not 1 <= steps <= self.process.steps:
            raise ValueError(f"steps must be whole, from 1 to {self.process.steps}, got {steps}")
        if str(self.scheduler.config.get("variance_type")).startswith("learned"):
            name = type(self.scheduler).__name__
            raise ValueError(
                f"{name} takes learned variances, which are not followed here: run with "
                f'{name}.from_config(scheduler.config, variance_type="fixed_small"), or with DDIMScheduler'
            )
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
        if self.shape is not None and tuple(image.shape) != self.shape:
            raise ValueError(f"x0 must be {list(self.shape)} as the model was trained, got {list(image.shape)}")
        return image


def _shape_of(net: Any) -> tuple[int, int, int] | None:
    """``[C, H, W]`` as a diffusers configuration tells it."""
    config: Any = getattr(net, "config", {})
    size = config.get("sample_size") if hasattr(config, "get") else None
    if size is None or config.get("in_channels") is None:
        return None
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return int(config["in_channels"]), int(height), int(width)


def _from_pipeline(pipeline: Any, scheduler: Any) -> tuple[nn.Module, Any]:
    """The denoiser and the scheduler of a diffusers pipeline.

    Raises:
        TypeError: a pipeline without a unet, a transformer or a scheduler.
    """
    parts = pipeline.components
    net = next((parts[name] for name in ("unet", "transformer") if isinstance(parts.get(name), nn.Module)), None)
    scheduler = scheduler if scheduler is not None else parts.get("scheduler")
    if net is None or scheduler is None:
        raise TypeError(
            f"{type(pipeline).__name__} has no unet or transformer with a scheduler; it has {', '.join(parts)}"
        )
    return net, scheduler


def _ddim(betas: Any, prediction_type: str | None) -> Any:
    from diffusers import DDIMScheduler

    values = torch.as_tensor(betas, dtype=torch.float32)
    if values.dim() != 1 or not len(values) or not ((values > 0) & (values < 1)).all():
        raise ValueError("betas must be [T] numbers between 0 and 1")
    return DDIMScheduler(
        num_train_timesteps=len(values),
        trained_betas=values.numpy(),
        prediction_type=prediction_type or "epsilon",
        clip_sample=False,
    )
