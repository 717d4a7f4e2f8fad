"""The number that a payoff says about the picture a pipeline makes: one variation of the call beside another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from explain.diffusion.payoffs import LATENTS, PICTURES, check_payoff
from explain.diffusion.pipelines.call import Row
from explain.diffusion.pipelines.tracing import TracedRun, Variation
from explain.diffusion.pipelines.watched import Watched
from explain.diffusion.recomputing import recomputed
from explain.diffusion.sampling import Fork
from explain.diffusion.sweep import Sweep, checked_weights, swept
from explain.guard import usual_modes
from explain.payoffs import one_a_row
from explain.plain import plain_operations
from explain.types import Game, Masks, Parameters, Players, Unsupported, Values


@dataclass(eq=False, repr=False)
class PipelineNumber(TracedRun):
    """``payoff(pictures)`` of a pipeline's own call, a mean over ``draws`` seeds; see `TracedRun`.

    Beside its settings: the ``payoff``, ``[n, 3, H, W]`` in [0, 1] (or latents) to ``[n]``, None where only pictures
    are asked for. ``proofs`` are what was measured of the run beforehand, for every game's checks.

    Raises:
        ValueError: settings out of range.
    """

    payoff: Callable[[Tensor], Tensor] | None

    def __post_init__(self) -> None:
        if self.payoff is not None and not callable(self.payoff):
            raise ValueError(f"payoff must be a function of the pictures, [n, 3, H, W] -> [n], got {self.payoff!r}")
        super().__post_init__()
        self.assumed: dict[str, str] = {}
        self.proofs: dict[str, Any] = {}

    def played(self, players: Players, values: Callable[[Masks], Values], removal: str, **checks: Any) -> Game:
        """The game of these values, with what is to be known of the run in its checks."""
        checks = {"removal": removal, "draws": self.draws, "batched": self.together, **self.proofs, **checks}
        return Game(players, values, batch_size=max(1, self.at_once() // self.draws), checks=checks)

    def forked(self, fork: Fork) -> Tensor:
        """What forks of the first draw's run end in, as payoffs see it, ``[n, ...]``."""
        rows = self.rows_of(self.own)[:1] * len(fork.seeds)
        if not self.alike and len(rows) > 1:
            alone = [Fork(fork.at[i : i + 1], [seed], fork.stream[i : i + 1]) for i, seed in enumerate(fork.seeds)]
            return torch.cat([self.forked(one) for one in alone])
        return self.made(rows, watched=Watched(len(rows), self.plan, fork=fork))

    @torch.no_grad()
    def numbers(self, variations: Sequence[Variation]) -> Tensor:
        """The number of each variation, float64 ``[n]``; equal ones are run once.

        Raises:
            ValueError: no payoff, or one that does not give one number a picture.
        """
        payoff = self.asked_payoff()
        distinct: dict[Any, Variation] = {}
        keys = [variation.key() for variation in variations]
        for key, variation in zip(keys, variations, strict=True):
            distinct.setdefault(key, variation)
        rows = [row for variation in distinct.values() for row in self.rows_of(variation)]
        weights = self._weights(list(distinct.values()))
        found = []
        for part in self.batches(rows):
            seen = self.made(rows[part], None if weights is None else weights[part])
            found.append(one_a_row(payoff(seen), len(seen), "picture").double().cpu())
        values = torch.cat(found).view(len(distinct), self.draws).mean(1)
        place = {key: i for i, key in enumerate(distinct)}
        return values[[place[key] for key in keys]]

    @torch.no_grad()
    def sweep(self, weights: Sequence[float]) -> Sweep:
        """The number and the first draw's picture under other values of ``guidance_scale``, each by a call of its own.

        Raises:
            ValueError: weights that are no numbers, or no payoff.
            Unsupported: a pipeline without guidance.
        """
        if "guidance_scale" not in self.call.takes:
            raise Unsupported(f"{self.call.name} takes no guidance")
        found, payoff = checked_weights(weights), self.asked_payoff()
        each = [replace(self.own, settings={"guidance_scale": weight}) for weight in found]
        rows = [row for variation in each for row in self.rows_of(variation)]
        seen = torch.cat([self.made(rows[part], watched=Watched(0)) for part in self.batches(rows)])
        values = one_a_row(payoff(seen), len(seen), "picture").view(len(found), self.draws)
        return swept(found, values, seen.view(len(found), self.draws, *seen.shape[1:])[:, 0])

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters of the network, ``net.*``, a scalar that derivatives follow.

        Raises:
            ValueError: no payoff.
            Unsupported: a pipeline whose call leaves torch, so that no derivative follows it.
        """
        payoff = self.asked_payoff()
        rows = self.rows_of(self.own)
        own = {name.removeprefix("net."): value for name, value in params.items()}
        found = []
        for part in self.batches(rows):
            seen = self._followed(rows[part], own)
            found.append(one_a_row(payoff(seen), len(rows[part]), "picture").double())
        return torch.cat(found).mean()

    def _followed(self, rows: Sequence[Row], params: Parameters) -> Tensor:
        """What payoffs see of these rows, as a function of the network's parameters; see `recomputed`.

        Raises:
            Unsupported: arrays that have left torch.
            RuntimeError: whatever else stops the call.
        """

        def within(net: nn.Module, *args: Any, **kwargs: Any) -> Any:
            def other(*args: Any, **kwargs: Any) -> Any:
                with plain_operations(net):
                    return functional_call(net, params, args, kwargs)

            return recomputed(other, net)(*args, **kwargs)

        watched = Watched(len(rows), replace(self.plan, by_row=None), within=within)  # rows are told by their bytes
        output = "pt" if self.space == "pixels" else "latent"
        try:
            answer = self.call(rows, watched.network, watched.step, output, differentiable=True)
        except RuntimeError as error:
            if not any(text in str(error) for text in ("doesn't have storage", "Can't call numpy()")):
                raise
            answer = (None,)
        if not isinstance(answer[0] if isinstance(answer, tuple) else next(iter(answer.values())), Tensor):
            raise Unsupported(
                f"the call of {self.call.name}, or a step of its scheduler, leaves torch, and derivatives do not "
                "follow: use another scheduler, such as DDIMScheduler, or ask about a step"
            )
        found = self.shown(answer)
        return self._in_unit(found) if self.space == "pixels" else found

    def asked_payoff(self) -> Callable[[Tensor], Tensor]:
        """The payoff.

        Raises:
            ValueError: none was given.
        """
        if self.payoff is None:
            raise ValueError(
                "which number of the picture? Give trajectory(..., payoff=function), [n, 3, H, W] in [0, 1] -> [n]"
            )
        return self.payoff

    def _weights(self, variations: Sequence[Variation]) -> Tensor | None:
        """``[rows, steps]``: the variations' own, the pipeline's where they have none; None where none has."""
        if all(variation.weights is None for variation in variations):
            return None
        own = self.own_weights()
        each = torch.stack([own if one.weights is None else one.weights.to(own) for one in variations])
        return each.repeat_interleave(self.draws, 0)

    def check_payoff(self) -> None:
        """Raise where the payoff is random or looks across rows; see `explain.payoffs.probed`.

        Raises:
            ValueError: it does, or it cannot be called with what it is to see.
        """
        if self.payoff is None:
            return
        with usual_modes():
            check_payoff(self.payoff, self.first(), PICTURES if self.space == "pixels" else LATENTS)
