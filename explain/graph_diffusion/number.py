"""The numbers: what runs end in on edited copies of the graph, and what one step foresees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Data

from explain.graph_diffusion.copies import Copies
from explain.graph_diffusion.processes import CategoricalLabels, GaussianLabels, LabelProcess
from explain.graph_diffusion.sampling import Moment, run, spaced
from explain.graph_diffusion.settings import absent_features, checked_class, checked_node
from explain.graph_diffusion.trained import TrainedLabelDenoiser
from explain.guard import evaluating, other_random_states
from explain.payoffs import one_a_row, probed
from explain.spelling import came
from explain.types import Parameters, Unsupported

Payoff: TypeAlias = str | Callable[[Tensor], Tensor]
RUN_PAYOFFS = ("probability", "state")
STEP_PAYOFFS = ("log_probability", "probability", "x0")
_BUDGET = 2**21  # numbers of nodes and edges in one forward pass


class LabelNumber:
    """What both numbers are made of: the model, the node and its label, the seed, and what absent features show."""

    model: TrainedLabelDenoiser
    node: int | None
    label: int | None
    payoff: Payoff
    seed: int
    draws: int
    baseline: str
    batch_size: int | None
    assumed: dict[str, str]

    @property
    def graph(self) -> Data:
        """The graph."""
        return self.model.graph

    @property
    def whole(self) -> Copies:
        """The graph as it is, one copy."""
        return self.model.asked()

    @property
    def absent_features(self) -> Tensor:
        """What stands where features are taken away, ``[F]``."""
        return absent_features(self.graph.x, self.baseline)

    @property
    def batch(self) -> int:
        """Coalitions in one forward pass."""
        each = self.model.nodes * (self.model.classes + self.graph.num_node_features) + self.graph.edge_index.numel()
        return self.batch_size or max(1, min(4096, _BUDGET // (each * self.draws)))

    def numbers(self, copies: Copies, differentiable: bool = False) -> Tensor:
        """The number of each copy, a mean over the draws, float64 ``[B]``."""
        raise NotImplementedError

    def _settle(self, node: Any, label: Any, payoff: Payoff | None, names: tuple[str, ...], default: str) -> None:
        """Check who is asked about, and what.

        Raises:
            ValueError: an unknown payoff or node, or no node for a payoff that is of one.
        """
        self.payoff = default if payoff is None else payoff
        if not callable(self.payoff) and self.payoff not in names:
            raise ValueError(
                f"payoff must be one of {', '.join(names)} or a function of the labels [n, nodes, classes] -> [n], "
                f"{came(payoff, names)}"
            )
        if node is None and not callable(self.payoff):
            raise ValueError(f"payoff={self.payoff!r} is of a node's label: give node=, or a function of all labels")
        self.node = None if node is None else checked_node(node, self.model.nodes)
        self.label = None if label is None else checked_class(label, self.model.classes)

    def _read(self, found: Tensor) -> Tensor:
        """The payoff of each state ``[rows, n, C]``, ``[rows]``."""
        if callable(self.payoff):
            return one_a_row(self.payoff(found.clone()), len(found), "sample")
        entry = found[:, self.node]
        if self.payoff == "probability" and isinstance(self, RunNumber):
            return entry.argmax(-1).eq(self.label if self.label is not None else -1).to(entry)
        return entry[:, self.label].log() if self.payoff == "log_probability" else entry[:, self.label]


class RunNumber(LabelNumber):
    """The number that runs end in, a mean over ``draws`` of them; see `LabelDiffusionModel.trajectory`.

    Run ``i`` of every copy meets the noise of ``seed + i``.
    """

    def __init__(
        self,
        model: TrainedLabelDenoiser,
        node: int | None,
        label: int | None,
        payoff: Payoff | None,
        seed: int,
        draws: int,
        steps: int,
        process: LabelProcess | None,
        constrained: bool,
        baseline: str,
        batch_size: int | None,
    ) -> None:
        self.model, self.seed, self.draws, self.steps = model, seed, draws, steps
        self.process, self.constrained, self.baseline, self.batch_size = process, constrained, baseline, batch_size
        self.assumed = {}
        self.times = [] if process is None else spaced(process.times, steps)
        self._settle(node, label, payoff, RUN_PAYOFFS, "probability")
        if process is None:
            self._check_repeats()
        if callable(self.payoff):
            with torch.no_grad():
                probed(self.payoff, self.samples(self.whole)[0])
        if self.node is not None and self.label is None:
            self.label = int(self.marginals()[self.node].argmax())
            self.assumed["label"] = f"{self.label}, where most of the runs end"
        if self.node is not None and bool(model.known[self.node]):
            self.assumed["node"] = f"the label of node {self.node} is known: it is held to, and plays"

    def _check_repeats(self) -> None:
        """Call the user's sampler twice, with the same generator in other global random states.

        Raises:
            ValueError: the two answers differ.
        """
        first, second = (self._own(self.whole, self.seed, seed) for seed in (0, 1))
        if not torch.equal(first, second):
            raise ValueError(
                "the sampler is random beyond the generator that it is given: draw with generator=generator, so that "
                "every coalition meets the same noise"
            )

    def _own(self, copies: Copies, seed: int, state: int | None = None) -> Tensor:
        """The user's sampler on one copy, ``[n, C]``.

        Raises:
            ValueError: it fails on this copy, or answers no label a node.
            OutOfMemoryError: as torch raises it.
        """
        model = self.model
        known = torch.where(copies.known[0], model.truth, -1)
        try:
            with other_random_states(seed if state is None else state), evaluating(model.module):
                generator = torch.Generator().manual_seed(seed)
                found = model.sampler(model.net, model.union(copies), known, generator)  # type: ignore[misc]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a user's function raises
            raise ValueError(
                f"sampler(network, graph, known, generator) failed on this graph with {int(copies.known.sum())} known "
                f"labels (known int64 [{model.nodes}], -1 where not; so is graph.{model.label}): "
                f"{type(error).__name__}: {error}"
            ) from error
        if isinstance(found, Tensor) and found.shape == (model.nodes,) and not found.is_floating_point():
            return torch.nn.functional.one_hot(found.long(), model.classes).to(model.labels)
        if isinstance(found, Tensor) and found.shape == (model.nodes, model.classes):
            return found.detach()
        got = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"sampler must return classes int64 [{model.nodes}] or scores [{model.nodes}, {model.classes}], got {got}"
        )

    def moments(self, copies: Copies, draws: int | None = None, differentiable: bool = False) -> Iterator[Moment]:
        """The runs of these copies, rows ordered by copies, then draws.

        Raises:
            Unsupported: the runs are the user's own.
        """
        model, draws = self.model, draws or self.draws
        if self.process is None or model.network is None:
            raise Unsupported("this run is your own sampler, whose steps are not seen: ask with betas= or process=")
        network, rows = model.network, copies.repeated(draws)
        graph = model.union(rows)

        with evaluating(model.module):
            yield from run(
                lambda y, t: network(graph, y, t),
                self.process,
                rows,
                model.labels,
                [self.seed + i for i in range(draws)] * len(copies),
                self.times,
                self.constrained,
                differentiable,
            )

    def samples(self, copies: Copies, draws: int | None = None, differentiable: bool = False) -> Tensor:
        """What the runs end in, ``[B, draws, n, C]``: 1 where a label is sure, 0 where another is."""
        draws = draws or self.draws
        if self.process is None:
            found = [
                self._own(copies.one(row), self.seed + draw) for row in range(len(copies)) for draw in range(draws)
            ]
            return torch.stack(found).view(len(copies), draws, self.model.nodes, -1)
        if not self.model.batched and len(copies) * draws > 1:
            return self._one_by_one(copies, draws, differentiable)
        last = None
        for moment in self.moments(copies, draws, differentiable):
            last = moment.after
        assert last is not None  # at least one step
        return self.process.read(last).view(len(copies), draws, self.model.nodes, -1)

    def _one_by_one(self, copies: Copies, draws: int, differentiable: bool) -> Tensor:
        seed, found = self.seed, []
        try:
            for row in range(len(copies)):
                for draw in range(draws):
                    self.seed = seed + draw
                    found.append(self.samples(copies.one(row), 1, differentiable)[0])
        finally:
            self.seed = seed
        return torch.cat(found).view(len(copies), draws, self.model.nodes, -1)

    def numbers(self, copies: Copies, differentiable: bool = False) -> Tensor:
        """The number of each copy, a mean over the draws, float64 ``[B]``."""
        values = self._read(self.samples(copies, differentiable=differentiable).flatten(0, 1))
        return values.double().view(len(copies), self.draws).mean(1)

    def marginals(self) -> Tensor:
        """The share of runs in which each node ends as each class, ``[n, C]``."""
        with torch.no_grad():
            ends = self.samples(self.whole)[0].argmax(-1)
        return torch.nn.functional.one_hot(ends, self.model.classes).double().mean(0)


class StepNumber(LabelNumber):
    """The number that a step foresees of a noised label matrix, a mean over draws; see `LabelDiffusionModel.step`."""

    def __init__(
        self,
        model: TrainedLabelDenoiser,
        state: Tensor,
        t: int,
        node: int | None,
        label: int | None,
        payoff: Payoff | None,
        seed: int,
        draws: int,
        baseline: str,
        batch_size: int | None,
    ) -> None:
        if model.process is None:
            raise Unsupported("a model with a sampler= of its own has no steps to ask about: give betas= or process=")
        self.model, self.state, self.t, self.seed, self.draws = model, state, t, seed, draws
        self.process: LabelProcess = model.process
        self.baseline, self.batch_size, self.assumed = baseline, batch_size, {}
        gaussian = isinstance(model.process, GaussianLabels)
        names = STEP_PAYOFFS[2:] if gaussian else STEP_PAYOFFS[:2]
        self._settle(node, label, payoff, names, names[0])
        generator = torch.Generator().manual_seed(seed)
        size = (draws, model.nodes, model.classes)
        noise, other = (self.process.draw(size, generator).to(model.labels) for _ in range(2))
        Y = torch.nn.functional.one_hot(state, model.classes).to(model.labels).expand(size)
        self.noised, self.absent = self.process.noised(Y, t, noise), self.process.absent(t, noise, other)
        with torch.no_grad():
            if callable(self.payoff):
                probed(self.payoff, self.foreseen(self.whole, None))
            if self.node is not None and self.label is None:
                self.label = int(self.foreseen(self.whole, None)[:, self.node].mean(0).argmax())
                self.assumed["label"] = f"{self.label}, the one that is foreseen"

    def foreseen(self, copies: Copies, present: Tensor | None, params: Parameters | None = None) -> Tensor:
        """The clean labels in the network's answer, ``[B * draws, n, C]``; ``present [B, n]``: whose label is there."""
        model = self.model
        assert model.network is not None
        y = self.noised.expand(len(copies), *self.noised.shape)
        if present is not None:
            y = torch.where(present[:, None, :, None], y, self.absent)
        y = y.flatten(0, 1)
        if not model.batched and len(y) > 1:
            rows = copies.repeated(self.draws)
            return torch.cat([self._answered(rows.one(row), y[row : row + 1], params) for row in range(len(y))])
        return self._answered(copies.repeated(self.draws), y, params)

    def _answered(self, rows: Copies, y: Tensor, params: Parameters | None = None) -> Tensor:
        assert self.model.network is not None
        with evaluating(self.model.module):
            prediction = self.model.network(self.model.union(rows), y.flatten(0, 1), self.t, params)
        found = self.process.foreseen(y, prediction.view_as(y), self.t)
        return found if isinstance(self.process, CategoricalLabels) else self.process.read(found)

    def numbers(
        self,
        copies: Copies,
        differentiable: bool = False,
        present: Tensor | None = None,
        params: Parameters | None = None,
    ) -> Tensor:
        """The number of each copy, a mean over the draws, float64 ``[B]``; of ``params`` in place of the network's."""
        return self._read(self.foreseen(copies, present, params)).double().view(len(copies), self.draws).mean(1)

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""
        return self.numbers(self.whole, params=params)[0]
