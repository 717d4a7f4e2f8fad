"""The user's own call of a diffusers pipeline, made on a copy of it for many rows at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.components import denoising_part
from explain.diffusion.pipelines.prompts import PaddingTokenizer
from explain.diffusion.pipelines.stand_ins import once_each, standing_in, stepping, tensors
from explain.diffusion.settings import checked_count, checked_guidance
from explain.guard import evaluating, other_random_states, usual_modes
from explain.spelling import check_names

CONDITIONS = ("prompt", "class_labels")  # what a pipeline's call names its condition
OURS = {"steps": "num_inference_steps", "guidance": "guidance_scale", "negative": "negative_prompt"}
_HERE = {  # arguments of a pipeline's call that are asked for otherwise
    "generator": "seed=, of generator=torch.Generator().manual_seed(seed)",
    "output_type": "space='pixels' or 'latents'",
    "return_dict": "run.picture()",
    "class_labels": "label=",
}
_GIVEN = {*_HERE, "batch_size", "latents"}
_EMBEDDED = "prompt_embeds"
_SOURCES = ("image", "mask_image", "control_image", "masked_image_latents", "ip_adapter_image")


@dataclass(frozen=True, eq=False)
class Row:
    """One picture of a batch: what is said of it alone.

    Args:
        condition: its prompt or class; None where the pipeline takes none.
        negative: its negative prompt, None for the pipeline's own.
        seed: of its generator, as in ``generator=torch.Generator().manual_seed(seed)``.
        latents: where it starts, ``[1, ...]``; drawn by the pipeline when None.
        sources: pictures that it starts from or is led by, by the names of the call's arguments.
        settings: other arguments of the call, which all rows of a batch share.
    """

    condition: Any
    negative: str | None
    seed: int
    latents: Tensor | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Heard:
    """What the text encoders of a call were given.

    Args:
        ids: of each encoder, ``[rows, tokens]`` a time.
        said: what each encoder made of them, ``[rows, tokens, width]``.
        texts: that each tokenizer was given.
    """

    ids: dict[str, list[Tensor]] = field(default_factory=dict)
    said: dict[str, list[Tensor]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)


class PipelineCall:
    """``pipeline(prompt, ...)`` with settings that all rows share; the pipeline itself is never written on.

    Args:
        pipeline: a diffusers pipeline.
        steps: ``num_inference_steps``, the pipeline's own when None.
        guidance: ``guidance_scale``, the pipeline's own when None.
        settings: further arguments of the call, by its own names.

    Raises:
        TypeError: an argument that the call does not take, or a pipeline without a denoising network.
    """

    def __init__(self, pipeline: Any, steps: int | None, guidance: float | None, settings: Mapping[str, Any]) -> None:
        self.pipeline, self.name = pipeline, type(pipeline).__name__
        self.part = denoising_part(pipeline)
        self.net: nn.Module = getattr(pipeline, self.part)
        own = list(inspect.signature(type(pipeline).__call__).parameters.items())[1:]
        self.takes = {name: one for name, one in own if one.kind is not one.VAR_KEYWORD}
        self.condition = next((name for name in CONDITIONS if name in self.takes), None)
        asked = {OURS["steps"]: steps, OURS["guidance"]: guidance}
        ours = {name: value for name, value in asked.items() if value is not None}
        if twice := next((name for name in ours if name in settings), None):
            raise TypeError(f"{twice} is given twice: under its own name and as steps= or guidance=")
        if other := next((name for name in _HERE if name in self.takes and settings.get(name) is not None), None):
            raise TypeError(f"{other}= of the pipeline's call is said here by {_HERE[other]}")
        shared = {name: value for name, value in {**ours, **settings}.items() if not _counts(name, value)}
        if OURS["steps"] in shared:
            shared[OURS["steps"]] = checked_count(shared[OURS["steps"]], "steps")
        if OURS["guidance"] in shared:
            shared[OURS["guidance"]] = checked_guidance(shared[OURS["guidance"]])
        check_names(self.name, shared, [name for name in self.takes if name not in _GIVEN])
        self.sources = {name: shared.pop(name) for name in _SOURCES if name in shared}
        self.shared = shared
        for name, value in shared.items():
            if _of_text(name, value) and len(value) != 1:
                raise ValueError(f"{name} must hold one prompt, [1, ...], got {list(value.shape)}: draws= are pictures")
        self.readers = _readers(pipeline)
        self.parts = nn.ModuleDict({k: v for k, v in pipeline.components.items() if isinstance(v, nn.Module)})

    def setting(self, name: str) -> Any:
        """What the call is given for one of its arguments, or its own default."""
        default = self.takes[name].default if name in self.takes else None
        return self.shared.get(name, self.sources.get(name, default))

    @property
    def embedded(self) -> Tensor | None:
        """The prompt as the user's own embedding, where it is given so."""
        found = self.shared.get(_EMBEDDED)
        return found if isinstance(found, Tensor) else None

    @property
    def functions(self) -> list[str]:
        """Which arguments are functions, called on the way."""
        return [name for name, value in self.shared.items() if callable(value)]

    def other_embedding(self) -> dict[str, Any]:
        """The arguments of a call whose embedded prompt differs from the user's."""
        return {} if self.embedded is None else {_EMBEDDED: self.embedded + 1}

    def tokenizers(self) -> list[Any]:
        """Those that the text encoders read by."""
        return [getattr(self.pipeline, name) for name in dict.fromkeys(self.readers.values())]

    def __call__(
        self,
        rows: Sequence[Row],
        network: Callable[..., Any],
        step: Callable[..., Any],
        output: str = "pt",
        differentiable: bool = False,
        heard: Heard | None = None,
    ) -> Any:
        """What the pipeline returns for these rows.

        Args:
            rows: one picture each.
            network: stands in for the network's call, ``(network, args, kwargs)``.
            step: stands in for the scheduler's step, ``(step, args, kwargs)``.
            output: "pt" for decoded pictures, "latent".
            differentiable: whether derivatives follow the call, which pipelines forbid by ``torch.no_grad``.
            heard: filled with what the text encoders are given.
        """
        own, heard = self.pipeline, heard or Heard()
        made = object.__new__(type(own))
        vars(made).update(vars(own))
        vars(made)["_progress_bar_config"] = {"disable": True}
        vars(made)[self.part] = standing_in(self.net, network)
        vars(made)["scheduler"] = stepping(own.scheduler, step)
        for name, tokenizer in self.readers.items():
            vars(made)[name] = standing_in(getattr(own, name), _Reader(name, heard))
            texts = heard.texts.setdefault(tokenizer, [])
            vars(made)[tokenizer] = PaddingTokenizer(getattr(own, tokenizer), texts)
        call = type(own).__call__
        arguments = self._arguments(rows)
        with ExitStack() as stack:
            stack.enter_context(usual_modes())
            stack.enter_context(evaluating(self.parts))
            stack.enter_context(other_random_states(rows[0].seed))  # of pipelines that draw without a generator
            if differentiable:
                call = inspect.unwrap(call)
            else:
                stack.enter_context(torch.no_grad())
            if "output_type" in self.takes:
                arguments["output_type"] = output
            return call(made, **arguments)

    def _arguments(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The call's arguments for a batch of rows: of one row, as a user writes them."""
        found, several = {**self.shared, **rows[0].settings}, len(rows) > 1
        if self.condition is not None:
            of_rows = [row.condition for row in rows]
            listed = self.condition == "class_labels" or (several and self.embedded is None)
            found[self.condition] = of_rows if listed else of_rows[0]
        if "batch_size" in self.takes:
            found["batch_size"] = len(rows)
        if any(row.negative is not None for row in rows):
            negatives = [row.negative or "" for row in rows]
            found["negative_prompt"] = negatives if several else negatives[0]
        for name, value in self.shared.items():
            if several and isinstance(value, str) and "prompt" in name:  # of a second encoder
                found[name] = [value] * len(rows)
        for name, value in found.items():
            if several and _of_text(name, value):
                found[name] = value.expand(len(rows), *value.shape[1:])
        for name in {**self.sources, **rows[0].sources}:
            of_rows = [row.sources.get(name, self.sources.get(name)) for row in rows]
            found[name] = _together(of_rows) if several else of_rows[0]
        if "generator" in self.takes:
            generators = [torch.Generator().manual_seed(row.seed) for row in rows]
            found["generator"] = generators if several else generators[0]
        if rows[0].latents is not None:
            found["latents"] = torch.cat([row.latents for row in rows if row.latents is not None])
        return found


@dataclass(frozen=True)
class _Reader:
    """A text encoder that reads each distinct prompt once; ``heard`` takes what it was given and said."""

    name: str
    heard: Heard

    def __call__(self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if ids is None:
            return encoder(*args, **kwargs)
        answer = once_each(encoder, args, kwargs, len(ids))
        self.heard.ids.setdefault(self.name, []).append(ids.detach().cpu())
        self.heard.said.setdefault(self.name, []).extend(one.detach() for one in tensors(answer) if one.dim() == 3)
        return answer


def _counts(name: str, value: Any) -> bool:
    """Whether an argument says how many pictures, videos or sounds of a prompt are made, and says one.

    Raises:
        TypeError: it says several.
    """
    if not (name.startswith("num_") and name.endswith("_per_prompt")):
        return False
    if value != 1:
        raise TypeError(f"{name}={value!r}: several of one prompt are draws=, each of a seed of its own")
    return True


def _of_text(name: str, value: Any) -> bool:
    """Whether an argument of a call is an embedded prompt, or a mask of one: a row for each picture."""
    return isinstance(value, Tensor) and ("prompt_embeds" in name or "prompt_attention_mask" in name)


def _readers(pipeline: Any) -> dict[str, str]:
    """The text encoders of a pipeline and the tokenizers that they read by, by the names of its parts."""
    parts = pipeline.components
    found = {name: name.replace("text_encoder", "tokenizer") for name in parts if name.startswith("text_encoder")}
    if "bert" in parts:  # of latent diffusion
        found["bert"] = "tokenizer"
    return {
        name: tokenizer
        for name, tokenizer in found.items()
        if isinstance(parts[name], nn.Module) and parts.get(tokenizer) is not None
    }


def _together(pictures: list[Any]) -> Any:
    """Pictures of several rows as one argument: tensors along their first dimension, others as a list."""
    if all(isinstance(picture, Tensor) for picture in pictures):
        return torch.cat([picture if picture.dim() > 3 else picture[None] for picture in pictures])
    return [one for picture in pictures for one in (picture if isinstance(picture, list) else [picture])]
