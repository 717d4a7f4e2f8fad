"""A denoiser's numbers under coalitions, folded into the batch with the same noise, and under small changes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from explain.diffusion.fills import fills
from explain.diffusion.number import StepNumber, TrajectoryNumber
from explain.diffusion.players import IMAGE_KINDS, owner_of_pixels
from explain.diffusion.sites import over_channels, sites
from explain.spelling import came
from explain.types import Differentiable, Game, Masks, Players, Unsupported, Values, present_atoms

_RUN_REMOVALS = {
    "steps": "no condition",
    "guidance": "no guidance",
    "labels": "no condition",
    "noise": "noise of another seed",
}
_BUDGET = 2**22  # image numbers in one forward pass
_CALLS = 4096  # coalitions of one batch at the most


@dataclass(frozen=True, eq=False)
class StepCoalitions:
    """The number of a step for masks over patches, superpixels or the label."""

    number: StepNumber
    players: Players
    fill: str
    reference: Tensor | None

    def __post_init__(self) -> None:
        if self.players.kind not in (*IMAGE_KINDS, "labels"):
            raise Unsupported(
                f"a step plays with {', '.join(IMAGE_KINDS)} or labels; {came(self.players.kind, IMAGE_KINDS)}"
            )
        if self.players.kind == "labels":
            self.number.model.absent_condition()

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        each = self.number.noised.numel() * 4
        size = self.number.batch_size or max(1, min(_CALLS, _BUDGET // each))
        checks = {"removal": self.removal, "draws": len(self.number.times)}
        return Game(self.players, self, batch_size=size, checks=checks)

    @property
    def removal(self) -> str:
        """What absent players are replaced by."""
        return "null condition" if self.players.kind == "labels" else self.fill

    @cached_property
    def owner(self) -> Tensor:
        """The player of each site, int64 ``[*sites]``, ``[H, W]`` of an image; -1 for sites that nobody owns."""
        return owner_of_pixels(self.players, sites(self.number.image.shape)).to(self.number.image.device)

    @cached_property
    def absent(self) -> Tensor:
        """What absent sites show in each draw, ``[K, *shape]``."""
        return fills(self.number, self.fill, self.reference)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        masks = masks.to(self.number.image.device)
        with torch.no_grad():
            if self.players.kind == "labels":
                noised = self.number.noised
                return self.number.numbers(noised.expand(len(masks), *noised.shape), masks[:, 0])
            present = over_channels(present_atoms(masks, self.owner), self.number.image.shape)
            x = torch.where(present[:, None], self.number.noised, self.absent)
            return self.number.numbers(x)


def step_terms(number: StepNumber) -> Tensor:
    """What each step adds to the number of the image as it is, float64 ``[steps]``."""
    terms = number.terms_of(number.noised[None])[0]
    return terms if number.payoff == "elbo" else terms / len(terms)


def level_game(number: StepNumber, players: Players) -> Game:
    """The number for sets of the noise levels that were asked about: the sum of their terms, and of nobody's.

    It is additive: every credit is the terms of the player's steps.
    """
    with torch.no_grad():
        terms = step_terms(number).cpu()
    owner = owner_of_steps(players, len(terms))

    def values(masks: Masks) -> Values:
        return present_atoms(masks, owner).double().cpu() @ terms

    return Game(players, values, checks={"removal": "term left out", "draws": number.draws})


def owner_of_steps(players: Players, steps: int) -> Tensor:
    """The player of each step, int64 ``[steps]``; ``P`` for steps that nobody owns."""
    owner = torch.full((steps,), len(players))
    for player, own in enumerate(players.groups or players.index.split(1)):
        owner[own] = player
    return owner


def differentiable(number: StepNumber, players: Players, fill: str, reference: Tensor | None = None) -> Differentiable:
    """The number of a step as a function of ``x_t [1, K, *shape]``; the baseline is the noised fill.

    Raises:
        Unsupported: players that are no part of the image.
    """
    if players.groups is None or players.kind not in IMAGE_KINDS:
        raise Unsupported(
            f"gradients of a step are over {' or '.join(IMAGE_KINDS)}; with {players.kind!r} use Shapley, Lime or "
            "Occlusion"
        )
    shape = number.image.shape
    owner = over_channels(owner_of_pixels(players, sites(shape)), shape).to(number.image.device)
    owner = owner.expand_as(number.noised)
    return Differentiable(number.noised[None], fills(number, fill, reference)[None], number.numbers, owner, fill)


@dataclass(frozen=True, eq=False)
class TrajectoryCoalitions:
    """The number of a run for masks over its steps, its guidance, the label, or the noise that it starts from.

    An absent *step* runs without the condition (``w = 0``), absent *guidance* runs on the condition alone (``w = 1``),
    an absent *label* runs the whole way without. Where there is no condition, an absent *step* does not ask the
    network: the clean image that it foresaw before is held to, zeros before the first look, see `Looks`. An absent part
    of the *noise* is that of another seed. No step is left out: that would be another solver.
    """

    number: TrajectoryNumber
    players: Players

    def __post_init__(self) -> None:
        if self.players.kind not in ("steps", "guidance", "labels", "noise"):
            raise Unsupported(f"a run plays with steps, guidance, labels or noise; got {self.players.kind!r}")
        if self.players.kind == "noise" or self.unconditional:
            return
        if self.number.label is None:
            raise Unsupported(
                "without a condition a run plays with 'steps' or 'noise' alone: give trajectory(label=...)"
            )
        if self.players.kind == "guidance" and self.number.guidance == 1:
            raise ValueError("guidance=1 is no guidance: ask with guidance above 1, or play with steps")
        if self.players.kind != "guidance":
            self.number.model.absent_condition()

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        each = self.number.start.numel() * 8
        size = self.number.batch_size or max(1, min(_CALLS, _BUDGET // each))
        off = "the image foreseen before, zeros at first" if self.unconditional else _RUN_REMOVALS[self.players.kind]
        checks = {"removal": off, "draws": self.number.draws, **self.number.proofs}
        return Game(self.players, self, batch_size=size, checks=checks)

    @cached_property
    def owner(self) -> Tensor:
        """The player of each step, int64 ``[steps]``; ``P`` for steps that nobody owns."""
        if self.players.kind == "labels":
            return torch.zeros(self.number.steps, dtype=torch.long)
        return owner_of_steps(self.players, self.number.steps)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        if self.players.kind == "noise":
            return self._of_noise(masks)
        present = present_atoms(masks, self.owner)
        if self.unconditional:
            with torch.no_grad():
                return self.number.numbers(self.number.weights.expand(len(masks), -1), looks=present)
        off = 1.0 if self.players.kind == "guidance" else 0.0
        with torch.no_grad():
            return self.number.numbers(torch.where(present, float(self.number.guidance), off))

    @property
    def unconditional(self) -> bool:
        """Whether steps play without a condition that they could lack."""
        return self.players.kind == "steps" and self.number.label is None

    def _of_noise(self, masks: Masks) -> Values:
        number, shape = self.number, tuple(self.number.shape)
        owner = owner_of_pixels(self.players, sites(shape)).to(number.start.device)
        present = over_channels(present_atoms(masks, owner), shape)
        start = torch.where(present[:, None], number.start, number.other_start)
        with torch.no_grad():
            return number.numbers(number.weights.expand(len(masks), -1), start=start.flatten(0, 1))


def differentiable_run(number: TrajectoryNumber, players: Players) -> Differentiable:
    """The number of a run as a function of ``x_T [1, draws, *shape]``; the baseline is the noise of another seed.

    Raises:
        Unsupported: players that are no part of the starting noise.
    """
    if players.groups is None or players.kind != "noise":
        raise Unsupported(
            f"gradients of a run are over the parts of its starting noise, 'noise'; with {players.kind!r} use Shapley, "
            "Lime or Occlusion"
        )
    shape = tuple(number.shape)
    owner = over_channels(owner_of_pixels(players, sites(shape)), shape).to(number.start.device)

    def numbers(start: Tensor) -> Tensor:
        return number.numbers(number.weights.expand(len(start), -1), start=start.flatten(0, 1))

    inputs, baseline = number.start[None], number.other_start[None]
    return Differentiable(inputs, baseline, numbers, owner.expand_as(number.start), _RUN_REMOVALS["noise"])


@dataclass(frozen=True, eq=False)
class ConditionCoalitions:
    """The number for masks over named conditions: an absent one is the null that it was trained with."""

    number: StepNumber | TrajectoryNumber
    players: Players

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        rows = self.number.noised if isinstance(self.number, StepNumber) else self.number.start
        size = self.number.batch_size or max(1, min(_CALLS, _BUDGET // (rows.numel() * 8)))
        draws = len(rows)
        return Game(self.players, self, batch_size=size, checks={"removal": "null condition", "draws": draws})

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        number = copy.copy(self.number)
        copies = len(number.noised) if isinstance(number, StepNumber) else number.draws
        present = masks.repeat_interleave(copies, 0)
        number.condition = {
            name: torch.where(_like(present[:, player], value), value, self.number.null[name])
            for player, (name, value) in enumerate(self.number.condition.items())
        }
        with torch.no_grad():
            if isinstance(number, StepNumber):
                return number.numbers(number.noised.expand(len(masks), *number.noised.shape))
            return number.numbers(number.weights.expand(len(masks), -1))


def _like(rows: Tensor, value: Tensor) -> Tensor:
    """``[n]`` shaped to choose among rows like ``value [1, ...]``."""
    return rows.to(value.device).view(-1, *[1] * (value.dim() - 1))
