"""One denoising step, and a whole sampling run, as targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.bound import StepWeights
from explain.diffusion.commit import commit_times
from explain.diffusion.denoiser import Condition, Denoiser
from explain.diffusion.fills import FILLS, checked_reference, fills
from explain.diffusion.forks import Decided, decided, forks
from explain.diffusion.games import (
    ConditionCoalitions,
    StepCoalitions,
    TrajectoryCoalitions,
    differentiable,
    differentiable_run,
    level_game,
    step_terms,
)
from explain.diffusion.number import DenoiserNumber, StepNumber, TrajectoryNumber
from explain.diffusion.objective import training_objective
from explain.diffusion.players import (
    IMAGE_KINDS,
    condition_players,
    image_players,
    label_player,
    noise_players,
    step_players,
)
from explain.diffusion.process import gaussian
from explain.diffusion.sampling import Moment
from explain.diffusion.sites import sites
from explain.diffusion.sweep import Sweep, checked_weights, swept
from explain.diffusion.trained import TrainedDenoiser
from explain.guard import evaluating, usual_modes
from explain.payoffs import one_a_row, payoff_name
from explain.spelling import came
from explain.threads import found_alone
from explain.types import Differentiable, Game, NonFinite, Objective, Players, Target


class _DenoiserTarget(DenoiserNumber, Target):
    """What steps and runs share: the training, and how the condition is named."""

    @property
    def module(self) -> Denoiser:  # type: ignore[override]  # read only here
        """The user's network, as it is called."""
        return self.model.denoiser

    @property
    def trained(self) -> nn.Module:
        """The user's own network."""
        net = self.module.net
        return net if isinstance(net, nn.Module) else self.module

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training images, ``train=(images, labels)``; see `training_objective`.

        That of a run goes back through the whole of it, which takes a differentiable scheduler.
        """
        made = training_objective(self, train, remove)
        self.tell(made.told)
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


class StepTarget(StepNumber, _DenoiserTarget):
    """The number that a denoiser says about a noised image, as a question; see `DiffusionModel.step`.

    Beside the settings of `StepNumber`: what an absent patch shows, ``fill``, and the ``reference`` images for it.
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
        fill: str,
        reference: Tensor | None,
        batch_size: int | None,
        weights: StepWeights | None = None,
    ) -> None:
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(FILLS)}, {came(fill, FILLS)}")
        if fill == "noise":
            gaussian(model.process, 'fill="noise"')
        self.fill, self.reference = fill, None if reference is None else checked_reference(reference, image)
        super().__init__(model, image, steps, label, seed, draws, payoff, region, guidance, batch_size, weights)

    def value(self) -> float:
        """The number of the image as it is."""
        with usual_modes(), torch.no_grad():
            return _finite(float(self.numbers(self.noised[None])))

    @cached_property
    def absent(self) -> Tensor:
        """What absent sites show in each draw, ``[K, *shape]``."""
        return fills(self, self.fill, self.reference)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Parts of the image, what it is conditioned on, and the noise levels that were asked about."""
        return (*IMAGE_KINDS, "labels", "conditions", "steps")

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "patches" (``size=``), "superpixels" (``segments=``) or "coordinates" of a point; "labels",
        "conditions" (each of several by name), "steps".

        "steps" are the noise levels that were asked about: an absent one's term leaves the sum, see `terms`.

        Raises:
            ValueError: no such kind, or a label was not given.
        """
        if kind == "conditions":
            return condition_players(self.condition, self.model.absent_condition())
        if kind == "labels":
            if self.label is None:
                raise ValueError("there is no label to play with: give step(..., label=...)")
            return label_player(self._condition_name())
        if kind == "steps":
            return step_players(kind, len(self.steps), [float(t) for t in self.steps], options)
        return image_players(self.image, kind, options)

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of parts of the image, or of the label."""
        players = self._resolved(players)
        if players.kind == "steps":
            return level_game(self, players)
        if players.kind == "conditions":
            return ConditionCoalitions(self, players).game()
        return StepCoalitions(self, players, self.fill, self.reference).game()

    def differentiable(self, players: str | Players) -> Differentiable:
        """The number as a function of ``x_t [1, K, *shape]``; see `games.differentiable`."""
        return differentiable(self, self._resolved(players), self.fill, self.reference)

    def run(self) -> Tensor:
        """The model's prediction for every draw, one step after the other."""
        with torch.no_grad(), evaluating(self.module):
            parts = zip(self.noised.split(self.draws), self.times.split(self.draws), strict=True)
            return torch.cat([self.predict(x, t) for x, t in parts])

    def states(self) -> Tensor:
        """``x_t`` of the first draw at each step, ``[steps, *shape]``."""
        return self.noised[:: self.draws]

    def images(self) -> Tensor:
        """The clean image that the first draw of each step foresees, ``[steps, *shape]``."""
        return self.model.process.clean(self.states(), self.run()[:: self.draws], self.times[:: self.draws])

    def terms(self) -> Tensor:
        """What each step adds to the number, float64 ``[steps]``: they sum to `value`.

        Of ``payoff="elbo"`` over all steps these are the terms of the bound, the reconstruction with the first and the
        prior with the last; of other payoffs each step's own number by how many steps there are.
        """
        with usual_modes(), torch.no_grad():
            return step_terms(self)

    def pixels(self) -> Tensor:
        """The sites that the number is read from, pixels of an image as positions in ``[H * W]``."""
        return self.region.reshape(-1).nonzero().view(-1).cpu()

    def each_step(self) -> list[StepTarget]:
        """The same question of every single step, with its part of the draws: their numbers' mean is this number.

        Of ``payoff="elbo"`` their sum is.

        ``Influence(train).explain_all(target.each_step())`` says where in the trajectory an image matters.
        """
        found = []
        for i, step in enumerate(self.steps):
            one, own = copy.copy(self), slice(i * self.draws, (i + 1) * self.draws)
            vars(one).pop("absent", None)  # was made of all the draws
            one.steps = (step,)
            one.times, one.noise = self.times[own], self.noise[own]
            one.noised, one.unknown = self.noised[own], self.unknown[own]
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
            "payoff": payoff_name(self.payoff),
            "prediction": self.model.process.prediction,
            **self._described_weights(),
            "guidance": float(self.guidance),
            "removal": self.fill,
            "draws": self.draws,
            "noise_seed": self.seed,
            "region": int(self.region.sum()),
            **self._described_assumptions(),
        }

    def _described_weights(self) -> dict[str, str]:
        if self.weights is None:
            return {}
        return {"weights": self.weights if isinstance(self.weights, str) else payoff_name(self.weights)}


@dataclass(eq=False, repr=False)
class TrajectoryTarget(TrajectoryNumber, _DenoiserTarget):
    """The number that a function says about the end of a sampling run, as a question: `DiffusionModel.trajectory`."""

    @torch.no_grad()
    def value(self) -> float:
        """The number of the run as asked for."""
        return _finite(float(self.numbers(self.weights)))

    @found_alone
    def timesteps(self) -> list[float]:
        """The timestep of each step, first to last."""
        with torch.no_grad():
            return [float(moment.t) for moment in _firsts(self.moments(self.weights, 1))]

    @torch.no_grad()
    def images(self) -> Tensor:
        """The clean image that the first draw's run foresees at each step, ``[steps, *shape]``."""
        return self._traced()[0]

    @torch.no_grad()
    def states(self) -> Tensor:
        """``x_t`` as the first draw's run sees it at each step, ``[steps, *shape]``."""
        return torch.stack([moment.seen[0] for moment in _firsts(self.moments(self.weights, 1))])

    def _traced(self) -> tuple[Tensor, Tensor]:
        """What the first draw's run foresees at each step, ``[steps, *shape]``, and its sample, ``[*shape]``."""
        process, moments = self.model.process, list(self.moments(self.weights, 1))
        firsts = _firsts(iter(moments))
        found = [process.clean(m.seen, m.prediction, m.position[None])[0] for m in firsts]
        return torch.stack(found), moments[-1].after[0]

    @torch.no_grad()
    def commit_times(self, tolerance: float = 0.1) -> Tensor:
        """The step from which on each pixel of the first draw keeps to its final value, int64; see `commit_times`."""
        foreseen, sample = self._traced()
        return commit_times(foreseen, sample, tolerance).cpu()

    def forks(self, at: int, draws: int = 8) -> Tensor:
        """Samples ``[draws, *shape]`` of the first draw's run with other noise from step ``at`` on; see `forks`."""
        return forks(self, at, draws)

    @torch.no_grad()
    def sweep(self, weights: Sequence[float]) -> Sweep:
        """The number and the first draw's sample under other weights of guidance.

        Raises:
            ValueError: weights that are no numbers, or no null condition for weights other than 1.
        """
        found = checked_weights(weights)
        if any(weight != 1 for weight in found):
            self.null = self.model.absent_condition()
        samples = self.samples(torch.tensor(found)[:, None].expand(-1, self.steps))
        values = one_a_row(self.payoff(samples), len(samples), "sample").view(len(found), self.draws)
        return swept(found, values, samples.view(len(found), self.draws, *samples.shape[1:])[:, 0])

    def decided(self, draws: int = 8) -> Decided:
        """How much of the variance of the number the noise of each step explains; see `forks.decided`."""
        return decided(self, draws)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a run is made of; parts of its sample for reading attention."""
        return ("steps", "guidance", "labels", "conditions", "noise", *IMAGE_KINDS)

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "steps" (with the condition or without), "guidance" (with its weight or plain), "labels",
        "conditions" (each of several by name), "noise" (patches of the starting noise or another seed's, ``size=``).

        "patches" and "superpixels" of the first draw's sample are for reading attention; no game is played with them.

        Raises:
            ValueError: no such kind, or a label was not given.
        """
        if kind in IMAGE_KINDS:
            return image_players(self.run()[0], kind, options)
        if kind == "conditions":
            return condition_players(self.condition, self.model.absent_condition())
        if kind == "labels":
            if self.label is None:
                raise ValueError("there is no label to play with: give trajectory(label=...)")
            return label_player(self._condition_name())
        if kind == "noise":
            return noise_players(self.start[0], options)
        if kind not in ("steps", "guidance"):
            raise ValueError(f"a run plays with steps, guidance, labels or noise; got {kind!r}")
        return step_players(kind, self.steps, self.timesteps, options)

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of steps, guidance, the label, conditions or the starting noise."""
        found = self._resolved(players)
        if found.kind == "conditions":
            return ConditionCoalitions(self, found).game()
        return TrajectoryCoalitions(self, found).game()

    def differentiable(self, players: str | Players) -> Differentiable:
        """The number as a function of the starting noise; see `games.differentiable_run`."""
        return differentiable_run(self, self._resolved(players))

    @torch.no_grad()
    def run(self) -> Tensor:
        """The run of the first draw, to its sample."""
        return self.samples(self.weights, 1)

    def pixels(self) -> Tensor:
        """Every site, pixels of an image as positions in ``[H * W]``."""
        return torch.arange(sites(self.shape).numel())

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        return {
            "family": "diffusion",
            "model": type(self.module.net).__name__,
            "question": "trajectory",
            "label": self._described_label(),
            "payoff": payoff_name(self.payoff),
            "steps": self.steps,
            "scheduler": type(self.model.scheduler).__name__,
            "guidance": float(self.guidance),
            "draws": self.draws,
            "noise_seed": self.seed,
            **({} if self.eta is None else {"eta": self.eta}),
            **({} if self.latents is None else {"latents": "given"}),
            **self.proofs,
            **self._described_assumptions(),
        }


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
