"""The games on a denoiser: coalitions are folded into the batch, all with the same noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explain.diffusion.players import owner_of_pixels
from explain.types import Game, Masks, Players, Unsupported, Values

if TYPE_CHECKING:
    from explain.diffusion.targets import StepTarget, TrajectoryTarget

_BUDGET = 2**22  # image numbers in one forward pass
_CALLS = 4096  # coalitions of one batch at the most


@dataclass(frozen=True, eq=False)
class StepCoalitions:
    """The number of a step for masks over patches, superpixels or the label."""

    target: StepTarget
    players: Players

    def __post_init__(self) -> None:
        if self.players.kind not in ("patches", "superpixels", "labels"):
            raise Unsupported(f"a step plays with patches, superpixels or labels; got {self.players.kind!r}")
        if self.players.kind == "labels":
            self.target.model.absent_condition()

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        each = self.target.noised.numel() * 4
        size = self.target.batch_size or max(1, min(_CALLS, _BUDGET // each))
        removal = "null condition" if self.players.kind == "labels" else self.target.fill
        return Game(self.players, self, batch_size=size, checks={"removal": removal, "draws": len(self.target.times)})

    @cached_property
    def owner(self) -> Tensor:
        """The player of each pixel, int64 ``[H, W]``; -1, the last column of the masks, for pixels that nobody owns."""
        return owner_of_pixels(self.players, self.target.image.shape[1:]).to(self.target.image.device)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        masks = masks.to(self.target.image.device)
        with torch.no_grad():
            if self.players.kind == "labels":
                return self.target.numbers(self.target.noised.expand(len(masks), -1, -1, -1, -1), masks[:, 0])
            present = torch.cat([masks, masks.new_ones(len(masks), 1)], 1)[:, self.owner]
            x = torch.where(present[:, None, None], self.target.noised, self.target.absent)
            return self.target.numbers(x)


@dataclass(frozen=True, eq=False)
class TrajectoryCoalitions:
    """The number of a run for masks over its steps, its guidance, or the label.

    An absent *step* runs without the condition (``w = 0``), absent *guidance* runs on the condition alone (``w = 1``),
    an absent *label* runs the whole way without. No step is left out: that would be another solver.
    """

    target: TrajectoryTarget
    players: Players

    def __post_init__(self) -> None:
        if self.players.kind not in ("steps", "guidance", "labels"):
            raise Unsupported(f"a run plays with steps, guidance or labels; got {self.players.kind!r}")
        if self.target.label is None:
            raise Unsupported("without a condition a run has no players: give trajectory(label=...)")
        if self.players.kind == "guidance" and self.target.guidance == 1:
            raise ValueError("guidance=1 is no guidance: ask with guidance above 1, or play with steps")
        if self.players.kind != "guidance":
            self.target.model.absent_condition()

    def game(self) -> Game:
        """The game, in batches that fit the memory budget."""
        each = self.target.start.numel() * 8
        size = self.target.batch_size or max(1, min(_CALLS, _BUDGET // each))
        off = {"steps": "no condition", "guidance": "no guidance", "labels": "no condition"}[self.players.kind]
        return Game(self.players, self, batch_size=size, checks={"removal": off, "draws": self.target.draws})

    @cached_property
    def owner(self) -> Tensor:
        """The player of each step, int64 ``[steps]``; ``P`` for steps that nobody owns."""
        if self.players.kind == "labels":
            return torch.zeros(self.target.steps, dtype=torch.long)
        owner = torch.full((self.target.steps,), len(self.players))
        for player, steps in enumerate(self.players.groups or self.players.index.split(1)):
            owner[steps] = player
        return owner

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        present = torch.cat([masks.cpu(), torch.ones(len(masks), 1, dtype=torch.bool)], 1)[:, self.owner]
        off = 1.0 if self.players.kind == "guidance" else 0.0
        with torch.no_grad():
            return self.target.numbers(torch.where(present, float(self.target.guidance), off))
