"""PipelineModel: a diffusers pipeline, asked by the arguments of its own call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from explain.diffusion.components import denoising_part
from explain.diffusion.model import DiffusionModel
from explain.diffusion.pipelines.call import PipelineCall
from explain.diffusion.pipelines.games import Absent
from explain.diffusion.pipelines.sources import SourceFill
from explain.diffusion.pipelines.target import PipelineRun
from explain.diffusion.targets import StepTarget
from explain.guard import usual_modes
from explain.payoffs import whole_number
from explain.threads import found_alone


class PipelineModel:
    """A diffusers pipeline: runs are its own call, steps those of the network inside.

    Args:
        pipeline: any that steps one network by one scheduler; nothing is written on it.
        options: those of `DiffusionModel`, for questions about a step.

    Raises:
        TypeError: a pipeline without a network or scheduler, or with several that take turns.
    """

    def __init__(self, pipeline: Any, **options: Any) -> None:
        self.pipeline, self.options = pipeline, options
        self.module: nn.Module = getattr(pipeline, denoising_part(pipeline))

    @found_alone
    def inside(self) -> DiffusionModel:
        """The network and scheduler alone.

        Raises:
            TypeError: the network's call holds more than is followed; see `DiffusionModel`.
        """
        return DiffusionModel(self.pipeline, **self.options)

    def step(self, x0: Tensor, t: Any, label: Any = None, **settings: Any) -> StepTarget:
        """What the network inside says about one image at one noise level; see `DiffusionModel.step`."""
        return self.inside.step(x0, t, label, **settings)

    def trajectory(
        self,
        prompt: str | int | None = None,
        negative: str | None = None,
        *,
        label: int | None = None,
        payoff: Callable[[Tensor], Tensor] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        draws: int = 1,
        latents: Tensor | None = None,
        absent: Absent = "drop",
        fill: SourceFill = "mean",
        space: Literal["pixels", "latents"] = "pixels",
        batch_size: int | None = None,
        **call: Any,
    ) -> PipelineRun:
        """What a function says about the picture that the pipeline makes.

        ``seed=3`` is ``generator=torch.Generator().manual_seed(3)``: the picture is the pipeline's own.

        Args:
            prompt: the text; of pipelines that take a class instead, the class.
            negative: the negative prompt, where the pipeline takes one.
            label: the class, under the name that networks have for it.
            payoff: ``pictures [n, 3, H, W] in [0, 1] -> [n]``, one number a picture; may be left out where only
                pictures and attention are asked for.
            steps: ``num_inference_steps``; the pipeline's own when None.
            guidance: ``guidance_scale``; the pipeline's own when None.
            seed: of the first draw; the next have ``seed + 1``, ``seed + 2``, ...
            draws: pictures that the number is the mean of.
            latents: ``[draws, ...]``, where the runs start, as the pipeline's own argument.
            absent: an absent word leaves the text ("drop"), or is read as padding ("pad").
            fill: what absent parts show of a picture that the call is given (``image=``, ``control_image=``): its
                "mean" colour, itself blurred ("blur", by an eighth of its longer side), or middle "grey".
            space: what the payoff sees, "pixels" or "latents".
            batch_size: pictures in one call of the pipeline; by default from a memory budget.
            call: further arguments of the pipeline's own call, such as ``image=``, ``strength=``, ``height=``.

        Raises:
            TypeError: an argument that the pipeline does not take, or a condition that it needs and is not given.
            ValueError: settings out of range, or a call that the pipeline itself refuses.
        """
        with usual_modes():
            made = PipelineCall(self.pipeline, steps, guidance, call)
            condition = _condition(made, prompt if label is None else label)
            if negative is not None and "negative_prompt" not in made.takes:
                raise TypeError(f"{made.name} takes no negative prompt")
            if latents is not None and "latents" not in made.takes:
                raise TypeError(f"{made.name} takes no latents")
            return PipelineRun(
                made,
                condition,
                negative,
                payoff,
                seed,
                draws,
                latents,
                space,
                batch_size,
                absent,
                fill,
                lambda: self.inside,
            )


def _condition(call: PipelineCall, given: Any) -> Any:
    """The prompt or class as the pipeline takes it.

    Raises:
        TypeError: it takes none, or another kind.
    """
    if call.condition is None:
        if given is not None:
            raise TypeError(f"{call.name} takes no prompt and no class, got {given!r:.60}")
        return None
    if call.condition == "prompt":
        if given is not None and not isinstance(given, str):
            raise TypeError(
                f"prompt must be one text, got {given!r:.60}: of several prompts ask several questions; embeddings go "
                "by the pipeline's own prompt_embeds="
            )
        return given
    found = whole_number(given)
    if found is None:
        raise TypeError(f"{call.name} takes a class, a whole number, got {given!r:.60}")
    return found
