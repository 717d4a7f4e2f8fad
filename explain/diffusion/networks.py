"""What is known about a network from its class and configuration: diffusers' own, and whole diffusions around one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

_INSIDE = ("model", "net", "denoise_fn", "unet", "network", "eps_model", "nn_model", "denoise_model")
_DIFFUSION = ("p_losses", "p_sample", "p_mean_variance", "q_sample", "betas", "alphas_cumprod", "sqrt_alphas_cumprod")
_OBJECTIVES = {"pred_noise": "epsilon", "pred_x0": "sample", "pred_v": "v_prediction"}


def core(net: Any) -> Any:
    """The network inside torch.compile and DataParallel."""
    while isinstance(net, nn.Module):
        inside = getattr(net, "_orig_mod", None)
        if inside is None and isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inside = net.module
        if inside is None:
            return net
        net = inside
    return net


def of_diffusers(net: Any) -> set[str]:
    """The names of the diffusers classes that a network is one of."""
    return {kind.__name__ for kind in type(core(net)).__mro__ if kind.__module__.startswith("diffusers.")}


def configuration(net: Any) -> Mapping[str, Any]:
    """A diffusers network's configuration, empty for others."""
    config = getattr(core(net), "config", None)
    return config if isinstance(config, Mapping) else {}


def classes(net: Any) -> int | None:
    """How many labels a diffusers configuration knows, the null label included."""
    config = configuration(net)
    transformer = config.get("num_embeds_ada_norm")
    return config.get("num_class_embeds") or (transformer + 1 if transformer else None)


def required(net: Any) -> list[str]:
    """Conditions that a diffusers network cannot do without though its forward has a default for them."""
    config, kinds = configuration(net), of_diffusers(net)
    needed = ["encoder_hidden_states"] if "SD3Transformer2DModel" in kinds else []
    of_unet = kinds & {"UNet2DModel", "UNet2DConditionModel"}
    if of_unet and (config.get("num_class_embeds") or config.get("class_embed_type")):
        needed.append("class_labels")
    if "DiTTransformer2DModel" in kinds:
        needed.append("class_labels")
    if "UNet2DConditionModel" in kinds and config.get("time_cond_proj_dim"):
        needed.append("timestep_cond")  # the guidance weight, which the pipeline embeds
    return needed


def is_whole_diffusion(net: Any) -> bool:
    """Whether this holds the noise schedule as well, and the network inside."""
    return not of_diffusers(net) and _inside(net) is not None and any(hasattr(net, mark) for mark in _DIFFUSION)


def check_network(net: Any) -> None:
    """Raise where a call of this takes more than an image, a time and conditions that are tensors.

    Raises:
        TypeError: a diffusion with its network inside, or a network with further inputs.
    """
    if is_whole_diffusion(net):
        name, inside = type(net).__name__, _inside(net)
        betas = f"betas={name}.betas" if hasattr(net, "betas") else "its betas"
        said = _OBJECTIVES.get(str(getattr(net, "objective", "")))
        kind = f" and prediction_type={said!r}" if said else ""
        raise TypeError(
            f"{name} is a whole diffusion with the network inside it (.{inside}): wrap the network, "
            f"explain.wrap({name}.{inside}, ...), with {betas}, time= the unit that it takes its step in{kind}"
        )
    config, kinds = configuration(net), of_diffusers(net)
    seen, said = config.get("in_channels"), config.get("out_channels")
    if kinds and seen and said and said not in (seen, 2 * seen):
        raise TypeError(
            f"this {type(core(net)).__name__} sees {seen} channels and denoises {said}: it is given more than x_t, "
            "such as the mask and picture of inpainting, which is not supported; wrap a function (x_t, t, label) that "
            "joins them"
        )
    if "UNet2DConditionModel" in kinds and (config.get("addition_embed_type") or config.get("encoder_hid_dim_type")):
        raise TypeError(
            "this UNet takes added_cond_kwargs (SDXL's text_embeds and time_ids, an IP-Adapter's picture), which are "
            "not supported: wrap a function (x_t, t, label) that gives them"
        )


def _inside(net: Any) -> str | None:
    """The attribute that holds the network of a whole diffusion."""
    return next((name for name in _INSIDE if callable(getattr(net, name, None))), None)
