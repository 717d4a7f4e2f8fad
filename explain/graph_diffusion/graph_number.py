"""The numbers of a denoiser of graphs: what a step says of an entry of the clean graph, what runs end in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.graph_diffusion.conditions import Conditioning
from explain.graph_diffusion.graph_network import GraphDenoiser
from explain.graph_diffusion.graph_states import Presence, Stand, State
from explain.graph_diffusion.settings import checked_class, checked_node
from explain.guard import evaluating
from explain.payoffs import by_themselves, one_a_row
from explain.spelling import came
from explain.types import Parameters

STEP_PAYOFFS = ("log_probability", "probability")
_OTHER = 0x2545F4914F6CDD1D  # another seed, whose draws stand where a run's start is taken away
_BUDGET = 2**21  # numbers of pairs in one forward pass


def joined(states: list[State]) -> State:
    """The rows of all of them."""
    return State(*(torch.cat(parts) for parts in zip(*states, strict=True)))


class GraphNumber:
    """What both numbers are made of: the denoiser, the size of the graph, the draws and the seed."""

    model: GraphDenoiser
    size: int
    seed: int
    draws: int
    batch_size: int | None
    payoff: str | Callable[..., Tensor]
    assumed: dict[str, str]
    conditioning: Conditioning
    steps: int = 1

    @property
    def batch(self) -> int:
        """Coalitions in one forward pass."""
        each = self.size**2 * sum(self.model.process.classes) * self.draws * 8
        return self.batch_size or max(1, min(4096, _BUDGET // each))

    def everybody(self, count: int = 1) -> Presence:
        """Every node, pair, step and entry of the condition present, ``count`` rows."""
        return Presence.whole(count, self.size, self.steps, self.conditioning.entries, self.model.like.device)

    def numbers(self, present: Presence) -> Tensor:
        """The number of each coalition, a mean over the draws, float64 ``[B]``."""
        raise NotImplementedError

    def _asked(self, state: State, t: int, there: Presence, step: int = 0, params: Parameters | None = None) -> State:
        """What is foreseen at the ``step``-th step of those that are asked about."""
        given = self.conditioning.given(there.conditions, there.guided[:, step])
        with evaluating(self.model.module):
            return self.model(state, t, params, given)


class GraphStepNumber(GraphNumber):
    """What one step says of an entry of the clean graph, a mean over draws of its noise; `GraphDiffusionModel.step`."""

    def __init__(
        self,
        model: GraphDenoiser,
        clean: State,
        t: int,
        node: Any,
        edge: Any,
        label: Any,
        payoff: str | Callable[..., Tensor],
        seed: int,
        draws: int,
        batch_size: int | None,
        conditioning: Conditioning,
    ) -> None:
        self.conditioning = conditioning
        self.model, self.clean, self.t, self.payoff = model, clean, t, payoff
        self.size, self.seed, self.draws, self.batch_size = clean.pairs.size(1), seed, draws, batch_size
        self.assumed = {}
        if not callable(payoff) and payoff not in STEP_PAYOFFS:
            raise ValueError(
                f"payoff must be one of {', '.join(STEP_PAYOFFS)} or a function, {came(payoff, STEP_PAYOFFS)}"
            )
        if (node is None) == (edge is None) and not callable(payoff):
            raise ValueError("ask about one entry of the clean graph: node=i for its type, or edge=(i, j)")
        self.entry: tuple[int, ...] = ()
        if not callable(payoff):
            given = (node,) if edge is None else tuple(edge)
            self.entry = tuple(checked_node(each, self.size) for each in given)
            if len(self.entry) > 2 or (edge is not None and len(set(self.entry)) != 2):
                raise ValueError(f"edge must be two different nodes (i, j), got {edge!r}")
            own = clean.nodes if edge is None else clean.pairs
            self.label = int(own[0][self.entry].argmax()) if label is None else checked_class(label, own.size(-1))
            if label is None:
                self.assumed["label"] = f"{self.label}, the class of this entry in the clean graph"
        generator = torch.Generator().manual_seed(seed)
        draw, process = model.process.draw, model.process
        pairs = [(draw(self.size, generator, model.like), draw(self.size, generator, model.like)) for _ in range(draws)]
        self.noised = joined([process.noised(clean, noise, t) for noise, _ in pairs])
        self.absent = process.stand(joined([other for _, other in pairs]))

    def foreseen(self, present: Presence, params: Parameters | None = None) -> State:
        """Probabilities of the clean graph, rows ordered by coalitions, then draws."""
        count = len(present.pairs)
        each = present.repeat_interleaved(self.draws)
        state = self.absent.repeated(count).beside(self.noised.repeated(count), each)
        return self._asked(state, self.t, each, params=params)

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""
        return self.numbers(self.everybody(), params)[0]

    def numbers(self, present: Presence, params: Parameters | None = None) -> Tensor:
        """The number of each coalition ``present [B, ...]``, a mean over the draws, float64 ``[B]``."""
        p = self.foreseen(present, params)
        if callable(self.payoff):
            found = one_a_row(self.payoff(p.nodes, p.pairs), len(p.pairs), "state")
        else:
            i, j = self.entry[0], self.entry[-1]
            entry = (p.nodes[:, i] if len(self.entry) == 1 else p.pairs[:, i, j])[:, self.label]
            found = entry.log() if self.payoff == "log_probability" else entry
        return found.double().view(len(present.pairs), self.draws).mean(1)


class Turn(NamedTuple):
    """A step of a run: its ``t``, the clean graph that is foreseen there, and the state after it."""

    t: int
    foreseen: State
    after: State


class GraphRunNumber(GraphNumber):
    """What a function says of the graphs that runs end in, a mean over draws; `GraphDiffusionModel.trajectory`."""

    def __init__(
        self,
        model: GraphDenoiser,
        size: int,
        payoff: Callable[..., Tensor],
        seed: int,
        draws: int,
        batch_size: int | None,
        conditioning: Conditioning,
    ) -> None:
        self.conditioning = conditioning
        self.model, self.size, self.seed, self.draws, self.batch_size = model, size, seed, draws, batch_size
        self.payoff, self.assumed = payoff, {}
        self.steps = model.process.steps
        with torch.no_grad():
            ends = self.absent_start.entries
            rows = joined([self.start, ends]) if draws == 1 else ends
            by_themselves("payoff", lambda at: self._read(State(*(part[at] for part in rows))), min(4, len(rows.pairs)))

    def _noises(self, seed: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed + draw) for draw in range(self.draws)]

    def _draw(self, generators: list[torch.Generator]) -> State:
        return joined([self.model.process.draw(self.size, each, self.model.like) for each in generators])

    @property
    def start(self) -> State:
        """The graphs that the runs start from, drawn from the limit."""
        return self.model.process.absent(self._draw(self._noises(self.seed)))

    @property
    def absent_start(self) -> Stand:
        """What stands in a start where it is taken away: draws of other seeds."""
        return self.model.process.stand(self._draw(self._noises(self.seed ^ _OTHER)))

    def _read(self, state: State) -> Tensor:
        """The payoff of each end, ``[rows]``."""
        assert callable(self.payoff)
        types, pairs = (part.argmax(-1) for part in state)
        found = self.payoff(pairs) if self.model.process.nodes is None else self.payoff(types, pairs)
        return one_a_row(found, len(pairs), "graph")

    def turns(self, present: Presence) -> Iterator[Turn]:
        """The runs, rows ordered by coalitions, then draws.

        Args:
            present: of the start, the steps and the condition, ``B`` rows. Where a step does not look, what was
                foreseen before is held to, the limit at first.
        """
        count, process = len(present.looks), self.model.process
        generators = self._noises(self.seed)
        first = process.absent(self._draw(generators)).repeated(count)
        each = present.repeat_interleaved(self.draws)
        state = self.absent_start.repeated(count).beside(first, each)
        held = process.limit(state)
        for step, t in enumerate(range(self.steps, 0, -1)):
            at = each.looks[:, step]
            if bool(at.any()):
                some = Presence(*(part[at] for part in each))
                found = self._asked(State(state.nodes[at], state.pairs[at]), t, some, step)
                held = State(
                    held.nodes.clone().index_put((at,), found.nodes), held.pairs.clone().index_put((at,), found.pairs)
                )
            state = process.step(state, held, t, self._draw(generators).repeated(count))
            yield Turn(t, held, state)

    def ends(self, present: Presence) -> State:
        """The graphs that the runs end in."""
        last = None
        for turn in self.turns(present):
            last = turn.after
        assert last is not None  # at least one step
        return last

    def numbers(self, present: Presence) -> Tensor:
        """The number of each coalition, a mean over the draws, float64 ``[B]``."""
        found = self._read(self.ends(present))
        return found.double().view(len(present.looks), self.draws).mean(1)
