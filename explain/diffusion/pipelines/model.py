"""PipelineModel: a diffusers pipeline, asked by the arguments of its own call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from explain.diffusion.bound import StepWeights
from explain.diffusion.components import denoising_part
from explain.diffusion.denoiser import Condition
from explain.diffusion.inversion import check_reconstructed, check_tolerance, missed
from explain.diffusion.model import DiffusionModel
from explain.diffusion.payoffs import Nearness
from explain.diffusion.pipelines.call import PipelineCall
from explain.diffusion.pipelines.coder import Listening
from explain.diffusion.pipelines.games import Absent
from explain.diffusion.pipelines.inside import Inside
from explain.diffusion.pipelines.inverting import latents_of
from explain.diffusion.pipelines.pictures import Asking, PictureStep, as_tensor, checked_picture
from explain.diffusion.pipelines.sources import SourceFill
from explain.diffusion.pipelines.target import PipelineRun
from explain.diffusion.settings import checked_count
from explain.diffusion.targets import StepTarget
from explain.guard import usual_modes
from explain.introduction import introduced
from explain.payoffs import named, whole_number
from explain.spelling import spelled
from explain.threads import found_alone
from explain.types import Unsupported

_GUIDED = 2.0  # a guidance scale at which a pipeline with a branch without its condition asks for it


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

    def __repr__(self) -> str:
        asked = "trajectory(prompt, payoff=...), step(picture, t, prompt), invert(picture, prompt)"
        return introduced(self, self.pipeline, "", asked, {})

    @found_alone
    def inside(self) -> DiffusionModel:
        """The network and scheduler alone.

        Raises:
            TypeError: the network's call holds more than is followed; see `DiffusionModel`.
        """
        return DiffusionModel(self.pipeline, **self.options)

    @spelled
    def step(
        self,
        x0: Tensor,
        t: int | Sequence[int] | Tensor,
        prompt: str | int | Tensor | Condition | None = None,
        negative: str | None = None,
        *,
        label: int | Tensor | Condition | None = None,
        seed: int = 0,
        draws: int = 4,
        payoff: str | Callable[[Tensor], Tensor] = "error",
        payoff_name: str | None = None,
        region: Tensor | None = None,
        guidance: float | None = None,
        weights: StepWeights | None = None,
        fill: str = "mean",
        reference: Tensor | None = None,
        space: Literal["pixels", "latents"] | None = None,
        batch_size: int | None = None,
        **call: Any,
    ) -> StepTarget:
        """What the pipeline's network says about one picture at one noise level, or on average over several.

        The network is given what the pipeline's own call gives it for this prompt (pooled vectors, sizes, positions,
        guidance that was distilled), taken from a short run of it. The picture goes through the pipeline's own VAE.

        Args:
            x0: a clean picture ``[3, H, W]`` in [0, 1], or a PIL image; with ``space="latents"`` what the network sees.
            t: a step of the schedule, or several to average over.
            prompt: the text, or the class; in "latents" also an embedding or named arguments of the network.
            negative: the negative prompt, which stands for "no prompt".
            label: the class, under the name that networks have for it.
            seed: of the noise.
            draws: noise draws for each step, that the number is the mean of.
            payoff: as of `DiffusionModel.step`; functions and "x0" see the decoded picture.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            region: bool ``[H, W]`` of pixels.
            guidance: classifier-free guidance weight ``w``, 1 when None; of a network that takes its guidance as an
                input (Flux, LCM) the pipeline's ``guidance_scale``, its own when None.
            weights: as of `DiffusionModel.step`.
            fill: an absent patch of the clean picture shows its "mean" colour, a "reference" picture, or middle grey
                ("zeros").
            reference: pictures ``[m, 3, H, W]`` for "mean" and "reference".
            space: "pixels" or "latents", as the network sees them; None tells latents by their channels, or by a
                pipeline without a VAE.
            batch_size: pictures in one forward pass; by default from a memory budget.
            call: further arguments of the pipeline's own call, such as ``image=`` and ``mask_image=``.

        Raises:
            TypeError: an argument that the pipeline does not take.
            ValueError: a picture of another size or range, a step outside the schedule, unknown payoff or fill.
            Unsupported: a network that is given something anew at every step, such as a ControlNet's answer.
        """
        x0, given, payoff = as_tensor(x0), _one_of(prompt, label), named(payoff, payoff_name)
        negative, call = _said_once(negative, call)
        space = self._checked_space(space, x0)
        whole = given is None or isinstance(given, (int, Tensor, Mapping))
        if space == "latents" and whole and negative is None and not call and (given is None or self._followed()):
            own = {} if guidance is None else {"guidance": guidance}
            settings = {"payoff": payoff, "region": region, "weights": weights, "fill": fill, "reference": reference}
            more = {"seed": seed, "draws": draws, "batch_size": batch_size}
            return self.inside.step(x0, t, given, **own, **settings, **more)
        if space == "pixels":
            like = next(self.module.parameters())
            x0 = checked_picture(x0, like.dtype).to(like.device)
        with usual_modes():
            inside, weight = self._asked(given, negative, guidance, seed, self._sized(x0, space, call))
            model, condition = inside.denoiser(), inside.conditions[0] or None
            times = np.asarray(t.cpu() if isinstance(t, Tensor) else t).reshape(-1).tolist()
            steps = tuple(model.process.checked_step(time) for time in times)
            if space == "latents":
                image, shared = model.image(x0), (seed, draws, payoff, region, weight, fill, reference, batch_size)
                return StepTarget(model, image, steps, condition, *shared, weights)
            inside.check_size(x0)
            asking = Asking(type(self.pipeline).__name__, inside.condition, negative, inside.encoded)
            shared = (seed, draws, payoff, region, weight, fill, reference, batch_size)
            return PictureStep(model, inside.coder, x0, steps, condition, asking, *shared, weights)

    def _checked_space(self, space: Any, x0: Any) -> Literal["pixels", "latents"]:
        """Where a sample is, as said; else pictures have one or three channels, and are asked about by way of a VAE.

        Raises:
            ValueError: another space.
        """
        if space is None:
            channels = x0.size(0) if isinstance(x0, Tensor) and x0.dim() == 3 else 3
            return "latents" if Listening(self.pipeline).part is None or channels not in (1, 3) else "pixels"
        if space not in ("pixels", "latents"):
            raise ValueError(f"space must be 'pixels' (pictures in [0, 1]) or 'latents', got {space!r}")
        return "pixels" if space == "pixels" else "latents"

    def _followed(self) -> bool:
        """Whether the network can be asked with what the user names, and nothing else."""
        try:
            self.inside  # noqa: B018 - may be refused
        except TypeError:
            return False
        return True

    def _sized(self, x0: Any, space: str, call: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments, for a picture of this size."""
        takes = inspect.signature(type(self.pipeline).__call__).parameters
        picture = space == "pixels" and isinstance(x0, Tensor) and x0.dim() == 3
        if not picture or not {"height", "width"} <= set(takes) or {"height", "width"} & set(call):
            return call
        return {**call, "height": x0.shape[1], "width": x0.shape[2]}

    def _asked(
        self, given: Any, negative: str | None, guidance: float | None, seed: int, call: dict[str, Any]
    ) -> tuple[Inside, float]:
        """The network with the conditions of the pipeline's own call, and the weight that its branches are joined by.

        Where the pipeline takes no branch without the condition at this guidance, it is asked at another: the branch is
        there, unless guidance was distilled into the network.

        Raises:
            Unsupported: the call is given a function, which acts between steps.
        """
        made = PipelineCall(self.pipeline, None, None, call)
        if made.functions:
            raise Unsupported(f"{made.functions[0]}= acts between the steps of a run, trajectory(...): leave it out")
        condition = _condition(made, given)

        def at(scale: float | None) -> Inside:
            return Inside(self.pipeline, condition, negative, scale, seed, call, self.options)

        own = at(guidance)
        if own.run.unconditional or own.run.plan.guided:
            return own, 1.0 if guidance is None else guidance
        other = at(_GUIDED) if "guidance_scale" in made.takes else own
        if other.run.plan.guided:
            return other, 1.0 if guidance is None else guidance
        return own, 1.0

    def trajectory(
        self,
        prompt: str | int | None = None,
        negative: str | None = None,
        *,
        label: int | None = None,
        payoff: Callable[[Tensor], Tensor] | None = None,
        payoff_name: str | None = None,
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
            negative: the negative prompt, where the pipeline takes one; ``negative_prompt=`` is the same.
            label: the class, under the name that networks have for it.
            payoff: ``pictures [n, 3, H, W] in [0, 1] -> [n]``, one number a picture; may be left out where only
                pictures and attention are asked for.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
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
            call: further arguments of the pipeline's own call, such as ``image=``, ``strength=``, ``height=``, or
                ``prompt_embeds=`` in the place of a prompt, whose words then do not play.

        Raises:
            TypeError: an argument that the pipeline does not take, or a condition that it needs and is not given.
            ValueError: settings out of range, or a call that the pipeline itself refuses.
        """
        cast = any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
        with usual_modes():
            negative, call = _said_once(negative, call)
            made = PipelineCall(self.pipeline, steps, guidance, call)
            condition = _condition(made, _one_of(prompt, label))
            if negative is not None and "negative_prompt" not in made.takes:
                raise TypeError(f"{made.name} takes no negative prompt")
            if latents is not None and "latents" not in made.takes:
                raise TypeError(f"{made.name} takes no latents")
            run = PipelineRun(
                made,
                condition,
                negative,
                seed,
                draws,
                latents,
                space,
                batch_size,
                named(payoff, payoff_name),
                absent,
                fill,
                partial(getattr, self, "inside"),
            )
        if cast:
            run.assumed["autocast"] = "off within the run: each part in its own precision"
        return run

    @spelled
    def invert(
        self,
        x0: Tensor,
        prompt: str | int | None = None,
        *,
        label: int | None = None,
        payoff: Callable[[Tensor], Tensor] | None = None,
        payoff_name: str | None = None,
        steps: int = 50,
        guidance: float | None = None,
        iterations: int = 5,
        tolerance: float = 0.05,
        space: Literal["pixels", "latents"] | None = None,
        **call: Any,
    ) -> PipelineRun:
        """The pipeline's own run that ends in a real picture: its noise found by going backwards, unguided.

        The picture goes through the pipeline's VAE, and the latent back through the pipeline's own schedule; what the
        run then makes is measured beside the picture that the VAE alone gives back, and every game's checks hold it.

        Args:
            x0: a picture ``[3, H, W]`` in [0, 1], or a PIL image; with ``space="latents"`` a latent ``[C, h, w]``.
            prompt: the text, or the class, that the run is given.
            label: the class, under the name that networks have for it.
            payoff: as of `trajectory`; ``-mean (sample - x0)^2`` when None, how near a run comes to the picture.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            steps: of the scheduler, there and back.
            guidance: of the run. 1 when None, at which inversion is stable; of a network that takes its guidance as
                an input (Flux) the pipeline's ``guidance_scale``.
            iterations: of each step's equation; 1 is plain DDIM inversion.
            tolerance: the largest ``|sample - x0| / |x0|`` that is answered, of what the payoff sees; beside the
                picture as the VAE alone gives it back.
            space: "pixels" or "latents", as of `step`; the payoff sees the same.
            call: further arguments of the pipeline's own call and of `trajectory`.

        Raises:
            TypeError: a pipeline that takes no ``latents``.
            ValueError: the run misses the picture by more than the tolerance, with the error and a remedy; or a picture
                of another size.
            Unsupported: a scheduler whose steps cannot be gone backwards.
        """
        x0, name, takes = as_tensor(x0), type(self.pipeline).__name__, inspect.signature(type(self.pipeline).__call__)
        check_tolerance(tolerance)
        if "latents" not in takes.parameters:
            raise TypeError(f"{name} takes no latents to start from: ask its network alone, model.inside.invert(...)")
        space = self._checked_space(space, x0)
        call = self._sized(x0, space, call)
        with usual_modes(), torch.no_grad():
            own = {name: value for name, value in call.items() if name in takes.parameters}
            inside, _ = self._asked(_one_of(prompt, label), None, guidance, 0, own)
            weight = 1.0 if guidance is None and inside.run.plan.guided else guidance
            wanted, latent, proofs = self._taken_in(x0, space, inside)
            start = latents_of(inside, latent[0], checked_count(steps, "steps"), weight, iterations)
        settings = {"label": label, "steps": steps, "guidance": weight, "latents": start, "space": space, **call}
        run = self.trajectory(prompt, payoff=named(payoff, payoff_name) or Nearness(wanted), **settings)
        error = missed(run.first().to(wanted), wanted)
        check_reconstructed(error, tolerance, steps, weight if inside.run.plan.guided else 1.0)
        run.proofs = {"reconstruction": error, **proofs}
        run.assumed["latents"] = f"x0 gone backwards in {steps} steps: the run misses it by {error:.2g} of its size"
        if "vae" in proofs:
            run.assumed["x0"] = f"as the pipeline's VAE gives it back, {proofs['vae']:.2g} of its size off"
        return run

    def _taken_in(self, x0: Any, space: str, inside: Inside) -> tuple[Tensor, Tensor, dict[str, float]]:
        """A picture or latent as payoffs see it ``[1, ...]``, its latent ``[1, C, h, w]``, and what the VAE loses.

        Raises:
            ValueError: another size or range.
        """
        if space == "latents":
            latent, packing = inside.denoiser().image(x0)[None], inside.net.packing
            return latent if packing is None else packing.pack(latent), latent, {}
        like = next(self.module.parameters())
        picture = checked_picture(x0, like.dtype).to(like.device)
        inside.check_size(picture)
        latent = inside.coder.encode(picture[None])
        decoded = inside.coder.decode(latent)
        return decoded, latent, {"vae": missed(decoded, picture[None])}

    def trajectories(
        self, prompts: Sequence[str | int], *, seeds: int | Sequence[int] = 0, **settings: Any
    ) -> list[PipelineRun]:
        """One question for each of several prompts or classes, as `trajectory` takes them.

        The pictures are those of one call, ``pipeline(prompts, generator=[manual_seed(seed) for each])``.

        Args:
            prompts: the texts or classes.
            seeds: of each one's first draw, or one for all.
            settings: of `trajectory`.

        Raises:
            TypeError: one text in place of several.
            ValueError: another number of seeds.
        """
        if isinstance(prompts, (str, int)):
            raise TypeError(f"trajectories takes several prompts, got {prompts!r:.60}: one is asked by trajectory(...)")
        each = [seeds] * len(prompts) if isinstance(seeds, int) else list(seeds)
        if len(each) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need {len(prompts)} seeds, or one for all, got {len(each)}")
        return [self.trajectory(prompt, seed=seed, **settings) for prompt, seed in zip(prompts, each, strict=True)]


def _said_once(negative: str | None, call: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The negative prompt, by either name, and the rest of the call: its words play.

    Raises:
        TypeError: it is given twice, or is no text.
    """
    own = call.get("negative_prompt")
    if own is None:
        return negative, call
    if isinstance(own, (list, tuple)) and len(own) == 1:
        own = own[0]
    if negative is not None:
        raise TypeError("the negative prompt is given twice: as negative= and as negative_prompt=")
    if not isinstance(own, str):
        raise TypeError(f"negative_prompt must be one text, got {own!r}")
    return own, {name: value for name, value in call.items() if name != "negative_prompt"}


def _one_of(prompt: Any, label: Any) -> Any:
    """What a question is conditioned on.

    Raises:
        TypeError: it is given twice.
    """
    if prompt is not None and label is not None:
        raise TypeError(f"the condition is given twice, {prompt!r:.60} and label={label!r:.60}: give one of them")
    return prompt if label is None else label


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
        if given is not None and call.embedded is not None:
            raise TypeError("the prompt is given twice, as text and as prompt_embeds=: give one of them")
        if given is not None and not isinstance(given, str):
            raise TypeError(
                f"prompt must be one text, got {given!r:.60}: several are asked by trajectories([...]); embeddings go "
                "by the pipeline's own prompt_embeds="
            )
        return given
    found = whole_number(given)
    if found is None:
        raise TypeError(f"{call.name} takes a class, a whole number, got {given!r:.60}")
    return found
