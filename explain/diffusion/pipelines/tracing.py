"""A pipeline's own call, made once and watched: its steps, how they are joined, and what it foresees and decodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from explain.diffusion.conventions import position
from explain.diffusion.pipelines.call import Heard, PipelineCall, Row
from explain.diffusion.pipelines.doubts import check_finite, check_shown
from explain.diffusion.pipelines.stand_ins import repeats
from explain.diffusion.pipelines.watched import (
    Decoding,
    Enough,
    PipelineStep,
    Plan,
    Watched,
    alike,
    branches_of,
    joined_by,
    rowwise,
)
from explain.diffusion.schedules import gaussian_of
from explain.diffusion.settings import checked_batch_size, checked_count, checked_seed
from explain.threads import found_alone
from explain.types import Unsupported

_BUDGET, _CACHED = 2**22, 2**17  # picture numbers in one call; on a processor, whose cache more would leave
_TOGETHER = 1e-3  # of the pictures' scale: a row of a batch may differ so much from the row alone
_SAID = 600  # letters of a pipeline's own error
_OTHER_PROMPT = "another text altogether"


@dataclass(frozen=True, eq=False)
class Variation:
    """One way to make the call: what differs from the user's own.

    Args:
        condition: the prompt or class.
        negative: the negative prompt.
        weights: guidance weights ``[steps]`` in place of the pipeline's own.
        sources: pictures by the names of the call's arguments.
        settings: other arguments of the call.
    """

    condition: Any
    negative: str | None
    weights: Tensor | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> Any:
        """Equal for variations that make the same pictures."""
        weights = None if self.weights is None else tuple(self.weights.tolist())
        sources = tuple(map(id, self.sources.values()))
        return self.condition, self.negative, weights, sources, tuple(self.settings.items())


@dataclass(eq=False, repr=False)
class TracedRun:
    """A pipeline's own call and what is found out about it, once.

    Args:
        call: the pipeline and what all rows share.
        condition: the user's prompt or class.
        negative: the user's negative prompt.
        seed: of the first draw's generator.
        draws: pictures, of seeds ``seed``, ``seed + 1``, ...
        latents: ``x_T`` of each draw ``[draws, ...]``, instead of the pipeline's.
        space: what is looked at, "pixels" or "latents".
        batch_size: pictures in one call.

    Raises:
        ValueError: settings out of range.
    """

    call: PipelineCall
    condition: Any
    negative: str | None
    seed: int
    draws: int
    latents: Tensor | None
    space: Literal["pixels", "latents"]
    batch_size: int | None

    def __post_init__(self) -> None:
        if self.space not in ("pixels", "latents"):
            raise ValueError(f"space must be 'pixels' (decoded, in [0, 1]) or 'latents', got {self.space!r}")
        self.seed, self.draws = checked_seed(self.seed), checked_count(self.draws, "draws")
        checked_seed(self.seed + self.draws)
        self.latents = None if self.latents is None else _starts(self.latents, self.draws)
        self.batch_size = checked_batch_size(self.batch_size)
        self.heard = Heard()
        self.centred = False  # until the run says otherwise

    @property
    def own(self) -> Variation:
        """The user's own call."""
        return Variation(self.condition, self.negative)

    def rows_of(self, variation: Variation) -> list[Row]:
        """A row for each draw."""
        return [
            Row(
                variation.condition,
                variation.negative,
                self.seed + draw,
                None if self.latents is None else self.latents[draw : draw + 1],
                variation.sources,
                variation.settings,
            )
            for draw in range(self.draws)
        ]

    # what is found out about the run, once

    @found_alone
    def traced(self) -> tuple[list[PipelineStep], Tensor]:
        """The steps of the first draw's run, and its picture ``[1, 3, H, W]``.

        Raises:
            ValueError: the pipeline cannot be called so, in its own words.
        """
        watched = Watched(1, kept=True)
        try:
            answer = self.call(self.rows_of(self.own)[:1], watched.network, watched.step, heard=self.heard)
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
            said = " ".join(str(error).split())[:_SAID]  # some print the tensors that they were given
            raise ValueError(f"{self.call.name} cannot be called so: {type(error).__name__}: {said}") from error
        picture = self.shown(answer)
        check_finite(self.call.name, self.call.net, watched.steps, picture)
        self.centred = self._is_centred(picture)
        return watched.steps, self._in_unit(picture)

    def _is_centred(self, picture: Tensor) -> bool:
        """Whether tensors come in [-1, 1] where the same pipeline's arrays are in [0, 1], as those of DeepFloyd IF."""
        if picture.dim() < 4 or not bool((picture < 0).any()):
            return False
        watched = Watched(1)
        array = pictures_in(self.call(self.rows_of(self.own)[:1], watched.network, watched.step, "np"))
        wanted = (picture / 2 + 0.5).clamp(0, 1)
        return array.shape == wanted.shape and torch.allclose(array.to(wanted), wanted, atol=1e-4)

    def shown(self, answer: Any) -> Tensor:
        """The pictures of the pipeline's answer.

        Raises:
            ValueError: a safety checker hides some.
            Unsupported: they are no arrays.
        """
        check_shown(self.call.name, answer)
        return pictures_in(answer)

    def _in_unit(self, pictures: Tensor) -> Tensor:
        """Pictures in [0, 1], whichever way the pipeline gives them."""
        return (pictures / 2 + 0.5).clamp(0, 1) if self.centred else pictures

    def first_step(self, rows: Sequence[Row], heard: Heard | None = None) -> PipelineStep:
        """The first step of a run of these rows, which ends there."""
        watched = Watched(len(rows), stop=True)
        with contextlib.suppress(Enough):
            self.call(rows, watched.network, watched.step, heard=heard)
        return watched.steps[0]

    @found_alone
    def first_of_two(self) -> PipelineStep:
        """The first step of a run of the first draw twice."""
        return self.first_step(self.rows_of(self.own)[:1] * 2)

    @found_alone
    def plan(self) -> Plan:
        """How the network is asked and its branches are joined, proved on the user's own call; empty for other steps.

        The rows whose arguments follow the condition are the branch with it; ``w`` is solved for at every step.
        """
        steps = self.traced[0]
        if not steps:
            return Plan((), None, (), None)
        row = self.rows_of(self.own)[0]
        blocks: tuple[tuple[str | None, ...], ...]
        if self.unconditional:
            blocks = ((None,),) * len(steps[0].asked)
        else:
            blocks = branches_of(steps[0], self._other_step(row))
        own = self.call.setting("guidance_scale")
        own = float(own) if isinstance(own, (int, float)) else None
        guided = any("uncond" in call for call in blocks) and any("cond" in call for call in blocks)
        weights = joined_by(steps, blocks, own) if guided else None
        try:
            by_row = rowwise(steps[0], self.first_of_two)
        except (TypeError, ValueError, RuntimeError, IndexError):
            by_row = None  # this pipeline takes one picture at a time
        found = Plan(blocks, weights, tuple(step.t for step in steps), by_row)
        return found if self._is_rowwise(found) else replace(found, by_row=None)

    def _other_step(self, row: Row) -> PipelineStep:
        """The first step under another condition, of as many tokens where the pipeline pads to the longest.

        Raises:
            Unsupported: none such is found.
        """
        if self.call.embedded is not None:
            return self.first_step([replace(row, settings=self.call.other_embedding())])
        for condition in self._other_conditions():
            step = self.first_step([replace(row, condition=condition)])
            if alike(self.traced[0][0], step):
                return step
        raise Unsupported(
            f"{self.call.name} gives its network tensors of another shape for every other prompt that was tried, so "
            "that its branches cannot be told: pad prompts to one length"
        )

    def _other_conditions(self) -> Iterator[Any]:
        """Conditions that differ from the user's."""
        yield self.other_condition
        if isinstance(self.condition, str):
            words = self.condition.split()
            for i, word in enumerate(words):  # tokens of the same number, but for one
                yield " ".join([*words[:i], *words[i + 1 :], word])
                yield " ".join([*words[:i], *words[i + 1 :], words[i - 1]])
            yield from (" ".join(["a"] * count) for count in range(1, 80))

    def _is_rowwise(self, plan: Plan) -> bool:
        """Whether equal rows of the network's batch are answered alike, wherever they stand.

        Perturbed attention is told by the place of a row alone, and a network that is given each distinct row once
        would answer otherwise.
        """
        step = self.traced[0][0]
        rows = None if plan.by_row is None else list(plan.by_row)
        if rows is None or not any(repeats(args, kwargs, rows) for args, kwargs in step.asked):
            return True
        watched = Watched(1, plan, stop=True)
        try:
            with contextlib.suppress(Enough):
                self.call(self.rows_of(self.own)[:1], watched.network, watched.step)
        except (TypeError, ValueError, RuntimeError, IndexError):
            return False
        pairs = zip(step.said, watched.steps[0].said, strict=True)
        return all(one.shape == other.shape and torch.allclose(one, other, _TOGETHER, 1e-5) for one, other in pairs)

    def check_repeats(self) -> None:
        """Raise where a function that the call is given makes another picture of the same call.

        Raises:
            ValueError: it does.
        """
        if not self.call.functions:
            return
        once, again = self.first(), self.made(self.rows_of(self.own)[:1])
        if float((once - again).abs().max()) > _TOGETHER * float(once.abs().max()):
            raise ValueError(
                f"the same call of {self.call.name} makes another picture the second time: what it is given as "
                f"{', '.join(self.call.functions)} remembers or draws, and coalitions would differ by that"
            )

    @property
    def unconditional(self) -> bool:
        """Whether the call is given neither prompt nor class."""
        return self.condition is None and self.call.embedded is None

    @property
    def other_condition(self) -> Any:
        """A condition that differs from the user's."""
        if isinstance(self.condition, str):
            return _OTHER_PROMPT if self.condition != _OTHER_PROMPT else "nothing"
        return 0 if self.condition != 0 else 1

    @found_alone
    def together(self) -> float:
        """How far a row of a batch lies from the same row alone, of the pictures' scale; infinite without batches.

        Where it is too far, rows are run one at a time.
        """
        if self.plan.by_row is None:
            return float("inf")
        other = Variation(self.condition if self.condition is None else self.other_condition, self.negative)
        rows = [*self.rows_of(other)[:1], self.rows_of(self.own)[0]]
        try:
            found = self.made(rows)[1:]
        except (TypeError, ValueError, RuntimeError, IndexError):
            return float("inf")
        alone = self.first()
        return float((found - alone).abs().max() / alone.abs().max().clamp_min(1e-12))

    @property
    def alike(self) -> bool:
        """Whether rows of a batch are what they are alone."""
        return self.together <= _TOGETHER

    def first(self) -> Tensor:
        """The first draw as payoffs see it, ``[1, ...]``."""
        return self.traced[1] if self.space == "pixels" else self._latent()

    def _latent(self) -> Tensor:
        return self.made(self.rows_of(self.own)[:1])

    # pictures and numbers

    def made(self, rows: Sequence[Row], weights: Tensor | None = None, watched: Watched | None = None) -> Tensor:
        """What payoffs see of a batch of rows, ``[rows, ...]``; ``weights [rows, steps]`` in place of the own."""
        watched = watched or Watched(len(rows), self.plan, weights)
        output = "latent" if self._gives_latents else "pt"
        found = self.shown(self.call(rows, watched.network, watched.step, output))
        if self.space == "latents" and not self._gives_latents:
            found = watched.steps[-1].after[: len(rows)]
        check_finite(self.call.name, self.call.net, watched.steps, found)
        return self._in_unit(found) if self.space == "pixels" else found

    @found_alone
    def _gives_latents(self) -> bool:
        """Whether latents are asked for and the pipeline itself gives them: some make pictures of whatever is asked.

        Where it does not, latents are what its scheduler stepped to last.

        Raises:
            Unsupported: a pipeline that neither gives latents nor steps that are seen.
        """
        if self.space == "pixels":
            return False
        steps = self.traced[0]
        if not steps:
            raise Unsupported(f"the steps of {self.call.name} are not seen, and its latents not known")
        watched = Watched(1)
        try:
            found = self.call(self.rows_of(self.own)[:1], watched.network, watched.step, "latent")
        except ValueError:  # it knows no such output
            return False
        first = found[0] if isinstance(found, tuple) else next(iter(found.values()))
        return isinstance(first, Tensor) and first.shape[1:] == steps[-1].after.shape[1:]

    def decoded(self, samples: Tensor, pictures: int | None = None) -> Tensor:
        """Samples as the pipeline has them after its last step, decoded by its own call, ``[pictures, 3, H, W]``.

        Raises:
            Unsupported: a pipeline whose steps are not seen.
        """
        if not self.traced[0]:
            raise Unsupported(f"the steps of {self.call.name} are not those of a scheduler, and are not seen")
        decoding = Decoding(samples, self.traced[0][0])
        own = self.rows_of(self.own)[0]
        own = replace(own, latents=None)
        return self.shown(self.call([own] * (pictures or len(samples)), decoding.network, decoding.step))

    @property
    def steps(self) -> int:
        """How many steps are seen."""
        return len(self.plan.times)

    @property
    def scheduler_name(self) -> str:
        """The name of what makes the steps."""
        return type(self.call.pipeline.scheduler).__name__

    @torch.no_grad()
    def images(self) -> Tensor:
        """The picture that the first draw's run foresees at each step, ``x0_hat`` decoded: ``[steps, 3, H, W]``.

        Raises:
            Unsupported: steps that are not seen, or whose process is not known.
        """
        if not self.traced[0]:
            raise Unsupported(f"the steps of {self.call.name} are not those of a scheduler, and are not seen")
        clean = [self._clean(step) for step in self.traced[0]]
        each = len(clean[0])
        parts = torch.cat(clean).split(each * self.at_once())
        return torch.cat([self.decoded(part, len(part) // each) for part in parts])

    def _clean(self, step: PipelineStep) -> Tensor:
        """``x0_hat`` of one step, in the form of the scheduler's samples, and in its words where it has them.

        Raises:
            Unsupported: a scheduler that does not tell, of a process that is not known here.
        """
        count = self._rows(step)
        if step.clean is not None:
            return step.clean[:count]
        scheduler = self.call.pipeline.scheduler
        try:
            process = gaussian_of(scheduler, None)
        except (TypeError, ValueError) as error:
            raise Unsupported(f"what {type(scheduler).__name__} foresees at a step is not known: {error}") from error
        sample, joined = step.sample[:count], step.joined[:count, : step.sample.size(1)]
        x = sample if process.signal is None else self._scaled(step, sample)
        t = position(process, scheduler, torch.tensor([step.t], device=sample.device))
        return process.clean(x, joined, t)

    def _scaled(self, step: PipelineStep, sample: Tensor) -> Tensor:
        """The sample as the network is shown it: what it is first asked, without what is shown beside."""
        seen = step.seen[0][: len(sample), : sample.size(1)]
        return seen.to(sample)

    def _rows(self, step: PipelineStep) -> int:
        """Rows of the scheduler's sample that are one picture's: some pipelines double it for guidance."""
        half = len(step.sample) // 2
        doubled = self.plan.guided and half > 0 and torch.equal(step.sample[:half], step.sample[half:])
        return half if doubled else len(step.sample)

    def at_once(self) -> int:
        """Pictures that one call of the pipeline takes."""
        on_cpu = all(part.device.type == "cpu" for part in self.call.net.parameters())
        budget = _CACHED if on_cpu else _BUDGET
        return 1 if not self.alike else self.batch_size or max(1, budget // max(1, self.first().numel()))

    def batches(self, rows: Sequence[Row]) -> Iterator[slice]:
        """Slices of rows that one call takes: not too many, and all of the same settings."""
        size, start = self.at_once(), 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or end - start == size or rows[end].settings != rows[start].settings:
                yield slice(start, end)
                start = end

    def own_weights(self) -> Tensor:
        """``w`` of each step of the user's own call, ``[steps]``.

        Raises:
            Unsupported: there is no branch without the condition, or the branches are joined otherwise.
        """
        if not self.plan.guided:
            raise Unsupported(
                f"this call of {self.call.name} has no branch without its condition: it is unguided, or its guidance "
                "is distilled into the network. Ask with guidance above 1, or play with words"
            )
        if self.plan.weights is None:
            raise Unsupported(
                f"{self.call.name} joins its branches otherwise than by u + w (c - u) in this call (guidance_rescale, "
                "perturbed attention, skipped layers?), so that no step's weight can be changed: play with words, or "
                "ask without"
            )
        two_calls = len(self.plan.blocks) > 1 and "uncond" in self.plan.blocks[-1]
        if (self.plan.weights == 0).any() or (two_calls and (self.plan.weights == 1).any()):
            raise Unsupported(
                f"guidance of {'1' if two_calls else '0'} in this call of {self.call.name} leaves one of its branches "
                "without any weight, so that no other weight can be had through it: ask with guidance above 1"
            )
        return self.plan.weights


def pictures_in(answer: Any) -> Tensor:
    """The pictures of a pipeline's answer, ``[n, C, H, W]``.

    Raises:
        Unsupported: they are no arrays.
    """
    found = answer[0] if isinstance(answer, tuple) else next(iter(answer.values()))
    if isinstance(found, Tensor):
        return found
    if isinstance(found, np.ndarray):
        return torch.from_numpy(found).movedim(-1, 1) if found.ndim == 4 else torch.from_numpy(found)
    raise Unsupported(f"this pipeline answers with {type(found).__name__}, and no arrays can be had from it")


def _starts(latents: Tensor, draws: int) -> Tensor:
    """``x_T`` of each draw.

    Raises:
        ValueError: another number of them.
    """
    if not isinstance(latents, Tensor) or len(latents) != draws:
        got = list(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"latents must be [{draws}, ...], one start for each of {draws} draws, got {got}")
    return latents
