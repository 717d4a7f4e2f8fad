"""Which pipelines' runs are followed here, with every part that takes part in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

_LATENTS = "x0 and samples are latents, as the VAE encodes and scales them; payoffs see them undecoded"
_PIXELS = "as the network makes them, before the pipeline's own (x / 2 + 0.5).clamp(0, 1)"
_NETWORKS = ("unet", "transformer", "transformer_2")
_BESIDE = ("controlnet", "adapter", "motion_adapter", "prior", "low_res_scheduler", "depth_estimator")
# pipelines whose call is: x_T, then for each step the network, guidance u + w (c - u), and scheduler.step
_FOLLOWED = {
    "DDPMPipeline": "unet",
    "DDIMPipeline": "unet",
    "LDMPipeline": "unet",
    "DiTPipeline": "transformer",
    "StableDiffusionPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
}


class Parts(NamedTuple):
    """A pipeline's network and scheduler, and what is to be known about their use."""

    net: nn.Module
    scheduler: Any
    assumed: dict[str, str]


def parts_of(pipeline: Any, scheduler: Any) -> Parts:
    """The denoiser and the scheduler of a diffusers pipeline whose call is followed.

    Raises:
        TypeError: a pipeline whose call holds more than is followed here, such as a ControlNet, a picture to start from
            or a mask; or one without a unet, a transformer or a scheduler.
    """
    parts = pipeline.components
    net = next((parts[name] for name in ("unet", "transformer") if isinstance(parts.get(name), nn.Module)), None)
    scheduler = scheduler if scheduler is not None else parts.get("scheduler")
    name = type(pipeline).__name__
    if net is None or scheduler is None:
        raise TypeError(f"{name} has no unet or transformer with a scheduler; it has {', '.join(parts)}")
    if (part := _followed(pipeline)) is None or parts.get(part) is not net:
        own = "unet" if parts.get("unet") is net else "transformer"
        raise TypeError(
            f"the runs of {name} are not followed here: its call may hold more than network, guidance and scheduler "
            f"(it has {', '.join(parts)}), and a number without that would not be yours. Followed are "
            f"{', '.join(_FOLLOWED)}. Where your run needs nothing but network and scheduler, "
            f"wrap(pipeline.{own}, scheduler=pipeline.scheduler); else a function (x_t, t, label) that calls all"
        )
    if beside := [name for name in _BESIDE if parts.get(name) is not None]:
        raise TypeError(
            f"this {name} has {', '.join(beside)} beside network and scheduler, which are not followed here: make it "
            "without, or wrap a function (x_t, t, label) that calls all"
        )
    if getattr(net, "encoder_hid_proj", None) is not None or parts.get("image_encoder") is not None:
        raise TypeError(
            f"this {name} has an IP-Adapter's image encoder, whose picture is not supported: call "
            "pipeline.unload_ip_adapter(), or make it with image_encoder=None"
        )
    latents = any(isinstance(parts.get(one), nn.Module) for one in ("vae", "vqvae"))
    return Parts(net, scheduler, {"x0": _LATENTS} if latents else {"samples": _PIXELS})


def _followed(pipeline: Any) -> str | None:
    """The name of the network's part, where this pipeline's call is one of those followed; None for others."""
    call: Callable[..., Any] = type(pipeline).__call__
    for kind in type(pipeline).__mro__:
        if kind.__module__.startswith("diffusers.") and kind.__name__ in _FOLLOWED and kind.__call__ is call:
            return _FOLLOWED[kind.__name__]
    return None


def denoising_part(pipeline: Any) -> str:
    """The name of the part that a pipeline's scheduler steps with.

    Raises:
        TypeError: none, several, or no scheduler.
    """
    parts, name = pipeline.components, type(pipeline).__name__
    found = [part for part in _NETWORKS if isinstance(parts.get(part), nn.Module)]
    if parts.get("scheduler") is None or len(found) != 1:
        many = f"{' and '.join(found)}, which take turns" if found else "neither a unet nor a transformer"
        raise TypeError(
            f"a run of {name} is one network and one scheduler; it has {many}; its parts are {', '.join(parts)}. Wrap "
            "one network with its scheduler, wrap(pipeline.unet, scheduler=pipeline.scheduler)"
        )
    return found[0]
