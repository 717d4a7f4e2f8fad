"""The numbers: what a denoiser says about a noised image, and about the end of a sampling run, with any parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.bound import StepWeights, check_chain, check_weights, said
from explain.diffusion.conventions import position
from explain.diffusion.denoiser import Condition
from explain.diffusion.payoffs import STEP_PAYOFFS, StepPayoff, check_payoff
from explain.diffusion.process import Gaussian, gaussian
from explain.diffusion.proofs import check_guidance, check_rows, elsewhere
from explain.diffusion.recomputing import recomputed
from explain.diffusion.sampling import Fork, Looks, Moment, guided, prepared, run
from explain.diffusion.settings import (
    checked_batch_size,
    checked_count,
    checked_eta,
    checked_guidance,
    checked_latents,
    checked_region,
    checked_seed,
)
from explain.diffusion.sites import KINDS, sites, tiled
from explain.diffusion.trained import TrainedDenoiser
from explain.guard import evaluating, other_random_states, usual_modes
from explain.payoffs import one_a_row
from explain.spelling import came
from explain.types import Parameters, Unsupported

_OTHER_START = 0x2545F4914F6CDD1D
_ROWS = 2**24  # image numbers in one forward pass of a step, such as all steps of a schedule


class DenoiserNumber:
    """What both numbers are made of: the model, its condition, and an image like those that it was trained on."""

    model: TrainedDenoiser
    label: int | Tensor | Condition | None
    condition: Condition
    null: Condition
    guidance: float
    assumed: dict[str, str]

    @property
    def like(self) -> Tensor:
        """A sample ``[*shape]`` of the size that is asked about."""
        raise NotImplementedError  # each number's own, as `measured`

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""
        raise NotImplementedError

    def _check_answers(self, x: Tensor, t: Tensor, both: bool) -> None:
        """The network's answers at ``x [1, *shape]``, with the condition and, where asked for, with the null.

        Raises:
            ValueError: it cannot be called so, answers at random or by the batch.
            NonFinite: NaN or infinity.
        """
        self.assumed |= check_rows(self.model.denoiser, *elsewhere(self.model.process, x, t), self.condition)
        if both:
            with torch.no_grad(), other_random_states(0), evaluating(self.model.denoiser):
                self.model.denoiser.tried(x, t, self.null)
                self.assumed |= check_guidance(self.model.denoiser, x, t, self.condition, self.null, self.guidance)


class StepNumber(DenoiserNumber):
    """The number that a denoiser says about an image noised to ``t``, a mean over ``K`` common draws; see
    `DiffusionModel.step` for the settings.

    ``times [K]``, ``noise [K, *shape]`` and ``noised [K, *shape]`` are the draws that every coalition shares, and
    ``unknown`` is what the errors of predictions are measured against.
    """

    def __init__(
        self,
        model: TrainedDenoiser,
        image: Tensor,
        steps: tuple[float, ...],
        label: int | Tensor | Condition | None,
        seed: int,
        draws: int,
        payoff: str | Callable[[Tensor], Tensor],
        region: Tensor | None,
        guidance: float,
        batch_size: int | None,
        weights: StepWeights | None = None,
    ) -> None:
        if not callable(payoff) and payoff not in STEP_PAYOFFS:
            raise ValueError(
                f"payoff must be one of {', '.join(STEP_PAYOFFS)} or a function of x0_hat, {came(payoff, STEP_PAYOFFS)}"
            )
        seed, draws = checked_seed(seed), checked_count(draws, "draws")
        if not isinstance(model.process, Gaussian):
            draws = 1  # of no noise, all are alike
        if not steps:
            raise ValueError("a step needs at least one t, got none")
        check_weights(weights, payoff)
        if payoff == "elbo":
            check_chain(gaussian(model.process, "the bound"), steps)
        self.model, self.image, self.steps, self.label = model, image, steps, label
        self.weights = weights
        self.seed, self.draws, self.payoff = seed, draws, payoff
        self.guidance, self.batch_size = checked_guidance(guidance), checked_batch_size(batch_size)
        self.condition = model.denoiser.condition(label)
        both = self.guidance != 1 or payoff == "evidence"
        self.null = model.absent_condition(self.condition) if both or model.denoiser.names.drop else model.null or {}
        self.region = checked_region(region, sites(image.shape)).to(image.device)
        generator = torch.Generator().manual_seed(seed)
        self.times = torch.tensor(steps, device=image.device).repeat_interleave(draws)
        noise = torch.randn(len(self.times), *image.shape, generator=generator, dtype=torch.float64)
        model.process.check(image)
        images, self.noise = image.expand_as(noise), noise.to(image)
        self.noised = model.process.noised(images, self.noise, self.times)
        self.unknown = model.process.unknown(images, self.noise)
        self.assumed = _scale(image) | _kind(image, model.shape)
        if payoff == "elbo":
            self.assumed["elbo"] = said(gaussian(model.process, "the bound"))
        if callable(payoff):
            check_payoff(payoff, image[None])
        self._check_answers(self.noised[:1], self.times[:1], both)

    @property
    def like(self) -> Tensor:
        """The image."""
        return self.image

    def predict(
        self,
        x: Tensor,
        times: Tensor,
        weight: Tensor | None = None,
        same: Tensor | None = None,
        params: Parameters | None = None,
    ) -> Tensor:
        """Guided predictions for rows ``x [n, *shape]``, with the step's own guidance when no weights are given."""
        if weight is None:
            weight = torch.full((len(x),), float(self.guidance), device=x.device)
        return guided(self.model.denoiser.with_parameters(params), x, times, self.condition, self.null, weight, same)

    def numbers(self, x: Tensor, present: Tensor | None = None, params: Parameters | None = None) -> Tensor:
        """The number of each ``x [b, K, *shape]``, float64 ``[b]``; ``present [b]``: whether the label is there.

        A mean over the draws and over the steps; the terms of the bound, payoff "elbo", are summed over the steps.
        """
        terms = self.terms_of(x, present, params)
        return terms.sum(1) if self.payoff == "elbo" else terms.mean(1)

    def terms_of(self, x: Tensor, present: Tensor | None = None, params: Parameters | None = None) -> Tensor:
        """What each step says of each ``x [b, K, *shape]``, a mean over its draws, float64 ``[b, steps]``."""
        rows = max(1, _ROWS // max(1, x[:, 0].numel()))
        if any(len(value) > 1 for value in self.condition.values()):  # one a row, in the order of all rows
            rows = len(self.times)
        parts = [slice(at, at + rows) for at in range(0, len(self.times), rows)]
        payoffs = [self._payoffs(x[:, own], self.times[own], self.unknown[own], present, params) for own in parts]
        return torch.cat(payoffs, 1).double().view(len(x), len(self.steps), -1).mean(2)

    def _payoffs(
        self, x: Tensor, times: Tensor, unknown: Tensor, present: Tensor | None, params: Parameters | None
    ) -> Tensor:
        """The payoff of each ``x [b, k, *shape]`` at ``times [k]`` with its ``unknown [k, *shape]``, ``[b, k]``."""
        rows, draws = x.flatten(0, 1), len(times)
        times, unknown = times.repeat(len(x)), tiled(unknown, len(x))
        weight = torch.full((len(rows),), float(self.guidance), device=x.device)
        if present is not None:
            weight = torch.where(present.repeat_interleave(draws), weight, 0.0)
        if present is None:
            same = torch.arange(len(rows), device=x.device)
        else:  # the same images with and without the label
            same = torch.arange(draws, device=x.device).repeat(len(x))

        def predict(*weights: Tensor) -> tuple[Tensor, ...]:
            """Of these rows with each of these weights; a branch that several need is evaluated once."""
            count = len(weights)
            repeated = times.repeat(count), torch.cat(weights), same.repeat(count)
            return self.predict(tiled(rows, count), *repeated, params).chunk(count)

        payoff = StepPayoff(self.payoff, self.model.process, self.region, self.weights)
        with evaluating(self.model.denoiser):
            return payoff(predict, rows, times, unknown, weight).view(len(x), draws)

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""
        return self.numbers(self.noised[None], params=params)[0]

    def predictions(self, params: Parameters) -> Tensor:
        """What the network answers to the draws, with its condition and no guidance, ``[1, K, *shape]``."""
        with evaluating(self.model.denoiser):
            return self.model.denoiser.with_parameters(params)(self.noised, self.times, self.condition)[None]


@dataclass(eq=False, repr=False)
class TrajectoryNumber(DenoiserNumber):
    """The number that a function says about the end of a sampling run; see `DiffusionModel.trajectory`."""

    model: TrainedDenoiser
    label: int | Tensor | Condition | None
    payoff: Callable[[Tensor], Tensor]
    steps: int
    guidance: float
    seed: int
    draws: int
    shape: Sequence[int]
    batch_size: int | None
    eta: float | None = None
    latents: Tensor | None = None
    proofs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.payoff):
            raise ValueError(f"payoff must be a function of the samples, [n, *shape] -> [n], got {self.payoff!r}")
        self.seed, self.draws = checked_seed(self.seed), checked_count(self.draws, "draws")
        checked_seed(self.seed + self.draws)
        self.guidance, self.batch_size = checked_guidance(self.guidance), checked_batch_size(self.batch_size)
        denoiser = self.model.denoiser
        self.condition = denoiser.condition(self.label)
        self.null = self.model.null or {}
        if self.guidance != 1 or denoiser.names.drop is not None:
            self.null = self.model.absent_condition(self.condition)
        self.seeds = [self.seed + draw for draw in range(self.draws)]
        self.eta = checked_eta(self.eta, self.model.scheduler)
        self.scheduler = prepared(self.model.scheduler, self.steps)  # here: many use numpy, which derivatives forbid
        self.assumed = {"scheduler": "DDIM without clipping, made from betas"} if self.model.made_here else {}
        self.model.process.check(self.start[0])
        check_payoff(self.payoff, self.start)
        t = self.place(torch.as_tensor(self.scheduler.timesteps[:1])).to(self.start.device)
        self._check_answers(self.start[:1], t, self.guidance != 1)
        if denoiser.hears_itself(self.start[:1], t, self.condition):
            raise Unsupported(
                f"this network reads its own last answer ({denoiser.names.self_condition}), which runs here do not "
                "give it: ask step(...), or wrap a function that leaves it out if your own runs do"
            )

    def place(self, t: Tensor) -> Tensor:
        """Where in the schedule a timestep of the scheduler is."""
        return position(self.model.process, self.model.scheduler, t)

    @cached_property
    def start(self) -> Tensor:
        """``x_T`` of each draw, ``[draws, *shape]``.

        Raises:
            ValueError: a run that starts from degraded pictures, and was given none.
        """
        with usual_modes():
            if self.latents is not None:
                given = checked_latents(self.latents, self.shape, self.draws)
                return given.to(self.model.denoiser.device, self.model.denoiser.dtype)
            if not isinstance(self.model.process, Gaussian):
                raise ValueError(
                    "a run that undoes a degradation starts from degraded pictures: give "
                    "latents=scheduler.noised(pictures, None, T)"
                )
            return self._noise(self.seeds)

    def _noise(self, seeds: list[int]) -> Tensor:
        size, denoiser = tuple(self.shape), self.model.denoiser
        noise = [torch.randn(size, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds]
        return torch.stack(noise).to(denoiser.device, denoiser.dtype)

    @property
    def like(self) -> Tensor:
        """The noise that the first draw starts from."""
        return self.start[0]

    @property
    def weights(self) -> Tensor:
        """The guidance weights of the run as it is asked for, ``[1, steps]``."""
        return torch.full((1, self.steps), float(self.guidance))

    @cached_property
    def other_start(self) -> Tensor:
        """The starting noise of other seeds, which stands where noise is taken away, ``[draws, *shape]``."""
        gaussian(self.model.process, "a start from another seed")
        with usual_modes():
            return self._noise([seed ^ _OTHER_START for seed in self.seeds])

    def moments(
        self,
        weights: Tensor,
        draws: int | None = None,
        params: Parameters | None = None,
        start: Tensor | None = None,
        fork: Fork | None = None,
        looks: Tensor | None = None,
    ) -> Iterator[Moment]:
        """The run of every row of ``weights [n, steps]`` from every draw, rows ordered by weights, then draws.

        Args:
            weights: guidance weights.
            draws: the first ones of the run's; all when None.
            params: other parameters; gradients need the activations of one call of the network.
            start: other noise to start from, ``[n * draws, *shape]``.
            fork: from where on the rows meet other noise.
            looks: bool ``[n, steps]``, at which steps the network is asked; see `Looks`.
        """
        draws = draws or self.draws
        first = tiled(self.start[:draws], len(weights)) if start is None else start
        alike = None if start is None else torch.arange(len(start))
        rows = weights.repeat_interleave(draws, 0)
        with evaluating(self.model.denoiser):
            denoiser = recomputed(self.model.denoiser.with_parameters(params), self.model.denoiser)
            yield from run(
                denoiser,
                self.scheduler,
                first,
                self.seeds[:draws] * len(weights),
                rows,
                self.condition,
                self.null,
                self.place,
                alike=alike,
                fork=fork,
                eta=self.eta,
                looks=None if looks is None else Looks(looks.repeat_interleave(draws, 0), self.model.process),
            )

    @property
    def scheduler_name(self) -> str:
        """The name of what makes its steps."""
        return type(self.scheduler).__name__

    def forked(self, fork: Fork) -> Tensor:
        """What forks of the first draw's run end in, ``[n, *shape]``."""
        return self.samples(self.weights.expand(len(fork.seeds), -1), 1, fork=fork)

    def samples(self, *asked: Any, **more: Any) -> Tensor:
        """What the runs of `moments` end in, ``[rows, *shape]``."""
        samples = None
        for moment in self.moments(*asked, **more):
            samples = moment.after
        assert samples is not None  # at least one step
        return samples

    def numbers(
        self,
        weights: Tensor,
        params: Parameters | None = None,
        start: Tensor | None = None,
        looks: Tensor | None = None,
    ) -> Tensor:
        """The number for guidance weights ``[n, steps]``, a mean over the draws, float64 ``[n]``.

        Raises:
            ValueError: a payoff that does not give one number a sample.
            Unsupported: the scheduler's steps leave torch, so that no derivative follows them.
            RuntimeError: whatever else stops the run.
        """
        try:
            samples = self.samples(weights, params=params, start=start, looks=looks)
            values = one_a_row(self.payoff(samples), len(samples), "sample")
            return values.double().view(len(weights), -1).mean(1)
        except RuntimeError as error:
            met = ("doesn't have storage", "Can't call numpy()")  # by NumPy, where torch.func or autograd watches
            if not any(text in str(error) for text in met):
                raise
            raise Unsupported(
                f"a step of {type(self.scheduler).__name__}, or the payoff, computes with NumPy, which derivatives do "
                "not follow: use torch there, or another scheduler such as DDIMScheduler"
            ) from error

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""
        return self.numbers(self.weights, params)[0]


def _kind(image: Tensor, told: Sequence[int] | None) -> dict[str, str]:
    """What a sample that is no image was read as, where the model's shape does not say so."""
    return {} if image.dim() == 3 or told is not None else {"shape": f"{list(image.shape)}, {KINDS[image.dim()]}"}


def _scale(image: Tensor) -> dict[str, str]:
    """What is to be said where an image is not on the scale of most denoisers, [-1, 1]."""
    low, high = float(image.min()), float(image.max())
    if high > 20 or low < -20:
        return {"x0": f"taken as it is, with values from {low:.3g} to {high:.3g}, though most denoisers see [-1, 1]"}
    if low >= 0 and low < high <= 1:
        return {"x0": "taken as it is, with values in [0, 1], though most denoisers see [-1, 1]"}
    return {}
