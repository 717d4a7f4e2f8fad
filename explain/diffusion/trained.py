"""A trained denoiser with its noise schedule, and all that is known of how it was trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.classifier import ClassifierGuided
from explain.diffusion.cold import Cold
from explain.diffusion.components import parts_of
from explain.diffusion.conventions import Convention, convention_of, said
from explain.diffusion.denoiser import Condition, Denoiser, checked_image
from explain.diffusion.networks import check_network, configuration, of_diffusers
from explain.diffusion.process import Gaussian, Process, gaussian
from explain.diffusion.schedules import ddim, preconditions, process_of
from explain.diffusion.settings import checked_count, checked_shape
from explain.draws import own_words
from explain.losses import check_weight_decay
from explain.spelling import came

LOSSES = ("mse", "mae", "huber")


class TrainedDenoiser:
    """``denoiser (x_t, t, condition) -> prediction``, the ``process`` of its noise, and what `explain.wrap` was told.

    See `DiffusionModel` for the settings. ``module`` is the denoiser as it was trained, without a classifier that it is
    steered by. ``assumed`` says what was taken to be so without being told.
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
        classifier: Callable[..., Tensor] | None = None,
    ) -> None:
        net, scheduler, self.assumed = _out_of_pipeline(net, scheduler, time)
        check_network(net)
        if (scheduler is None) == (betas is None):
            raise TypeError("give the noise schedule once: scheduler= (diffusers) or betas= ([T])")
        self.made_here = betas is not None
        self.scheduler = ddim(betas, prediction_type) if self.made_here else scheduler
        own_edm = preconditions(self.scheduler) and time == "sigma"  # the network's answer is not what its steps take
        self.process: Process = process_of(self.scheduler, None if own_edm else prediction_type)
        convention = convention_of(net, self.scheduler, self.process, time, prediction_type)
        if self.made_here and prediction_type is None and time == "sigma":
            raise TypeError(
                "what does the network answer to (x0 + sigma e, sigma)? Say prediction_type='sample' (the image), "
                "'epsilon' or 'v_prediction'"
            )
        self.denoiser = self.module = Denoiser(net, convention, condition)
        if classifier is not None:
            process = gaussian(self.process, "classifier guidance")
            self.denoiser, null = ClassifierGuided(self.module, classifier, process), _without(null)
        self.null = None if null is None else self.denoiser.condition(null, "null")
        self.channels = _channels_of(net)
        self.shape = checked_shape(shape, self.channels) if shape is not None else _shape_of(net)
        check_weight_decay(weight_decay)
        _check_loss(loss)
        self.weight_decay, self.loss, self.draws = weight_decay, loss, checked_count(draws, "draws")
        self.assumed |= self._assumptions(convention, prediction_type, time) | own_words(net)

    def _assumptions(self, convention: Convention, prediction_type: str | None, time: Any) -> dict[str, str]:
        """What was taken to be so about the network without being told."""
        names, found = self.denoiser.names, {}
        if time is None:
            found["time"] = f"{said(convention)}: as diffusers' own pipelines give it to this network"
        elif time == "unit":
            flow = isinstance(self.process, Gaussian) and self.process.signal is None
            end = " of flow matching, 0 the image and 1 the noise" if flow else ""
            found["time"] = f"{said(convention)}{end}"
        if isinstance(self.process, Cold):
            found["sampling"] = f"{self.process.sampling}; no noise, so one draw of each step"
        if self.made_here and prediction_type is None:
            found["prediction_type"] = "epsilon: betas were given without it"
        if names.label is not None and names.given:
            found["condition"] = names.given
        if names.drop is not None and names.label is not None:
            found[names.drop] = "0 with the label" + (", 1 for none" if self.null is None else "")
        if names.left:
            found["arguments"] = f"left at their defaults: {', '.join(names.left)}"
        return found

    def absent_condition(self, condition: Condition | None = None) -> Condition:
        """What stands for "no label" in place of a condition, as given, or by the network's own argument that drops it.

        Raises:
            ValueError: the model was wrapped without one.
        """
        drop = self.denoiser.names.drop
        if self.null is None and drop is not None:
            return {**(condition or {}), drop: torch.ones(1, device=self.denoiser.device)}
        if self.null is None:
            raise ValueError(
                "this needs the null condition that the model was trained with: explain.wrap(..., null=...)"
            )
        return self.null

    def image(self, x0: Tensor) -> Tensor:
        """One sample ``[*shape]``, an image ``[C, H, W]`` or what else `sites` knows, as the network sees it.

        Raises:
            ValueError: another size or other channels than the model's; see `checked_image` too.
        """
        image = checked_image(x0, self.denoiser.dtype).to(self.denoiser.device)
        got = list(image.shape)
        if self.shape is not None and got[1:] == list(self.shape):
            raise ValueError(f"x0 must be one image {got[1:]}, got a batch {got}: ask about each by itself, x0[i]")
        if self.channels is not None and len(image) != self.channels:
            raise ValueError(f"x0 must have the {self.channels} channels of the network, got {got}")
        if self.shape is not None and tuple(image.shape) != self.shape:
            raise ValueError(f"x0 must be {list(self.shape)} as the model was trained, got {got}")
        return image


def _out_of_pipeline(net: Any, scheduler: Any, time: Any) -> tuple[Any, Any, dict[str, str]]:
    """The network and the scheduler, out of a diffusers pipeline where it is one, and what is to be known of them.

    Raises:
        ValueError: another unit of time than the pipeline's.
        TypeError: a pipeline whose call is not followed.
    """
    if isinstance(net, torch.nn.Module) or not hasattr(net, "components"):
        return net, scheduler, {}
    parts = parts_of(net, scheduler)
    own = "log_sigma" if preconditions(parts.scheduler) else "step"
    if time not in (None, own):
        raise ValueError(
            f"{type(net).__name__} gives its network the time as {own!r}: leave time out; of a network that takes it "
            "otherwise wrap the network itself, with scheduler="
        )
    return parts


def _without(null: Any) -> Condition:
    """The condition of a network that took no label, under guidance by a classifier.

    Raises:
        ValueError: a null label, which only networks trained with labels have.
    """
    if null is not None:
        raise ValueError(f"a network that is guided by a classifier takes no label and no null, got null={null!r:.60}")
    return {}


def _check_loss(loss: Any) -> None:
    """Raise where this is no loss of images.

    Raises:
        ValueError: it is neither one of ours nor a function.
    """
    if loss is not None and loss not in LOSSES and not callable(loss):
        raise ValueError(
            f"loss must be one of {', '.join(LOSSES)}, a function (predictions, wanted) -> one number an image, or "
            f"None for the mean squared error, {came(loss, LOSSES)}"
        )


def _channels_of(net: Any) -> int | None:
    """The channels that a diffusers network denoises."""
    return configuration(net).get("in_channels") if of_diffusers(net) else None


def _shape_of(net: Any) -> tuple[int, ...] | None:
    """``[C, H, W]`` or ``[C, L]`` as a diffusers configuration tells it; none tells the frames of a video."""
    config, kinds = configuration(net), of_diffusers(net)
    if any("3D" in kind or "Video" in kind for kind in kinds):
        return None
    size = config.get("sample_size") if of_diffusers(net) else None
    if size is None or config.get("in_channels") is None:
        return None
    if "UNet1DModel" in kinds:
        return int(config["in_channels"]), int(size)
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return int(config["in_channels"]), int(height), int(width)
