"""A pipeline's own run, watched: what its network is asked, how its branches are joined, and where each step leads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from explain import passes
from explain.diffusion.pipelines.stand_ins import lengths, once_each, replaced, tensors
from explain.diffusion.sampling import Fork
from explain.types import Unsupported

Blocks = tuple[str | None, ...]  # the branches of one call of the network, a block of rows each; see `passes`
Asked = tuple[tuple[Any, ...], dict[str, Any]]
_STRAIGHT = 1e-3  # relative residual up to which branches are joined by u + w (c - u)


class Enough(Exception):
    """Ends a run after its first step."""


@dataclass(eq=False)
class PipelineStep:
    """One step of a run: what the network was asked and said, and what the scheduler made of it.

    Args:
        asked: arguments of each call of the network, ``(args, kwargs)``; of the first two steps alone.
        answers: what it returned for each; of the first step alone.
        seen: the picture that each call was given, ``[rows of that call, ...]``.
        said: its predictions among that, ``[rows of that call, ...]``.
        t: the scheduler's timestep.
        sample: ``x_t`` as the scheduler is given it.
        joined: the prediction that the scheduler is given: the branches, joined.
        after: the sample afterwards.
        clean: the scheduler's own ``x0_hat``, where it tells.
    """

    asked: list[Asked] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    seen: list[Tensor] = field(default_factory=list)
    said: list[Tensor] = field(default_factory=list)
    t: float = 0.0
    sample: Tensor = field(default_factory=lambda: torch.zeros(0))
    joined: Tensor = field(default_factory=lambda: torch.zeros(0))
    after: Tensor = field(default_factory=lambda: torch.zeros(0))
    clean: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What is known of every run of one question, proved on the run itself.

    Args:
        blocks: the branches of each call of the network within a step, in order.
        weights: ``w`` of each step in ``u + w (c - u)``, None where the branches are not joined so.
        times: the scheduler's timestep of each step.
        by_row: which of the network's flat arguments hold one entry a row.
    """

    blocks: tuple[Blocks, ...]
    weights: Tensor | None
    times: tuple[float, ...]
    by_row: tuple[bool, ...] | None

    @property
    def guided(self) -> bool:
        """Whether there is a branch without the condition."""
        return any("uncond" in call for call in self.blocks)


class Watched:
    """Stands between a pipeline and its network and scheduler during one run of ``rows`` pictures.

    Args:
        rows: pictures of the batch.
        plan: what is known of the run; None while it is found out.
        weights: guidance weights ``[rows, steps]`` in place of the pipeline's own: where both branches are one call
            each is ``u + w (c - u)``, where they are two the last is what is joined to it.
        kept: whether all steps are kept, or the last alone.
        stop: whether to stop after the first step.
        within: wraps the network's call, as `torch.utils.checkpoint` does.
        fork: from where on the rows meet other noise.
    """

    def __init__(
        self,
        rows: int,
        plan: Plan | None = None,
        weights: Tensor | None = None,
        kept: bool = False,
        stop: bool = False,
        within: Callable[..., Any] | None = None,
        fork: Fork | None = None,
    ) -> None:
        self.others = None if fork is None else [torch.Generator().manual_seed(seed) for seed in fork.seeds]
        self.fork = fork
        self.rows, self.plan, self.weights, self.kept, self.stop, self.within = rows, plan, weights, kept, stop, within
        self.steps: list[PipelineStep] = []
        self.count = 0
        self.now = PipelineStep()
        self.first: Asked = ((), {})  # what the network was asked first in this step

    def network(self, net: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The network's answer for a batch of blocks of rows; equal rows are evaluated once."""
        call = len(self.now.said)
        count = len(tensors((args, kwargs))[0])
        called = net if self.within is None else self._within(net)
        if self.plan is None:
            answer = called(*args, **kwargs)
        else:
            self.first = self.first if call else (args, kwargs)
            t = self.plan.times[min(self.count, len(self.plan.times) - 1)]
            branches = tuple(branch for branch in self._blocks(call, (args, kwargs)) for _ in range(self.rows))
            by_row = None if self.plan.by_row is None else list(self.plan.by_row)
            telling = _telling(called, t, branches)
            answer = once_each(telling, args, kwargs, count, by_row) if by_row else telling(*args, **kwargs)
        prediction = tensors(answer)[0]
        if self.weights is not None:
            prediction = self._reweighted(prediction, call)
            answer = replaced(answer, prediction)
        if self.count < 2:  # by which what differs is known: a ControlNet's residuals of all would fill the memory
            self.now.asked.append((args, kwargs))
            self.now.answers.append(answer)
        self.now.seen.append(tensors((args, kwargs))[0])
        self.now.said.append(prediction)
        return answer

    def _blocks(self, call: int, asked: Asked) -> Blocks:
        """The branches of one call of the network: those of the plan, or of a call that not every step has."""
        assert self.plan is not None
        if call < len(self.plan.blocks):
            return self.plan.blocks[call]
        again = any(
            branch == "cond" and _same(self.first, asked, i, len(self.plan.blocks[0]))
            for i, branch in enumerate(self.plan.blocks[0])
        )
        return ("perturbed",) if again else (None,)

    def _within(self, net: Callable[..., Any]) -> Callable[..., Any]:
        within = self.within
        assert within is not None
        return lambda *args, **kwargs: within(net, *args, **kwargs)

    def _reweighted(self, prediction: Tensor, call: int) -> Tensor:
        """The prediction of this call with the rows' own weights in place of the pipeline's."""
        assert self.plan is not None
        assert self.plan.weights is not None
        assert self.weights is not None
        own, w = float(self.plan.weights[self.count]), self.weights[:, self.count].to(prediction.device).double()
        kept = (w == own).view(-1, *[1] * (prediction.dim() - 1))
        if bool(kept.all()):
            return prediction
        blocks = self.plan.blocks[call]
        parts = dict(zip(blocks, prediction.chunk(len(blocks)), strict=True))
        if len(blocks) > 1:  # joined as both
            both = _between(parts["uncond"], parts["cond"], w)
            return torch.cat([torch.where(kept, parts[block], both) for block in blocks])
        if call < len(self.plan.blocks) - 1:
            return prediction  # the branch that comes last makes up for both
        (other,) = self.now.said
        if "uncond" in parts:  # u' + w_own (c - u') = u + w (c - u)
            return torch.where(kept, prediction, _between(prediction, other, (w - own) / (1 - own)))
        return torch.where(kept, prediction, _between(other, prediction, w / own))

    def step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The scheduler's step.

        Raises:
            Enough: after the first, where that is all.
        """
        if self.fork is not None:
            kwargs = {**kwargs, "generator": self._forked(step, kwargs.get("generator"))}
        answer = step(*args, **{**kwargs, "return_dict": True})  # which tells more
        now = self.now
        now.joined, t, now.sample = step_arguments(step, args, kwargs)
        now.t, now.after = float(t), answer.prev_sample
        cleans = (getattr(answer, name, None) for name in ("pred_original_sample", "denoised"))
        now.clean = next((clean for clean in cleans if clean is not None), None)
        self.steps = [*self.steps, now] if self.kept else [now]
        self.count, self.now = self.count + 1, PipelineStep()
        if self.stop:
            raise Enough
        return answer if kwargs.get("return_dict", True) else answer.to_tuple()

    def _forked(self, step: Callable[..., Any], own: Any) -> list[torch.Generator]:
        """The generators of this step: of forked rows from there on their own.

        Raises:
            Unsupported: the pipeline does not say where its steps' noise comes from.
        """
        assert self.fork is not None
        assert self.others is not None
        if own is None:
            raise Unsupported(
                "the pipeline gives its steps no generator: they add no noise, so that everything is decided with the "
                "start, or draw it from torch's global generator, where no row can be told to meet another's. Use a "
                "stochastic scheduler (DDPMScheduler, an ancestral one), or eta=1 with DDIM, where it is taken"
            )
        own = own if isinstance(own, list) else [own]
        at = self.fork.at.tolist()
        return [other if self.count >= since else mine for mine, other, since in zip(own, self.others, at, strict=True)]


def _between(u: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """``u + w (c - u)`` of each row, ``w [rows]``."""
    wide = torch.promote_types(u.dtype, torch.float32)
    w = w.to(wide).view(-1, *[1] * (u.dim() - 1))
    return torch.lerp(u.to(wide), c.to(wide), w).to(u.dtype)


def _telling(called: Callable[..., Any], t: float, branches: Blocks) -> Callable[..., Any]:
    """The call of a network, telling what it is part of; of rows that stand for several, not whose branch they are."""

    def network(*args: Any, **kwargs: Any) -> Any:
        count = len(tensors((args, kwargs))[0])
        own = branches if count == len(branches) else (None,) * count
        with passes.told(passes.Pass(t, own)):
            return called(*args, **kwargs)

    return network


class Decoding:
    """Stands between a pipeline and its network and scheduler where a sample is only to be decoded.

    The network says nothing, and whatever the scheduler is asked, it answers with the sample.

    Args:
        samples: as the pipeline has them after its last step, ``[rows, ...]``.
        step: of a run of one row, for the form of the network's answers.
    """

    def __init__(self, samples: Tensor, step: PipelineStep) -> None:
        self.samples, self.answers, self.calls = samples, step.answers, 0

    def network(self, net: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Zeros in the form of the network's answer."""
        answer = self.answers[self.calls % len(self.answers)]
        self.calls += 1
        like = tensors(answer)[0]
        return replaced(answer, like.new_zeros(len(tensors((args, kwargs))[0]), *like.shape[1:]))

    def step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The sample."""
        answer = step(*args, **{**kwargs, "return_dict": True})
        sample = self.samples.to(answer.prev_sample.dtype)
        found = sample.repeat(len(answer.prev_sample) // len(sample), *[1] * (sample.dim() - 1))
        answer["prev_sample"] = found
        return answer if kwargs.get("return_dict", True) else (found,) * len(answer.to_tuple())


def step_arguments(
    step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Any, Tensor]:
    """What the network said, the timestep and the sample, by the names that a scheduler's step has for them."""
    given = inspect.signature(step).bind(*args, **kwargs).arguments
    t = given["timestep"] if "timestep" in given else given["sigma_hat"]  # the latter as of Karras et al. 2022
    return given["model_output"], t, given["sample"] if "sample" in given else given["sample_hat"]


def rowwise(one: PipelineStep, two: PipelineStep, rows: int = 2) -> tuple[bool, ...] | None:
    """Which of the network's flat arguments hold one entry a row: those that grow with the rows of the batch.

    Args:
        one: a step of one row.
        two: the same step of ``rows`` rows.
        rows: how many.
    """
    few, many = lengths(one.asked[0]), lengths(two.asked[0])
    if len(few) != len(many):
        return None
    counts = len(tensors(one.asked[0])[0]), len(tensors(two.asked[0])[0])
    if counts[1] != rows * counts[0]:
        return None
    found = tuple(a == counts[0] and b == counts[1] for a, b in zip(few, many, strict=True))
    grown = tuple(a != b for a, b in zip(few, many, strict=True))
    return found if found == grown else None  # of videos the text has one entry a frame


def branches_of(one: PipelineStep, other: PipelineStep, rows: int = 1) -> tuple[Blocks, ...]:
    """The branches of each call: blocks of rows whose arguments follow the condition are "cond", others "uncond".

    Args:
        one: the first step of a run.
        other: the same with another condition.
        rows: pictures of the batch.
    """
    found = []
    for (args, kwargs), (args_2, kwargs_2) in zip(one.asked, other.asked, strict=True):
        count = len(tensors((args, kwargs))[0])
        blocks = max(1, count // rows)
        moved = [False] * blocks
        for a, b in zip(tensors((args, kwargs)), tensors((args_2, kwargs_2)), strict=True):
            if a.dim() and len(a) % blocks == 0 and a.shape == b.shape:
                same = (a == b).reshape(blocks, -1).all(1).tolist()
                moved = [was or not held for was, held in zip(moved, same, strict=True)]
        found.append(tuple("cond" if block else "uncond" for block in moved))
    return _without_perturbed(one, tuple(found))


def _without_perturbed(step: PipelineStep, blocks: tuple[Blocks, ...]) -> tuple[Blocks, ...]:
    """The branches, where that of two which are asked the same counts against the other is named "perturbed".

    Perturbed attention and skipped layers guide by ``u + w (c - u) + s (c - p)``: ``p`` has the smaller factor, and is
    asked later where the network does not care.
    """
    every = [(call, i) for call, own in enumerate(blocks) for i in range(len(own))]
    twice = [at for at in every if blocks[at[0]][at[1]] == "cond"]
    if len(twice) != 2:
        return blocks
    (a, i), (b, j) = twice
    if not _same(step.asked[a], step.asked[b], i, len(blocks[a]), j, len(blocks[b])):
        return blocks
    said = [step.said[call].chunk(len(blocks[call]))[i][:, : step.sample.size(1)] for call, i in every]
    joined = step.joined[: len(said[0]), : step.sample.size(1)].double()
    parts = torch.stack([part.double().flatten() for part in said], 1)
    factors = (torch.linalg.pinv(parts) @ joined.flatten()).tolist()
    first, second = (factors[every.index(at)] for at in twice)
    worse = twice[0] if first < second and not torch.equal(*(said[every.index(at)] for at in twice)) else twice[1]
    return tuple(
        tuple("perturbed" if (call, i) == worse else branch for i, branch in enumerate(own))
        for call, own in enumerate(blocks)
    )


def _same(one: Asked, other: Asked, block: int, blocks: int, other_block: int = 0, other_blocks: int = 1) -> bool:
    """Whether a block of one call's rows is given what a block of another's is."""
    pairs = list(zip(tensors(one), tensors(other), strict=False))
    held = [(a, b) for a, b in pairs if a.dim() and b.dim() and len(a) % blocks == 0 and len(b) % other_blocks == 0]
    each = ((a.chunk(blocks)[block], b.chunk(other_blocks)[other_block]) for a, b in held)
    return bool(held) and len(tensors(one)) == len(tensors(other)) and all(torch.equal(a, b) for a, b in each)


def alike(one: PipelineStep, other: PipelineStep) -> bool:
    """Whether the network is given tensors of the same shapes in both: prompts may be padded to the longest."""
    return [part.shape for part in tensors(one.asked)] == [part.shape for part in tensors(other.asked)]


def guidance_of(step: PipelineStep, blocks: tuple[Blocks, ...], rows: int = 1) -> tuple[float, float, float]:
    """``w`` of ``u + w (c - u)``, by least squares, the relative residual, and how much of ``w`` may be rounding.

    Args:
        step: one step of a run.
        blocks: the branches of its calls.
        rows: pictures of the batch.
    """
    parts: dict[str | None, Tensor] = {}
    for said, call in zip(step.said, blocks, strict=False):
        parts |= dict(zip(call, said.chunk(len(call)), strict=True))
    shape = (rows, *step.sample.shape[1:])  # predictions may hold learned variances as well
    joined = step.joined[:rows, : shape[1]].double()
    u, c = (parts[name][:, : shape[1]].double() for name in ("uncond", "cond"))
    if u.shape != joined.shape:
        return 0.0, float("inf"), 0.0
    along = c - u
    square = float(along.square().sum())
    if not square:
        return float("nan"), 0.0, 0.0  # the network does not care
    w, size = float(((joined - u) * along).sum()) / square, joined.norm().clamp_min(1e-12)
    doubt = _rounding(step) * float(size) / square**0.5
    return w, float((joined - u - w * along).norm() / size), doubt


def _rounding(step: PipelineStep) -> float:
    """Of numbers as the network says them, relative."""
    return torch.finfo(step.said[0].dtype).eps


def joined_by(steps: list[PipelineStep], blocks: tuple[Blocks, ...], own: float | None) -> Tensor | None:
    """``w`` of each step ``[steps]``, or None where the branches are joined otherwise than by ``u + w (c - u)``.

    Args:
        steps: of a run of one row.
        blocks: the branches of each call.
        own: the guidance scale of the call, for steps where the network does not care.
    """
    found = []
    for step in steps:
        if [len(said) for said in step.said] != [len(said) for said in steps[0].said] or len(step.said) != len(blocks):
            return None  # a callback may have switched guidance off
        w, residual, doubt = guidance_of(step, blocks)
        if residual > max(_STRAIGHT, 2 * _rounding(step)):
            return None
        if w != w:
            w = own if own is not None else 1.0
        near = own if own is not None and abs(w - own) < max(doubt, 1e-3 * max(1.0, abs(own))) else w
        found.append(near)
    return torch.tensor(found, dtype=torch.float64)
