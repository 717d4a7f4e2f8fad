"""The denoising loss of training labels, averaged over fixed draws of step and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from explain.graph_diffusion.copies import Copies
from explain.graph_diffusion.processes import CategoricalLabels, GaussianLabels
from explain.graph_diffusion.trained import TrainedLabelDenoiser
from explain.guard import evaluating
from explain.loaders import positions_of
from explain.payoffs import PROBED, by_themselves
from explain.training import TrainingObjective, trainable
from explain.types import Parameters, Players, Unsupported

_AT_ONCE = 2**21  # numbers of a batch of noised labels
_GIVE = (
    "give Influence(train=states), int64 [m, n], the labels of all nodes in each of them (sequences, or completions "
    "that the denoiser was trained on), or int64 [n], one of them, whose nodes are the examples"
)


class Measured(Protocol):
    """A number of a trained denoiser of labels."""

    @property
    def model(self) -> TrainedLabelDenoiser:
        """The denoiser."""

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelDenoisingObjective(TrainingObjective):
    """The denoising loss of training labels; ``told``: what was taken to be the trained loss, for the answer."""

    told: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def relabelled(self, labels: Tensor) -> NoReturn:
        """Nothing: another label is another input to the others too, not another target alone.

        Raises:
            Unsupported: always.
        """
        raise Unsupported("a label that is denoised is input and target: ask what the example does as it is, Influence")


def training_objective(number: Measured, train: Any, remove: str | Players = "labels") -> LabelDenoisingObjective:
    """``J(theta) = (1/m) sum_i l_i + weight_decay/2 |theta|^2``, ``l_i = mean_k sum_v w_v l(D(Y_ik, t_k), Y_i)_v``.

    ``Y_ik`` is the state ``Y_i [n]``, the labels of all nodes, noised to step ``t_k``; the ``K`` draws of step and
    noise are fixed and shared by all states, steps are spread evenly over the schedule, so that the loss is a function.
    ``l`` of a node is the squared error of what a Gaussian network predicts, a mean over the classes, or the
    cross-entropy of the label. Of "nodes" ``w_v = 1 / n``; of "known_and_others" one over how many are known, or not.

    Of one state its *nodes* are the examples, ``l_v = n w_v mean_k l(...)_v``: a node that is left out leaves the loss,
    and its noised label is still seen by the others.

    Args:
        number: the number in question.
        train: states int64 ``[m, n]``, a list, a dataset or a DataLoader of them, or one int64 ``[n]``.
        remove: "labels": an example leaves the loss.

    Raises:
        ValueError: no training labels, some that are none, another ``remove``, or a loss that is not one a node.
        Unsupported: nobody said what was trained.
    """
    if remove != "labels":
        raise ValueError(f'remove must be "labels" (an example leaves the training loss), got {remove!r}')
    model = number.model
    shares = model.trained.shares(model.known)
    states, positions = _read(train, model)
    noised = NoisedLabels(model, states, shares, *_draws(model))
    noised.check_own_loss()
    nodes = positions is None
    index = torch.arange(model.nodes) if positions is None else positions
    told = model.trained.told()
    if nodes:
        told["assumed"] |= {"removal": "a node leaves the loss; its noised label is still seen by the others"}
    return LabelDenoisingObjective(
        params=trainable(model.module),
        players=Players("train", index, tuple(f"{'node' if nodes else 'labels'} {i}" for i in index.tolist())),
        predict=noised.of_nodes if nodes else noised.of_states,
        labels=torch.arange(len(index), device=model.device),
        number=number.measured,
        loss_of=noised.loss_of_nodes if nodes else noised.loss_of_states,
        weight_decay=model.trained.weight_decay,
        batch_size=None if nodes else max(1, _AT_ONCE // (16 * noised.width)),
        convex=not callable(model.trained.name),
        module=model.module,
        labelled=False,
        data=(noised.states, noised.noise, noised.shares),
        told=told,
    )


@dataclass(frozen=True, eq=False)
class NoisedLabels:
    """Training labels under the fixed draws: what is predicted of each, and its loss.

    Args:
        model: the denoiser.
        states: int64 ``[m, n]``.
        shares: what each node weighs, ``[n]``.
        times: ``K`` steps.
        noise: ``[K, n, C]``.
    """

    model: TrainedLabelDenoiser
    states: Tensor
    shares: Tensor
    times: list[int]
    noise: Tensor

    @property
    def width(self) -> int:
        """How many numbers are predicted of a state."""
        return self.noise.numel()

    def of_states(self, params: Parameters, batch: Tensor) -> Tensor:
        """Predictions for the states at these positions, ``[k, K * n * C]``."""
        return self._predicted(params, self.states[batch]).flatten(1)

    def of_nodes(self, params: Parameters, batch: Tensor) -> Tensor:
        """Predictions for these nodes of the one state, ``[k, K * C]``."""
        return self._predicted(params, self.states)[0].transpose(0, 1)[batch].flatten(1)

    def loss_of_states(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The loss of the states at these positions, ``[k]``."""
        each = self._losses(outputs.view(len(batch), *self.noise.shape), self.states[batch])
        return (each.mean(1) * self.shares.to(each)).sum(1)

    def loss_of_nodes(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The loss of these nodes, ``[k]``; that of the state is their mean.

        What the others predict is not among the outputs: a loss of the user's own sees these nodes alone.
        """
        steps, nodes, classes = self.noise.shape
        whole = outputs.new_zeros(nodes, steps * classes).index_copy(0, batch, outputs)
        each = self._losses(whole.view(nodes, steps, classes).transpose(0, 1)[None], self.states)
        return (each[0].mean(0) * self.shares.to(each) * nodes)[batch]

    def _noised(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The states noised by each draw, and what the network's answer is compared with, ``[k, K, n, C]`` each."""
        process, classes = self.model.process, self.model.classes
        assert process is not None
        Y = F.one_hot(states, classes).to(self.noise)
        noised = [process.noised(Y, t, e) for t, e in zip(self.times, self.noise, strict=True)]
        if isinstance(process, CategoricalLabels):
            return torch.stack(noised, 1), Y[:, None].expand(-1, len(self.times), -1, -1)
        assert isinstance(process, GaussianLabels)
        scaled = process.low + (process.high - process.low) * Y
        pairs = zip(self.times, self.noise, strict=True)
        wanted = [process.process.wanted(scaled, e.expand_as(Y), torch.tensor(t)) for t, e in pairs]
        return torch.stack(noised, 1), torch.stack(wanted, 1)

    def _predicted(self, params: Parameters, states: Tensor) -> Tensor:
        """What the network answers to each draw, ``[k, K, n, C]``."""
        model, noised = self.model, self._noised(states)[0]
        assert model.network is not None
        alone = not model.batched and len(states) > 1
        found = []
        with evaluating(model.module):
            for step, t in enumerate(self.times):
                parts = noised[:, step].split(1 if alone else len(states))
                answers = [model.network(self._graph(len(y)), y.flatten(0, 1), t, params).view_as(y) for y in parts]
                found.append(torch.cat(answers))
        return torch.stack(found, 1)

    def _graph(self, copies: int) -> Any:
        return self.model.union(Copies(self.model.known.expand(copies, -1)))

    def _losses(self, predictions: Tensor, states: Tensor) -> Tensor:
        """The loss of each node under each draw, ``[k, K, n]``."""
        noised, wanted = self._noised(states)
        own = self.model.trained.name
        if callable(own):
            times = torch.tensor(self.times, device=noised.device).repeat(len(states))
            given = (predictions.flatten(0, 1), wanted.flatten(0, 1), noised.flatten(0, 1), times)
            return self._one_a_node(own(*given), predictions).view(predictions.shape[:-1])
        if isinstance(self.model.process, CategoricalLabels):
            return -(wanted * predictions.log_softmax(-1)).sum(-1)
        return (predictions - wanted).square().mean(-1)

    def _one_a_node(self, found: Any, predictions: Tensor) -> Tensor:
        """The answer of the user's own loss.

        Raises:
            ValueError: it is not one number for each node.
        """
        size = [predictions.size(0) * predictions.size(1), predictions.size(2)]
        if not isinstance(found, Tensor) or list(found.shape) != size:
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"loss must give one number a node of each noised state, {size}, got {got}")
        return found

    def check_own_loss(self) -> None:
        """Check that a loss of the user's own is that of each node by itself.

        Raises:
            ValueError: it is random, looks across rows or nodes, or does not give one number for each node.
        """
        own = self.model.trained.name
        if not callable(own):
            return
        with torch.no_grad():
            predictions = self._predicted(trainable(self.model.module), self.states[:1])
            noised, wanted = self._noised(self.states[:1])
        rows = min(PROBED, len(self.times))
        spread = torch.linspace(0, len(self.times) - 1, rows).long()
        parts = [part[0, spread] for part in (predictions, wanted, noised)]
        times = torch.tensor(self.times, device=noised.device)[spread]

        def asked(at: Any, nodes: slice = slice(None)) -> Tensor:
            prediction, target, seen = (part[at, nodes].clone() for part in parts)
            return self._one_a_node(own(prediction, target, seen, times[at]), prediction[None])

        with torch.no_grad():
            by_themselves("loss", lambda at: asked(at).flatten(1).mean(1), rows)
            by_themselves("loss", lambda at: asked(slice(None), at).mean(0), self.model.nodes)


def _draws(model: TrainedLabelDenoiser) -> tuple[list[int], Tensor]:
    """The fixed steps and the noise ``[K, n, C]``."""
    count, process = model.trained.draws, model.process
    assert process is not None
    steps = sorted(process.times)
    times = [steps[int((draw + 0.5) / count * len(steps))] for draw in range(count)]
    generator = torch.Generator().manual_seed(0)
    return times, process.draw((count, model.nodes, model.classes), generator).to(model.labels)


def _read(train: Any, model: TrainedLabelDenoiser) -> tuple[Tensor, Tensor | None]:
    """The states ``[m, n]`` and their positions in the data set, None where the nodes of one are the examples.

    Raises:
        ValueError: none, or labels that are no classes of all nodes.
    """
    if train is None:
        raise ValueError(f"which labels was the model trained on? {_GIVE}")
    positions = positions_of(train) if isinstance(train, DataLoader) else None
    given: Any = train.dataset if isinstance(train, DataLoader) else train
    if not isinstance(given, Tensor):
        positions = torch.arange(len(given)) if positions is None else positions
        given = torch.stack([torch.as_tensor(given[at]) for at in positions.tolist()]) if len(positions) else given
    if not isinstance(given, Tensor) or given.dim() not in (1, 2) or given.size(-1) != model.nodes or not len(given):
        got = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(f"training labels are int64 [m, {model.nodes}] or [{model.nodes}], got {got}: {_GIVE}")
    if given.is_floating_point() or int(given.min()) < 0 or int(given.max()) >= model.classes:
        raise ValueError(
            f"training labels must be classes from 0 to {model.classes - 1} of every node, got {float(given.min()):g} "
            f"to {float(given.max()):g}: labels that training drew are those that it drew, complete them"
        )
    one = given.dim() == 1
    states = given.long().to(model.device).view(-1, model.nodes)
    return states, None if one else torch.arange(len(states)) if positions is None else positions
