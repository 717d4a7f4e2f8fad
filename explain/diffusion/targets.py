"""One denoising step, and a whole sampling run, as targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explain.diffusion.conventions import position
from explain.diffusion.denoiser import Condition, Denoiser, checked_image
from explain.diffusion.fills import FILLS, fills
from explain.diffusion.games import StepCoalitions, TrajectoryCoalitions
from explain.diffusion.objective import objective
from explain.diffusion.payoffs import STEP_PAYOFFS, step_payoff
from explain.diffusion.players import image_players, label_player, owner_of_pixels, step_players
from explain.diffusion.proofs import check_rows, elsewhere
from explain.diffusion.sampling import Moment, guided, prepared, run
from explain.diffusion.settings import (
    checked_batch_size,
    checked_count,
    checked_guidance,
    checked_region,
    checked_seed,
)
from explain.guard import evaluating, other_random_states, usual_modes
from explain.payoffs import probed
from explain.threads import found_alone
from explain.types import Differentiable, Game, NonFinite, Objective, Parameters, Players, Target, Unsupported

if TYPE_CHECKING:
    from explain.diffusion.model import DiffusionModel


class _DenoiserTarget(Target):
    """What steps and runs share: the model, and how the condition is named."""

    model: DiffusionModel
    label: int | Tensor | Condition | None
    module: Denoiser
    condition: Condition
    null: Condition
    guidance: float
    assumed: dict[str, str]

    def _check_answers(self, x: Tensor, t: Tensor, both: bool) -> None:
        """The network's answers at ``x [1, C, H, W]``, with the condition and, where asked for, with the null.

        Raises:
            ValueError: it cannot be called so, answers at random or by the batch.
            NonFinite: NaN or infinity.
        """
        self.assumed |= check_rows(self.module, *elsewhere(self.model.process, x, t), self.condition)
        if both:
            with torch.no_grad(), other_random_states(0), evaluating(self.module):
                self.module.tried(x, t, self.null)

    def _trained(
        self, image: Tensor, measured: Callable[[Parameters], Tensor], train: Any, remove: str | Players
    ) -> Objective:
        """The trained loss and the number, and which loss that is."""
        made, loss = objective(self.model, image, measured, train, remove), self.model.loss
        name = loss if isinstance(loss, str) else "mse" if loss is None else getattr(loss, "__name__", "callable")
        assumed = {"loss": "mse of the prediction, every step alike: another as loss= of explain.wrap"}
        self.tell({"loss": name} | ({"assumed": assumed} if loss is None else {}))
        return made

    def _described_assumptions(self) -> dict[str, Any]:
        found = self.model.assumed | self.assumed
        return {"assumed": found} if found else {}

    def _resolved(self, players: str | Players) -> Players:
        return self.players(players) if isinstance(players, str) else players

    def _condition_name(self) -> str:
        return f"label {self.label}" if isinstance(self.label, int) else "condition"

    def _described_label(self) -> Any:
        return self.label if self.label is None or isinstance(self.label, int) else "given"


class StepTarget(_DenoiserTarget):
    """The number that a denoiser says about an image noised to ``t``, a mean over ``K`` common draws; see
    `DiffusionModel.step` for the settings.

    ``times [K]``, ``noise [K, C, H, W]`` and ``noised [K, C, H, W]`` are the draws that every coalition shares.
    """

    def __init__(
        self,
        model: DiffusionModel,
        image: Tensor,
        steps: tuple[float, ...],
        label: int | Tensor | Condition | None,
        seed: int,
        draws: int,
        payoff: str | Callable[[Tensor], Tensor],
        region: Tensor | None,
        guidance: float,
        fill: str,
        reference: Tensor | None,
        batch_size: int | None,
    ) -> None:
        if not callable(payoff) and payoff not in STEP_PAYOFFS:
            raise ValueError(f"payoff must be one of {', '.join(STEP_PAYOFFS)} or a function of x0_hat, got {payoff!r}")
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(FILLS)}, got {fill!r}")
        seed, draws = checked_seed(seed), checked_count(draws, "draws")
        if not steps:
            raise ValueError("a step needs at least one t, got none")
        self.model, self.module, self.image, self.label = model, model.denoiser, image, label
        self.steps, self.seed, self.draws, self.payoff = steps, seed, draws, payoff
        self.guidance, self.fill, self.batch_size = checked_guidance(guidance), fill, checked_batch_size(batch_size)
        self.condition = model.denoiser.condition(label)
        both = self.guidance != 1 or payoff == "evidence"
        self.null = model.absent_condition() if both else model.null or {}
        self.region = checked_region(region, image.shape[1:]).to(image.device)
        self.reference = None if reference is None else self._checked_reference(reference)
        generator = torch.Generator().manual_seed(seed)
        self.times = torch.tensor(steps, device=image.device).repeat_interleave(draws)
        noise = torch.randn(len(self.times), *image.shape, generator=generator, dtype=torch.float64)
        self.noise = noise.to(image)
        self.noised = model.process.noised(image.expand_as(self.noise), self.noise, self.times)
        self.assumed = _scale(image)
        if callable(payoff):
            probed(payoff, image[None])
        self._check_answers(self.noised[:1], self.times[:1], both)

    def _checked_reference(self, reference: Tensor | Sequence[Tensor]) -> Tensor:
        wanted = f"reference must be images [m, {', '.join(map(str, self.image.shape))}]"
        try:
            found = torch.stack(list(reference)) if isinstance(reference, (list, tuple)) else torch.as_tensor(reference)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{wanted}, got {type(reference).__name__}") from error
        if found.dim() != 4 or found.shape[1:] != self.image.shape or not len(found):
            raise ValueError(f"{wanted}, got {list(found.shape)}")
        return torch.stack([checked_image(image, self.image.dtype, "reference") for image in found]).to(self.image)

    # --- the number ---

    def predict(
        self,
        x: Tensor,
        times: Tensor,
        weight: Tensor | None = None,
        same: Tensor | None = None,
        params: Parameters | None = None,
    ) -> Tensor:
        """Guided predictions for rows ``x [n, C, H, W]``, with the step's own guidance when no weights are given."""
        if weight is None:
            weight = torch.full((len(x),), float(self.guidance), device=x.device)
        return guided(self.model.denoiser.with_parameters(params), x, times, self.condition, self.null, weight, same)

    def numbers(self, x: Tensor, present: Tensor | None = None, params: Parameters | None = None) -> Tensor:
        """The number of each ``x [b, K, C, H, W]``, float64 ``[b]``; ``present [b]``: whether the label is there."""
        rows, times = x.flatten(0, 1), self.times.repeat(len(x))
        noise = self.noise.repeat(len(x), 1, 1, 1)
        weight = torch.full((len(rows),), float(self.guidance), device=x.device)
        if present is not None:
            weight = torch.where(present.repeat_interleave(len(self.times)), weight, 0.0)
        if present is None:
            same = torch.arange(len(rows), device=x.device)
        else:  # the same images with and without the label
            same = torch.arange(len(self.times), device=x.device).repeat(len(x))

        def predict(*weights: Tensor) -> tuple[Tensor, ...]:
            """Of these rows with each of these weights; a branch that several need is evaluated once."""
            count = len(weights)
            x = rows.repeat(count, 1, 1, 1)
            return self.predict(x, times.repeat(count), torch.cat(weights), same.repeat(count), params).chunk(count)

        with evaluating(self.module):
            payoffs = step_payoff(self, predict, rows, times, noise, weight)
        return payoffs.double().view(len(x), -1).mean(1)

    def value(self) -> float:
        """The number of the image as it is."""
        with usual_modes(), torch.no_grad():
            return _finite(float(self.numbers(self.noised[None])))

    @cached_property
    def absent(self) -> Tensor:
        """What absent pixels show in each draw, ``[K, C, H, W]``."""
        with usual_modes():
            return fills(self)

    # --- questions ---

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "patches" (``size=``), "superpixels" (``segments=``) or "labels" (the condition).

        Raises:
            ValueError: a label was not given.
        """
        if kind == "labels":
            if self.label is None:
                raise ValueError("there is no label to play with: give step(..., label=...)")
            return label_player(self._condition_name())
        return image_players(self.image, kind, options)

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of patches, superpixels or the label."""
        return StepCoalitions(self, self._resolved(players)).game()

    def differentiable(self, players: str | Players) -> Differentiable:
        """The number as a function of ``x_t [1, K, C, H, W]``; the baseline is the noised fill.

        Raises:
            Unsupported: players that are no parts of the picture.
        """
        players = self._resolved(players)
        if players.groups is None or players.kind not in ("patches", "superpixels"):
            raise Unsupported(f"gradients of a step are over patches or superpixels; got {players.kind!r}")
        owner = owner_of_pixels(players, self.image.shape[1:]).to(self.image.device)
        return Differentiable(
            self.noised[None], self.absent[None], self.numbers, owner.expand_as(self.noised), self.fill
        )

    def run(self) -> Tensor:
        """The model's prediction for every draw, one step after the other."""
        with torch.no_grad(), evaluating(self.module):
            parts = zip(self.noised.split(self.draws), self.times.split(self.draws), strict=True)
            return torch.cat([self.predict(x, t) for x, t in parts])

    def pixels(self) -> Tensor:
        """The pixels that the number is read from, as positions in ``[H * W]``."""
        return self.region.reshape(-1).nonzero().view(-1).cpu()

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training images, ``train=(images, labels)``."""
        return self._trained(self.image, self.measured, train, remove)

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""
        return self.numbers(self.noised[None], params=params)[0]

    def each_step(self) -> list[StepTarget]:
        """The same question of every single step, with its part of the draws: their numbers' mean is this number.

        ``Influence(train).explain_all(target.each_step())`` says where in the trajectory an image matters.
        """
        found = []
        for i, step in enumerate(self.steps):
            one, own = copy.copy(self), slice(i * self.draws, (i + 1) * self.draws)
            vars(one).pop("absent", None)  # was made of all the draws
            one.steps = (step,)
            one.times, one.noise, one.noised = self.times[own], self.noise[own], self.noised[own]
            found.append(one)
        return found

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        return {
            "family": "diffusion",
            "model": type(self.module.net).__name__,
            "question": "step",
            "t": [float(t) for t in self.steps],
            "label": self._described_label(),
            "payoff": self.payoff if isinstance(self.payoff, str) else getattr(self.payoff, "__name__", "callable"),
            "prediction": self.model.process.prediction,
            "guidance": float(self.guidance),
            "removal": self.fill,
            "draws": self.draws,
            "noise_seed": self.seed,
            "region": int(self.region.sum()),
            **self._described_assumptions(),
        }


@dataclass(eq=False, repr=False)
class TrajectoryTarget(_DenoiserTarget):
    """The number that a function says about the end of a sampling run; see `DiffusionModel.trajectory`."""

    model: DiffusionModel
    label: int | Tensor | Condition | None
    payoff: Callable[[Tensor], Tensor]
    steps: int
    guidance: float
    seed: int
    draws: int
    shape: Sequence[int]
    batch_size: int | None

    def __post_init__(self) -> None:
        if not callable(self.payoff):
            raise ValueError(f"payoff must be a function of the samples, [n, C, H, W] -> [n], got {self.payoff!r}")
        self.seed, self.draws = checked_seed(self.seed), checked_count(self.draws, "draws")
        checked_seed(self.seed + self.draws)
        self.guidance, self.batch_size = checked_guidance(self.guidance), checked_batch_size(self.batch_size)
        self.module = self.model.denoiser
        self.condition = self.module.condition(self.label)
        self.null = self.model.null or {}
        if self.guidance != 1:
            self.null = self.model.absent_condition()
        self.seeds = [self.seed + draw for draw in range(self.draws)]
        self.scheduler = prepared(self.model.scheduler, self.steps)  # here: many use numpy, which derivatives forbid
        self.assumed = {"scheduler": "DDIM without clipping, made from betas"} if self.model.made_here else {}
        probed(self.payoff, self.start)
        t = self._position(torch.as_tensor(self.scheduler.timesteps[:1])).to(self.start.device)
        self._check_answers(self.start[:1], t, self.guidance != 1)
        if self.module.hears_itself(self.start[:1], t, self.condition):
            raise Unsupported(
                f"this network reads its own last answer ({self.module.names.self_condition}), which runs here do not "
                "give it: ask step(...), or wrap a function that leaves it out if your own runs do"
            )

    def _position(self, t: Tensor) -> Tensor:
        return position(self.model.process, self.model.scheduler, t)

    @cached_property
    def start(self) -> Tensor:
        """``x_T`` of each draw, ``[draws, C, H, W]``."""
        size = tuple(self.shape)
        noise = [torch.randn(size, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in self.seeds]
        with usual_modes():
            return torch.stack(noise).to(self.module.device, self.module.dtype)

    @found_alone
    def timesteps(self) -> list[float]:
        """The timestep of each step, first to last."""
        with torch.no_grad():
            return [float(moment.t) for moment in _firsts(self._moments(self._full(), 1))]

    def _full(self) -> Tensor:
        return torch.full((1, self.steps), float(self.guidance))

    def _moments(self, weights: Tensor, draws: int | None = None, params: Parameters | None = None) -> Iterator[Moment]:
        """The run of every row of ``weights [n, steps]`` from every draw, rows ordered by weights, then draws."""
        draws = draws or self.draws
        start = self.start[:draws].repeat(len(weights), 1, 1, 1)
        rows = weights.repeat_interleave(draws, 0)
        with evaluating(self.module):
            denoiser, seeds = self.module.with_parameters(params), self.seeds[:draws] * len(weights)
            yield from run(denoiser, self.scheduler, start, seeds, rows, self.condition, self.null, self._position)

    def numbers(self, weights: Tensor, params: Parameters | None = None) -> Tensor:
        """The number for guidance weights ``[n, steps]``, a mean over the draws, float64 ``[n]``.

        Raises:
            ValueError: a payoff that does not give one number a sample.
        """
        samples = None
        for moment in self._moments(weights, params=params):
            samples = moment.after
        assert samples is not None  # at least one step
        values = self.payoff(samples)
        if not isinstance(values, Tensor) or values.shape != samples.shape[:1]:
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"payoff must give one number a sample, [{len(samples)}], got {got}")
        return values.double().view(len(weights), -1).mean(1)

    @torch.no_grad()
    def value(self) -> float:
        """The number of the run as asked for."""
        return _finite(float(self.numbers(self._full())))

    @torch.no_grad()
    def images(self) -> Tensor:
        """The clean image that the first draw's run foresees at each step, ``[steps, C, H, W]``."""
        process = self.model.process
        found = []
        for moment in _firsts(self._moments(self._full(), 1)):
            found.append(process.clean(moment.seen, moment.prediction, moment.position[None])[0])
        return torch.stack(found)

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "steps" (with the condition or without), "guidance" (with its weight or plain), "labels".

        "patches" and "superpixels" of the first draw's sample are for reading attention; no game is played with them.

        Raises:
            ValueError: no such kind, or a label was not given.
        """
        if kind in ("patches", "superpixels"):
            return image_players(self.run()[0], kind, options)
        if kind == "labels":
            if self.label is None:
                raise ValueError("there is no label to play with: give trajectory(label=...)")
            return label_player(self._condition_name())
        if kind not in ("steps", "guidance"):
            raise ValueError(f"a run plays with steps, guidance or labels; got {kind!r}")
        return step_players(kind, self.steps, self.timesteps, options)

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of steps, guidance or the label."""
        return TrajectoryCoalitions(self, self._resolved(players)).game()

    @torch.no_grad()
    def run(self) -> Tensor:
        """The run of the first draw, to its sample."""
        return list(self._moments(self._full(), 1))[-1].after

    def pixels(self) -> Tensor:
        """Every pixel, as positions in ``[H * W]``."""
        return torch.arange(int(self.shape[1]) * int(self.shape[2]))

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training images, back through the whole run (a differentiable scheduler)."""
        return self._trained(self.start[0], self.measured, train, remove)

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar.

        Raises:
            Unsupported: the scheduler's steps leave torch, so that no derivative follows them.
            RuntimeError: whatever else stops the run.
        """
        try:
            return self.numbers(self._full(), params)[0]
        except RuntimeError as error:
            met = ("doesn't have storage", "Can't call numpy()")  # by NumPy, where torch.func or autograd watches
            if not any(text in str(error) for text in met):
                raise
            raise Unsupported(
                f"a step of {type(self.scheduler).__name__}, or the payoff, computes with NumPy, which derivatives do "
                "not follow: use torch there, or another scheduler such as DDIMScheduler"
            ) from error

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        return {
            "family": "diffusion",
            "model": type(self.module.net).__name__,
            "question": "trajectory",
            "label": self._described_label(),
            "payoff": getattr(self.payoff, "__name__", "callable"),
            "steps": self.steps,
            "scheduler": type(self.model.scheduler).__name__,
            "guidance": float(self.guidance),
            "draws": self.draws,
            "noise_seed": self.seed,
            **self._described_assumptions(),
        }


def _scale(image: Tensor) -> dict[str, str]:
    """What is to be said where an image is not on the scale of most denoisers, [-1, 1]."""
    low, high = float(image.min()), float(image.max())
    if high > 20 or low < -20:
        return {"x0": f"taken as it is, with values from {low:.3g} to {high:.3g}, though most denoisers see [-1, 1]"}
    if low >= 0 and low < high <= 1:
        return {"x0": "taken as it is, with values in [0, 1], though most denoisers see [-1, 1]"}
    return {}


def _finite(number: float) -> float:
    """The number itself.

    Raises:
        NonFinite: NaN or infinity.
    """
    if not math.isfinite(number):
        raise NonFinite(
            f"the number is {number}: check the payoff and the model's half precision; at a step without any signal "
            "(zero terminal SNR) a prediction of the noise says nothing about x0"
        )
    return number


def _firsts(moments: Iterator[Moment]) -> Iterator[Moment]:
    """The first call of each step, where a scheduler calls the network more than once a step."""
    seen = -1
    for moment in moments:
        if moment.step != seen:
            seen = moment.step
            yield moment
