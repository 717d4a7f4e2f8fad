"""The denoising loss of a training graph, averaged over fixed draws of step and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from explain.graph.tensors.members import Members
from explain.graph_diffusion.graph_network import GraphDenoiser
from explain.graph_diffusion.graph_states import State, read_graph
from explain.guard import evaluating, other_random_states
from explain.loaders import positions_of
from explain.payoffs import PROBED, by_themselves, one_a_row
from explain.training import TrainingObjective, trainable
from explain.types import Parameters, Players, Unsupported

_AT_ONCE = 2**22  # numbers of a batch of training graphs, noised


class Measured(Protocol):
    """A number of a trained denoiser of graphs."""

    @property
    def model(self) -> GraphDenoiser:
        """The denoiser."""

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphDenoisingObjective(TrainingObjective):
    """The denoising loss of training graphs; ``told``: what was taken to be the trained loss, for the answer."""

    told: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def relabelled(self, labels: Tensor) -> NoReturn:
        """Nothing: what is learned of a graph is the graph itself.

        Raises:
            Unsupported: always.
        """
        raise Unsupported("graphs that are denoised have no labels: ask what a whole training graph does, Influence")


def training_objective(number: Measured, train: Any, remove: str | Players = "labels") -> GraphDenoisingObjective:
    """``J(theta) = (1/n) sum_i l_i + weight_decay/2 |theta|^2`` with ``l_i = mean_k l(D(G_ik, t_k), G_i)``.

    ``G_ik`` is graph ``i`` noised to step ``t_k``. The ``K`` draws of step and noise are fixed and shared by all
    graphs, a smaller one meets the noise of its first nodes and pairs: steps are spread evenly over the schedule, noise
    comes from a seed, so that the loss is a function. Of "entries" ``l_i = n (CE_X,i / N_X + w CE_E,i / N_E)``, sums
    over the nodes and pairs of the graph, and ``N`` how many there are in all graphs; of "graphs"
    ``l_i = CE_X,i / n_i + w CE_E,i / (n_i (n_i - 1))``. What a graph that is left out had in ``N`` stays in it.

    Args:
        number: the number in question.
        train: graphs, see `read_graph`; a list, a dataset, a DataLoader, or classes of pairs ``[m, n, n]``.
        remove: "labels": a graph leaves the loss.

    Raises:
        ValueError: no training graphs, one that cannot be read, another ``remove``, or graphs that are others each
            time.
        Unsupported: nobody said what was trained, or a network that was trained with conditions.
    """
    if remove != "labels":
        raise ValueError(f'remove must be "labels" (a graph leaves the training loss), got {remove!r}')
    model = number.model
    if model.condition is not None:
        raise Unsupported(
            f"this denoiser takes a condition, {model.condition}, and with which one each training graph was met, and "
            "how often without, is in no graph: of which parts of a graph, steps and conditions the number is made is "
            "asked by Shapley, Lime or Occlusion. Trained without any: give call=lambda net, X, E, t: net(E, t)"
        )
    weight = model.trained.weight_of(model.process)
    graphs, positions = _read(train, model)
    noised = NoisedGraphs(model, tuple(_of_one_size(graphs)), *draws(model, graphs), weight)
    noised.check_own_loss()
    return GraphDenoisingObjective(
        params=trainable(model.module),
        players=Players("train", positions, tuple(f"graph {i}" for i in positions.tolist())),
        predict=noised.predict,
        labels=torch.arange(len(graphs), device=model.like.device),
        number=number.measured,
        loss_of=noised.loss,
        weight_decay=model.trained.weight_decay,
        batch_size=max(1, _AT_ONCE // (16 * noised.width)),
        convex=not callable(model.trained.name),
        module=model.module,
        labelled=False,
        data=(noised.times, *noised.noise, *(part for own in noised.groups for part in own.clean)),
        told=model.trained.told(),
    )


class Group(NamedTuple):
    """Training graphs of one size: the clean ones, rows of a state, and their positions ``[m]`` among all."""

    clean: State
    positions: Tensor


@dataclass(frozen=True, eq=False)
class NoisedGraphs:
    """The training graphs under the fixed draws: what is predicted of ``K`` noised copies of each, and its loss.

    Graphs are never padded: each size is asked by itself. Predictions of a smaller one end in zeros.

    Args:
        model: the denoiser.
        groups: the graphs.
        times: ``[K]``.
        noise: of the largest graph, ``K`` rows.
        pairs_weight: ``w``.
    """

    model: GraphDenoiser
    groups: tuple[Group, ...]
    times: Tensor
    noise: State
    pairs_weight: float

    @property
    def width(self) -> int:
        """How many numbers are predicted of a graph."""
        return self.noise.nodes.numel() + self.noise.pairs.numel()

    def predict(self, params: Parameters, batch: Tensor) -> Tensor:
        """Logits for the graphs at these positions, ``[k, K * numbers]``."""
        return self._each(batch, lambda group, rows, at: self._logits(group, rows, params))

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The loss of the graphs at these positions, ``[k]``."""
        return self._each(batch, lambda group, rows, at: self._loss(group, rows, outputs[at]))

    def _each(self, batch: Tensor, answer: Callable[[Group, Tensor, Any], Tensor]) -> Tensor:
        """``answer(group, rows in it, places in the batch)``, one row a graph, in the order of the batch."""
        if len(self.groups) == 1:
            return answer(self.groups[0], batch, slice(None))
        parts, places = [], []
        for group in self.groups:
            own = torch.isin(batch, group.positions).nonzero()[:, 0]  # no shape that vmap could follow: one by one
            if len(own):
                parts.append(answer(group, torch.searchsorted(group.positions, batch[own]), own))
                places.append(own)
        return torch.cat(parts)[torch.cat(places).argsort()]

    def _noised(self, group: Group, rows: Tensor) -> tuple[State, State, Tensor]:
        """The clean and the noised graphs, and their steps; a row for each graph and draw."""
        count, n = len(rows), group.clean.nodes.size(1)
        clean = State(*(part[rows].repeat_interleave(len(self.times), 0) for part in group.clean))
        noise = State(self.noise.nodes[:, :n], self.noise.pairs[:, :n, :n]).repeated(count)
        times = self.times.repeat(count)
        return clean, self.model.process.noised(clean, noise, times), times

    def _logits(self, group: Group, rows: Tensor, params: Parameters) -> Tensor:
        _, noised, times = self._noised(group, rows)
        with evaluating(self.model.module):
            logits = self.model.logits(noised, times, params)
        flat = torch.cat([part.reshape(len(rows), -1) for part in logits], 1)
        return torch.nn.functional.pad(flat, (0, self.width - flat.size(1)))

    def _loss(self, group: Group, rows: Tensor, outputs: Tensor) -> Tensor:
        clean, _, times = self._noised(group, rows)
        nodes = clean.nodes.numel() // len(rows)
        logits = State(
            outputs[:, :nodes].reshape(clean.nodes.shape),
            outputs[:, nodes : nodes + clean.pairs.numel() // len(rows)].reshape(clean.pairs.shape),
        )
        own = self.model.trained.name
        each = own(logits, clean, times) if callable(own) else self._cross_entropy(logits, clean)
        return one_a_row(each, len(times), "noised graph", "loss").view(len(rows), -1).mean(1)

    def _cross_entropy(self, logits: State, clean: State) -> Tensor:
        of_nodes, of_pairs = (-(y * z.log_softmax(-1)).sum(-1) for z, y in zip(logits, clean, strict=True))
        n = clean.nodes.size(1)
        of_pairs = of_pairs * ~torch.eye(n, dtype=torch.bool, device=of_pairs.device)
        nodes, pairs = self._counts if self.model.trained.name == "entries" else (n, n * (n - 1))
        return of_nodes.sum(-1) / nodes + self.pairs_weight * of_pairs.sum((1, 2)) / pairs

    @property
    def _counts(self) -> tuple[float, float]:
        """How many nodes, and pairs both ways, a graph has in the mean."""
        sizes = [(len(group.positions), group.clean.nodes.size(1)) for group in self.groups]
        total = sum(count for count, _ in sizes)
        return sum(m * n for m, n in sizes) / total, sum(m * n * (n - 1) for m, n in sizes) / total

    def check_own_loss(self) -> None:
        """Check that a loss of the user's own is one number a noised graph, by itself.

        Raises:
            ValueError: it is random, looks across rows, or does not give one number for each.
        """
        own, group = self.model.trained.name, self.groups[0]
        if not callable(own):
            return
        states = self._noised(group, torch.zeros(1, dtype=torch.long, device=self.times.device))
        spread = torch.linspace(0, len(self.times) - 1, min(PROBED, len(self.times))).long()  # steps of all kinds
        clean, noised = (State(*(part[spread] for part in state)) for state in states[:2])
        times = self.times[spread]
        with torch.no_grad(), evaluating(self.model.module):
            logits = self.model.logits(noised, times)

        def asked(at: slice) -> Tensor:
            some, truth = (State(*(part[at].clone() for part in state)) for state in (logits, clean))
            return one_a_row(own(some, truth, times[at]), len(times[at]), "noised graph", "loss")

        by_themselves("loss", asked, len(times))


def draws(model: GraphDenoiser, graphs: Sequence[State]) -> tuple[Tensor, State]:
    """The fixed steps ``[K]`` and noise, ``K`` rows of the largest graph's size."""
    count, steps = model.trained.draws, model.process.steps
    largest = max(graph.nodes.size(1) for graph in graphs)
    times = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * steps).long() + 1
    generator = torch.Generator().manual_seed(0)
    each = [model.process.draw(largest, generator, model.like) for _ in range(count)]
    return times.to(model.like.device), State(*(torch.cat(parts) for parts in zip(*each, strict=True)))


def _of_one_size(graphs: Sequence[State]) -> Iterator[Group]:
    sizes = torch.tensor([graph.nodes.size(1) for graph in graphs])
    for size in sizes.unique().tolist():
        positions = (sizes == size).nonzero()[:, 0]
        own = [graphs[at] for at in positions.tolist()]
        clean = State(*(torch.cat(parts) for parts in zip(*own, strict=True)))
        yield Group(clean, positions.to(clean.pairs.device))


def _read(train: Any, model: GraphDenoiser) -> tuple[list[State], Tensor]:
    """The graphs as states of one row each, and their positions in the data set.

    Raises:
        ValueError: none, one that cannot be read, or others each time.
    """
    if train is None:
        raise ValueError("which graphs was the model trained on? give Influence(train=graphs)")
    positions = positions_of(train) if isinstance(train, DataLoader) else None
    given: Any = train.dataset if isinstance(train, DataLoader) else train
    given = Members(given) if isinstance(given, Batch) else given
    positions = torch.arange(len(given)) if positions is None else positions
    if not len(positions):
        raise ValueError("there are no training graphs: give Influence(train=graphs)")

    def state(at: int) -> State:
        try:
            return read_graph(given[at], model.process.classes, model.like)
        except (TypeError, ValueError) as error:
            raise ValueError(f"training graph {at} cannot be read: {error}") from error

    def some(seed: int) -> list[Tensor]:
        with other_random_states(seed):
            return [part for at in positions[:PROBED].tolist() for part in state(at)]

    if not all(torch.equal(a, b) for a, b in zip(some(0), some(1), strict=True)):
        raise ValueError(
            "the training set gives another graph each time it is asked: turn its random augmentation off, as "
            "influence is that of fixed examples"
        )
    return [state(at) for at in positions.tolist()], positions
