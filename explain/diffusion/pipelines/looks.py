"""Steps of a pipeline's run without a condition: an absent one does not look at the picture, and the sampler stays."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.conventions import position
from explain.diffusion.games import owner_of_steps
from explain.diffusion.pipelines.number import PipelineNumber
from explain.diffusion.pipelines.watched import Plan, Watched, step_arguments
from explain.diffusion.process import Gaussian, gaussian
from explain.diffusion.sampling import Looks
from explain.diffusion.schedules import gaussian_of
from explain.payoffs import one_a_row
from explain.types import Game, Masks, Players, Unsupported, Values, present_atoms


class Looking(Watched):
    """A run whose rows look at some steps alone; at the others the scheduler is given the image foreseen before.

    Args:
        plan: what is known of the run.
        looks: which steps each row looks at.
        place: where in the schedule a timestep is.
    """

    def __init__(self, plan: Plan, looks: Looks, place: Callable[[Tensor], Tensor]) -> None:
        super().__init__(len(looks.at), plan)
        self.looks, self.place = looks, place

    def step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The scheduler's step, with the network's prediction or the held one.

        Raises:
            Unsupported: predictions that hold more than what the sample is made of.
        """
        said, t, sample = step_arguments(step, args, kwargs)
        if said.shape != sample.shape:
            raise Unsupported(
                f"a step without a look needs a prediction {list(sample.shape)} like the sample, got {list(said.shape)}"
            )
        flow = gaussian(self.looks.process, "a pipeline's step").signal is None
        seen = sample if flow else self.now.seen[0][: len(sample), : sample.size(1)].to(sample)
        place = self.place(torch.as_tensor(t, device=sample.device))
        asked = self.looks.at[:, self.count].to(sample.device)
        given = inspect.signature(step).bind(*args, **kwargs)
        given.arguments["model_output"] = self.looks.held(seen, said, place, asked)
        return super().step(step, given.args, given.kwargs)


@dataclass(frozen=True, eq=False)
class LookCoalitions:
    """The number for masks over steps: an absent one does not ask the network; see `Looks`."""

    number: PipelineNumber
    players: Players

    def game(self) -> Game:
        """The game.

        Raises:
            Unsupported: steps that are not seen, or whose process is not known.
        """
        if not self.number.traced[0]:
            raise Unsupported(f"the steps of {self.number.call.name} are not those of a scheduler, and are not seen")
        self.process  # noqa: B018 - says so now
        return self.number.played(self.players, self, "the image foreseen before, zeros at first")

    @cached_property
    def process(self) -> Gaussian:
        """How the noise comes and goes.

        Raises:
            Unsupported: it is not known here.
        """
        scheduler = self.number.call.pipeline.scheduler
        try:
            return gaussian_of(scheduler, None)
        except (TypeError, ValueError) as error:
            raise Unsupported(f"what {type(scheduler).__name__} foresees at a step is not known: {error}") from error

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        number, payoff = self.number, self.number.asked_payoff()
        present = present_atoms(masks.cpu(), owner_of_steps(self.players, number.steps))
        rows, looks = number.rows_of(number.own) * len(masks), present.repeat_interleave(number.draws, 0)
        scheduler, found = number.call.pipeline.scheduler, []
        for part in number.batches(rows):
            watched = Looking(
                number.plan, Looks(looks[part], self.process), lambda t: position(self.process, scheduler, t)
            )
            seen = number.made(rows[part], watched=watched)
            found.append(one_a_row(payoff(seen), len(seen), "picture").double().cpu())
        return torch.cat(found).view(len(masks), -1).mean(1)
