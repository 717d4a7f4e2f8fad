"""The calls of tiny pipelines, as their users make them and as questions; and payoffs that see where things are."""

from __future__ import annotations

import inspect
import random
from functools import cache
from typing import Any

import numpy as np
import torch
from tiny_pipelines import CASES, NEGATIVE, PROMPT
from torch import nn

STEPS, SEED, LABEL = 2, 3, 5
# what lists of prompts give otherwise than one by one, by rounding that a run of these amplifies
LOOSE = {"wan": 1e-4, "deepfloyd": 1e-4}


@cache
def built(name):
    """One pipeline for all tests: whatever a question changed on it, the next would meet."""
    return CASES[name].build()


@cache
def usual(name):
    """The picture that the pipeline makes by itself."""
    return own(name)


def takes(name, argument):
    """Whether the pipeline's call has this argument."""
    return argument in inspect.signature(type(built(name)).__call__).parameters


def asked(name, **changed) -> dict[str, Any]:
    """The question about a run of this pipeline, as `trajectory` takes it."""
    case = CASES[name]
    call = dict(case.call)
    guidance = {"guidance": call.pop("guidance_scale")} if "guidance_scale" in call else {}
    said = {"words": {"prompt": PROMPT}, "labels": {"label": LABEL}, "nothing": {}}[case.asks]
    negative = {"negative": NEGATIVE} if takes(name, "negative_prompt") and name != "flux" else {}
    return {**said, **negative, **guidance, **call, "steps": 4 if name == "pndm" else STEPS, "seed": SEED, **changed}


def own(name, pipeline=None, **changed) -> torch.Tensor:
    """The picture of the pipeline's own call, as its users make it; channels first."""
    question = asked(name, **changed)
    names = {"steps": "num_inference_steps", "guidance": "guidance_scale", "negative": "negative_prompt"}
    call = {names.get(key, key): value for key, value in question.items() if key not in ("seed", "label")}
    call["generator"] = torch.Generator().manual_seed(question["seed"])
    if "label" in question:
        call["class_labels"] = [question["label"]]
    if takes(name, "output_type"):
        call["output_type"] = "np"
    pipeline = built(name) if pipeline is None else pipeline
    made = torch.as_tensor(next(iter(pipeline(**call).values())))[0]
    return made if not takes(name, "output_type") or made.dim() < 3 else made.movedim(-1, -3)


def ink(pictures):
    """A payoff that sees where things are."""
    flat = pictures.flatten(1).double()
    return flat @ torch.linspace(0, 1, flat.shape[1], dtype=torch.float64)


def worth(picture):
    """Its number for one picture."""
    return float(ink(picture[None]))


def near(found, wanted, name):
    """Whether two pictures are equal to 1e-5 of their scale."""
    return float((found - wanted).abs().max()) <= LOOSE.get(name, 1e-5) * float(wanted.abs().max())


def state(pipeline) -> dict[str, Any]:
    """All that a question could change on a pipeline, and the random states around it."""
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    inside = [module for part in modules for module in part.modules()]
    hooks = [
        len(held)
        for module in inside
        for key, held in vars(module).items()
        if "_hooks" in key and isinstance(held, dict)
    ]
    return {
        "parts": {key: id(value) for key, value in vars(pipeline).items()},
        "configuration": dict(pipeline.config),
        "schedulers": [
            repr(sorted(vars(part).items())) for part in pipeline.components.values() if hasattr(part, "step")
        ],
        "modes": [module.training for module in inside],
        "attributes": [sorted(vars(module)) for module in inside],
        "hooks": hooks,
        "weights": [(weights._version, weights.grad is None) for part in modules for weights in part.parameters()],
        "random": (torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes()),  # noqa: NPY002 - the user's own
    }
