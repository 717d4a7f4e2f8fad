"""Which argument of a network is the image, which the time, and which the condition."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from explain.diffusion.networks import core, of_diffusers

_IMAGE = (
    *("sample", "hidden_states", "x", "x_t", "xt", "input", "latents", "latent", "img", "image", "images"),
    *("noisy", "noisy_image", "noisy_images", "x_noisy", "z", "z_t", "zt"),
)
_TIME = (
    *("timestep", "timesteps", "t", "time", "sigma", "sigmas", "noise_level", "noise_labels", "time_step", "ts"),
    *("step", "steps", "log_snr", "c_noise"),
)
PROMPT = "encoder_hidden_states"
_LABELS = (
    *(
        "class_labels",
        "class_label",
        "classes",
        "labels",
        "label",
        "y",
        "condition",
        "cond",
        "c",
        "context",
        "class_emb",
    ),
    *("prompt_embeds", "text_embeds", "text_embed", "prompt", "text", PROMPT),
)
SELF_CONDITIONS = (
    *("x_self_cond", "self_cond", "self_condition", "x_self_condition", "self_conditioning"),
    *("prev_x0", "x0_prev", "pred_x0", "x0_pred", "x0_hat", "prev_pred"),
)
DROPS = ("cond_drop_prob", "null_cond_prob")  # the share of labels that forward drops: 0 with the label, 1 without
_NO_LABELS = (
    *SELF_CONDITIONS,
    *DROPS,
    *("mask", "attention_mask", "encoder_attention_mask", "return_dict", "guidance", "guidance_scale", "cond_scale"),
    *("low_res", "lowres", "lr", "lowres_cond_img", "hint", "control", "controlnet_cond", "aug", "augment_labels"),
    *("x_cond", "image_cond", "cond_image", "attn_mask", "noise"),
)


@dataclass(frozen=True)
class Arguments:
    """Names of a network's arguments.

    Args:
        image: None where image and time go by position.
        time: as ``image``.
        label: None where the network takes no label, or where nobody can tell which argument it is.
        needed: whether the network cannot be called without the label.
        given: how the label was found, where its name does not say; empty otherwise.
        candidates: arguments that might be the label, where nobody can tell.
        known: every name that a condition may have; None where forward takes any.
        left: arguments that nothing is given for, so that they keep their defaults.
    """

    image: str | None
    time: str | None
    label: str | None
    needed: bool = False
    given: str = ""
    candidates: tuple[str, ...] = ()
    known: frozenset[str] | None = None
    left: tuple[str, ...] = ()

    @property
    def drop(self) -> str | None:
        """The argument that says which share of the labels is dropped, if there is one."""
        return next((name for name in DROPS if name in (self.known or ())), None)

    @property
    def self_condition(self) -> str | None:
        """The argument that takes the network's own last answer, if it has one."""
        return next((name for name in SELF_CONDITIONS if name in (self.known or ())), None)


def arguments_of(net: Any, condition: str | None = None) -> Arguments:
    """By name; where forward names its arguments otherwise, image, time and label by the only reading there is.

    Of several names for a label the one is taken that forward cannot do without. An argument of another name is the
    label where forward cannot do without it; an optional one is not.

    Args:
        net: a module or a function.
        condition: the label's argument, as the user says.

    Raises:
        TypeError: no arguments for an image and a time, or none of the name ``condition``.
    """
    inner = core(net)
    try:
        parameters = inspect.signature(inner.forward if isinstance(inner, nn.Module) else inner).parameters.values()
    except (TypeError, ValueError) as error:
        raise TypeError(
            "the arguments of this denoiser cannot be read: wrap it in a function (x_t, t, label)"
        ) from error
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    found = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    places = [p for p in found if p.kind is not p.KEYWORD_ONLY]
    places = places if len(places) > 1 else found  # by name
    if len(places) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise TypeError(
            f"a denoiser takes an image and a time, (x_t, t, label), got ({', '.join(p.name for p in found)}): of a "
            "whole diffusion, whose forward answers with its loss, give the network inside"
        )
    image, time = _image_and_time(places)
    beside = [p for p in found if p.name not in ((image, time) if image else [p.name for p in places[:2]])]
    known = None if anything else frozenset(p.name for p in beside)
    if condition is not None:
        if known is not None and condition not in known:
            takes = ", ".join(sorted(known)) or "and it takes none beside image and time"
            raise TypeError(f"condition must name an argument of the network, {takes}; got {condition!r}")
        found_label = _Label(condition)
    else:
        found_label = _label(beside)
    label, given, candidates = found_label
    needed = any(p.name == label and p.default is p.empty for p in beside)
    own = not of_diffusers(net)  # what diffusers' networks default to is what their pipelines mean
    left = tuple(p.name for p in beside if p.name not in (label, *DROPS) and p.default is not p.empty and own)
    return Arguments(image, time, label, needed, given, candidates, known, left)


def _image_and_time(places: list[inspect.Parameter]) -> tuple[str | None, str | None]:
    """By name, needed ones first; where one of the two is known, the other is the first that is left."""
    names = [p.name for p in sorted(places, key=lambda p: p.default is not p.empty)]
    time = next((n for n in names if n in _TIME), None)
    image = next((n for n in names if n in _IMAGE and n != time), None)
    rest = [n for n in names if n not in (image, time, *_LABELS, *_NO_LABELS)]
    if time is not None and image is None:
        image = next(iter(rest), None)
    elif image is not None and time is None:
        time = next(iter(rest), None)
    if any(p.kind is p.POSITIONAL_ONLY for p in places) or image is None or time is None:
        return None, None
    return image, time


class _Label(NamedTuple):
    """The label's argument, how it was found, and who else might be it."""

    name: str | None
    given: str = ""
    candidates: tuple[str, ...] = ()


def _label(beside: list[inspect.Parameter]) -> _Label:
    """The argument that takes the label, by name or because forward cannot do without it."""
    for needed in (True, False):
        named = [p.name for p in beside if p.name in _LABELS and (p.default is p.empty) is needed]
        if named:  # of several, diffusers' own come first: classes, then prompts
            several = len(named) > 1 and not {"class_labels", PROMPT} & set(named)
            return _Label(None, candidates=tuple(named)) if several else _Label(named[0])
    others = [p for p in beside if p.name not in _NO_LABELS]
    required = [p.name for p in others if p.default is p.empty]
    if len(required) == 1:
        return _Label(required[0], f"{required[0]!r}: all that forward needs beside image and time")
    return _Label(None, candidates=tuple(p.name for p in others if p.default is p.empty or p.default is None))
