"""The network of a pipeline as a trained denoiser, with the conditions of the pipeline's own call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.denoiser import Condition
from explain.diffusion.pipelines.asked import AskedNetwork
from explain.diffusion.pipelines.call import PipelineCall
from explain.diffusion.pipelines.coder import Coder, Listening, coder_of, packing_of
from explain.diffusion.pipelines.reading import Reading
from explain.diffusion.pipelines.tracing import TracedRun
from explain.diffusion.pipelines.watched import PipelineStep
from explain.diffusion.schedules import preconditions
from explain.diffusion.trained import TrainedDenoiser
from explain.types import Unsupported

_STEPS = 4  # of the run that a pipeline is watched for
_FROM_A_PICTURE = 8  # of one that starts in the middle
_READ = 64  # captions that are read at once


class InsideDenoiser(TrainedDenoiser):
    """A pipeline's network with the arguments of the pipeline's own call; ``name`` is the pipeline's."""

    def __init__(self, name: str, net: AskedNetwork, **options: Any) -> None:
        super().__init__(net, **options)
        self.name = name

    def absent_condition(self, condition: Condition | None = None) -> Condition:
        """The pipeline's own branch without the prompt: its negative prompt, or the empty one.

        Raises:
            Unsupported: the pipeline has no such branch.
        """
        if self.null is None:
            raise Unsupported(
                f"{self.name} has no branch without its condition: guidance is distilled into its network, or it takes "
                "no condition. What the prompt adds cannot be asked of a step of it (payoff='evidence', guidance=, "
                "players 'labels'): ask for payoff='error' or 'x0', or play with the words of a run"
            )
        return self.null


@dataclass(frozen=True, eq=False)
class Inside:
    """What a pipeline's own call tells about its network: a short run, watched.

    Args:
        pipeline: a diffusers pipeline.
        condition: the prompt or class.
        negative: the negative prompt.
        guidance: the pipeline's ``guidance_scale``; its own when None.
        seed: of the run.
        settings: further arguments of the call.
        options: of `TrainedDenoiser`.
    """

    pipeline: Any
    condition: Any
    negative: str | None
    guidance: float | None
    seed: int
    settings: Mapping[str, Any]
    options: Mapping[str, Any]

    @cached_property
    def _listening(self) -> Listening:
        return Listening(self.pipeline)

    @cached_property
    def run(self) -> TracedRun:
        """The run."""
        settings = dict(self.settings)
        call = PipelineCall(self._listening.copied(), None, self.guidance, settings)
        if not {"num_inference_steps", "timesteps", "sigmas"} & set(settings):
            call.shared["num_inference_steps"] = _FROM_A_PICTURE if "strength" in call.takes else _STEPS
        return TracedRun(call, self.condition, self.negative, self.seed, 1, None, "pixels", None)

    @cached_property
    def coder(self) -> Coder:
        """Between pictures and samples.

        Raises:
            Unsupported: see `coder_of`.
        """
        steps, picture = self._traced()
        sample = steps[-1].after[:1]
        packing = packing_of(self.pipeline, sample, picture)
        return coder_of(self.pipeline, sample if packing is None else packing.unpack(sample), picture, self._heard())

    @cached_property
    def net(self) -> AskedNetwork:
        """The network.

        Raises:
            Unsupported: see `AskedNetwork`.
        """
        steps, picture = self._traced()
        packing = packing_of(self.pipeline, steps[0].sample[:1], picture)
        channels = steps[0].sample.size(1)
        return AskedNetwork(self.run.call.net, steps[:2], self.run.first_of_two, channels, packing)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the samples that the network is trained on, ``[C, h, w]``."""
        steps, picture = self._traced()
        sample = steps[0].sample[:1]
        packing = packing_of(self.pipeline, sample, picture)
        return tuple((sample if packing is None else packing.unpack(sample)).shape[1:])

    @cached_property
    def conditions(self) -> tuple[Condition, Condition | None]:
        """Those of the branch with the condition, and of the branch without where there is one."""
        step = self._traced()[0][0]
        places = {
            branch: [
                (call, row)
                for call, blocks in enumerate(self.run.plan.blocks)
                for row, b in enumerate(blocks)
                if b == branch
            ]
            for branch in ("cond", "uncond", None)
        }
        with_it = self.net.conditions(step, *(places["cond"] or places[None] or [(0, 0)])[0])
        without = [self.net.conditions(step, *place) for place in places["uncond"]]
        return with_it, max(without, key=lambda other: _alike(with_it, other), default=None)

    def denoiser(self) -> InsideDenoiser:
        """The network as a trained denoiser.

        Raises:
            TypeError: a scheduler whose noise is not known.
            Unsupported: another unit of time at every step.
        """
        _, null = self.conditions
        options = {
            name: value for name, value in self.options.items() if name not in ("null", "time", "shape", "condition")
        }
        made = InsideDenoiser(
            self.run.call.name,
            self.net,
            scheduler=self.pipeline.scheduler,
            time=self._time(),
            null=null,
            shape=self.shape,
            **options,
        )
        taken = ", ".join(sorted(self.conditions[0])) or "none"
        made.assumed["conditions"] = f"{taken}: as {self.run.call.name} gives them in its own call"
        for name, text in {"prompt": self.condition, "negative": self.negative}.items():
            if isinstance(text, str) and (cut := Reading(self.run.call, text, self.run.heard).said()):
                made.assumed[name] = cut
        return made

    def check_size(self, picture: Tensor) -> None:
        """Raise where the pipeline's own call makes latents of another size than this picture ``[3, H, W]`` has.

        Raises:
            ValueError: it does.
        """
        with torch.no_grad():
            found = tuple(self.coder.encode(picture[None]).shape[1:])
        if found != self.shape:
            own = "x".join(map(str, self._traced()[1].shape[-2:]))
            raise ValueError(
                f"x0 is {picture.shape[1]}x{picture.shape[2]} pixels, a latent {list(found)}; this call of "
                f"{self.run.call.name} makes pictures of {own}, from latents {list(self.shape)}: give x0 in that size, "
                "or its height= and width= where the call takes them"
            )

    def encoded(self, captions: list[Any]) -> Condition:
        """The network's conditions for captions or classes, a row each."""
        found: list[Condition] = []
        call, block = next(
            (call, i) for call, blocks in enumerate(self.run.plan.blocks) for i, b in enumerate(blocks) if b == "cond"
        )
        own = self.run.rows_of(self.run.own)[0]
        for start in range(0, len(captions), _READ):
            part = captions[start : start + _READ]
            step = self.run.first_step([replace(own, condition=caption) for caption in part])
            found += [self.net.conditions(step, call, block * len(part) + i) for i in range(len(part))]
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def _time(self) -> str | Callable[[Tensor], Tensor]:
        """The unit that the network is given its time in, of the scheduler's own.

        Raises:
            Unsupported: another one at every step.
        """
        if preconditions(self.pipeline.scheduler):
            return "log_sigma"
        pairs = [(given, step.t) for given, step in zip(self.net.times(), self._traced()[0][:2], strict=True) if step.t]
        ratios = [given / t for given, t in pairs]
        if not ratios or max(ratios) - min(ratios) > 1e-4 * abs(ratios[0]):
            raise Unsupported(
                f"{self.run.call.name} gives its network a time that is no multiple of the scheduler's: {pairs[:3]}"
            )
        ratio = ratios[0]
        return "step" if abs(ratio - 1) < 1e-4 else partial(torch.mul, ratio)

    def _traced(self) -> tuple[list[PipelineStep], Tensor]:
        """The steps and the picture.

        Raises:
            Unsupported: fewer than two steps are seen.
        """
        steps, picture = self.run.traced
        if len(steps) < 2:
            raise Unsupported(
                f"a step of {self.run.call.name} cannot be asked about: of a short run of it {len(steps)} steps are "
                "seen. Ask about its run, trajectory(...), or for a longer one by num_inference_steps= or strength="
            )
        return steps, picture

    def _heard(self) -> list[tuple[Tensor, Tensor]]:
        self._traced()
        return self._listening.heard


def _alike(one: Condition, other: Condition) -> int:
    """How many conditions are the same."""
    return sum(value.shape == other[name].shape and torch.equal(value, other[name]) for name, value in one.items())
