"""What was trained, in any family: ``J(theta)`` over the examples, and the number in question, for `Influence`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from explain.examples import Rows, pieces
from explain.losses import (
    Link,
    Trained,
    alternatives,
    binary_cross_entropy,
    cross_entropy,
    focal,
    itself,
    trained_loss,
)
from explain.outputs import Meaning
from explain.payoffs import PROBED, by_themselves
from explain.types import Parameters, Players, Suspect, Unsupported

CLASSES = 20  # up to so many may have weights of their own that are looked for
FOCUS = (1.0, 2.0, 5.0)  # gammas of the focal loss that are looked for
_AS_CALLABLE = "give it as a callable, explain.wrap(..., loss=lambda outputs, labels: ...), with reduction='none'"


def trainable(module: nn.Module) -> Parameters:
    """The parameters that were trained, detached, by name: frozen ones left out, tied ones once.

    Give them to ``torch.func.functional_call``: what is not among them (frozen parameters, buffers) stays constant.

    Raises:
        ValueError: every parameter is frozen.
        Unsupported: a torch.jit module, which ``functional_call`` refuses.

    >>> list(trainable(nn.Linear(2, 1)))
    ['weight', 'bias']
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise Unsupported(
            "parameters of a torch.jit module cannot be replaced by others: give the module it was made from, or one "
            "around it, torch.nn.Sequential(model)"
        )
    params = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    if not params:
        raise ValueError(
            "the model has no parameter with requires_grad=True, so no training example can have moved it: unfreeze "
            "the ones that were trained (parameter.requires_grad_(True)), or name them, Influence(parameters=...)"
        )
    return params


def example_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of logits where labels are classes: cross entropy; of values where they are real numbers: their squared error.

    For those who know which of the two it is; a wrapped model's is `trained_loss`.

    >>> example_loss(torch.zeros(1, 4), torch.tensor([2]))
    tensor([1.3863])
    """
    if labels.is_floating_point():
        return (outputs - labels.reshape(outputs.shape).to(outputs.dtype)).square().flatten(1).mean(1)
    return (binary_cross_entropy if outputs.size(1) == 1 else cross_entropy)(outputs, labels.long())


def other_losses(taken: Trained, meaning: Meaning, labels: Tensor) -> list[Suspect]:
    """The other losses that these labels could have been trained with, those with weights of the classes last."""
    found = [
        Suspect("loss", each.name, partial(_with_loss, each), f"explain.wrap(..., {each.option})")
        for each in alternatives(taken, meaning, labels)
    ]
    if taken.name not in ("cross_entropy", "bce"):
        return found
    classes = not taken.labels.is_floating_point()
    focused = {gamma: replace(taken, loss_of=focal(taken.name, gamma)) for gamma in FOCUS}
    if classes or taken.name == "bce":
        found += [
            Suspect("loss", f"the focal loss of gamma={gamma:g}", partial(_with_loss, each), _AS_CALLABLE)
            for gamma, each in focused.items()
        ]
    return [*found, *_weighted(taken, focused, meaning, labels)] if classes else found


def _weighted(taken: Trained, focused: dict[float, Trained], meaning: Meaning, labels: Tensor) -> Iterator[Suspect]:
    """The loss taken, and the focal loss, with weights of the classes; the loss with smoothed labels."""
    sizes = taken.labels.bincount().double()
    if 1 < int((sizes > 0).sum()) <= CLASSES:
        weights = partial(_class_weights, sizes / sizes.sum())
        yield Suspect("weights", f"{taken.name} with class weights", _each_class, _AS_CALLABLE, weights)
        for gamma, each in focused.items():
            name = f"the focal loss of gamma={gamma:g} with class weights"
            yield Suspect("weights", name, partial(_each_class, trained=each), _AS_CALLABLE, weights)
    if taken.name == "cross_entropy":
        uniform = torch.full((len(labels), meaning.count), 1 / meaning.count, device=labels.device)
        smooth = partial(_with_loss, trained_loss("cross_entropy", meaning, uniform))
        yield Suspect(
            "weights",
            "cross_entropy with label_smoothing",
            lambda objective: [objective, smooth(objective)],
            _AS_CALLABLE,
            lambda shares: f"={shares[1]:.2g}",
        )


def _each_class(objective: TrainingObjective, trained: Trained | None = None) -> list[TrainingObjective]:
    """The mean loss over each class alone, of this loss or of another."""
    made = objective if trained is None else _with_loss(trained, objective)
    labels = made.labels.reshape(-1)
    masks = [labels == label for label in labels.unique()]
    return [replace(made, weights=mask.double() * (len(labels) / int(mask.sum()))) for mask in masks]


def _class_weights(frequencies: Tensor, shares: Sequence[float]) -> str:
    """The weights of the classes that there are, of mean 1 over the examples."""
    weights = torch.tensor(shares, dtype=torch.double) / frequencies[frequencies > 0].cpu()
    return f" {', '.join(f'{weight:.2g}' for weight in weights.tolist())}"


def _with_loss(trained: Trained, objective: TrainingObjective) -> TrainingObjective:
    return replace(objective, loss_of=trained.loss_of, labels=trained.labels, link=trained.link)


def check_own_loss(objective: TrainingObjective) -> None:
    """Check that a loss of the user's own is a function of each example alone, on a few of them.

    Raises:
        ValueError: it is random, looks across examples, or does not give one number for each.
    """
    if objective.convex:  # one of ours
        return
    few = torch.arange(min(PROBED, objective.size), device=objective.labels.device)
    with torch.no_grad():
        outputs = objective.outputs(objective.params, few)
    by_themselves("loss", lambda at: objective.loss(outputs[at], few[at]), len(few))


@dataclass(frozen=True, eq=False)
class TrainingObjective:
    """``J(theta) = (1/n) sum_i weights_i loss_i(theta) + weight_decay/2 |theta|^2``, and the number in question.

    Args:
        params: the trained parameters, as `trainable` gives them.
        players: the ``n`` training examples, kind "train".
        predict: ``(params, positions int64 [examples]) -> outputs [examples, outputs]``, a pure function.
        labels: ``[n]`` classes, or ``[n, ...]`` real targets.
        number: ``params -> scalar``, what is being explained; without the penalty.
        loss_of: ``(link(outputs), labels) -> [examples]``.
        weight_decay: as in ``torch.optim.SGD``.
        batch_size: examples evaluated together, all when None; never changes a result beyond rounding.
        weights: ``[n]``, 1 each when None; an example that was taken away has 0.
        convex: whether ``loss_of`` is known to be convex in what it takes; families say no for a user's own loss.
        module: what ``params`` are the parameters of, by the same names, for methods that watch its layers.
        data: what else ``predict`` reads, so that a change of it can be noticed.
        suspects: what else the model may have been trained with, asked only where the gradient does not vanish.
        labelled: whether others may stand in for ``labels``; not where these only say which example it is.
        link: from what ``predict`` gives, row by row, to what ``loss_of`` takes: probabilities to logits.

    Raises:
        ValueError: no training examples, or one of these does not have one row an example.

    >>> data = torch.tensor([[1.0], [3.0]])
    >>> one = TrainingObjective({"m": torch.tensor([2.0])}, Players("train", torch.arange(2)),
    ...                         lambda p, at: p["m"].expand(len(at), 1), data, lambda p: p["m"].sum())
    >>> one.train_loss(one.params, torch.arange(2)), one.edited(0).train_loss(one.params, torch.arange(2))
    (tensor([1., 1.]), tensor([0., 1.]))
    """

    params: Parameters
    players: Players
    predict: Callable[[Parameters, Tensor], Tensor]
    labels: Tensor
    number: Callable[[Parameters], Tensor]
    loss_of: Callable[[Tensor, Tensor], Tensor] = example_loss
    weight_decay: float = 0.0
    batch_size: int | None = None
    weights: Tensor | None = None
    convex: bool = True
    module: nn.Module | None = None
    data: tuple[Tensor | Rows, ...] = ()
    labelled: bool = True
    suspects: Callable[[], list[Suspect]] = list
    link: Link = itself

    def __post_init__(self) -> None:
        if not len(self.players):
            raise ValueError("there are no training examples: give train=, or mark them in the data")
        for what, found in (("labels", self.labels), ("weights", self.weights)):
            if found is not None and len(found) != len(self.players):
                raise ValueError(f"{len(self.players)} training examples need as many {what}, got {len(found)}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 or None, got {self.batch_size}")

    @property
    def size(self) -> int:
        """``n``, the number of training examples; it stays when one is taken away."""
        return len(self.players)

    @property
    def train(self) -> Any:
        """The training set as it was read and checked, for another number of the same model; None if no one gave it."""
        return None

    def content(self) -> Iterator[Tensor]:
        """All that the training examples are, in pieces that fit in memory: equal content is the same training set."""
        for part in (self.labels, self.players.index, *self.data):
            yield from pieces(part)
        if self.weights is not None:
            yield self.weights

    @property
    def local(self) -> bool:
        """Players are the training examples: one that is taken away takes its own loss and nothing else."""
        return True

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Positions ``int64 [examples]`` that cover the training set once, in order, or shuffled by a generator."""
        order = torch.arange(self.size) if generator is None else torch.randperm(self.size, generator=generator)
        yield from order.to(self.labels.device).split(batch_size or self.batch_size or self.size)

    def outputs(self, params: Parameters, batch: Tensor) -> Tensor:
        """The model's outputs for these training examples as the loss takes them, ``[examples, outputs]``."""
        return self.link(self.predict(params, batch))

    @property
    def unlinked(self) -> Self:
        """The same losses of the model's own outputs."""
        loss_of, link = self.loss_of, self.link
        return replace(self, loss_of=lambda outputs, labels: loss_of(link(outputs), labels), link=itself)

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The weighted loss of each example given its `outputs`, ``[examples]``.

        Raises:
            ValueError: the loss does not give one number an example.
        """
        losses = self.loss_of(outputs if self.convex else outputs.clone(), self.labels[batch])  # own ones may write
        if losses.shape != batch.shape:
            raise ValueError(
                f"the loss must give one number an example, [{len(batch)}], got {list(losses.shape)}: torch's own take "
                'reduction="none"'
            )
        return losses if self.weights is None else losses * self.weights[batch]

    def train_loss(self, params: Parameters, batch: Tensor) -> Tensor:
        """``loss(outputs(params, batch), batch)``, ``[examples]``."""
        return self.loss(self.outputs(params, batch), batch)

    def measurement(self, params: Parameters) -> Tensor:
        """The number in question, a scalar.

        Raises:
            ValueError: it is none.
        """
        number = self.number(params)
        if number.numel() != 1:
            raise ValueError(f"the measurement must be one number, got {list(number.shape)}")
        return number.reshape(())

    def edited(self, player: int) -> TrainingObjective:
        """The same objective with this example's weight zero, ``n`` kept fixed.

        Raises:
            IndexError: no such player.
        """
        if not 0 <= player < self.size:
            raise IndexError(f"player must be from 0 to {self.size - 1}, got {player}")
        return self.without(torch.tensor([player]))

    def without(self, examples: Tensor) -> Self:
        """The same objective with the weights of these training examples, int64 ``[k]``, zero, ``n`` kept fixed."""
        weights = torch.ones(self.size, device=self.labels.device) if self.weights is None else self.weights.clone()
        weights[examples.to(weights.device)] = 0
        return replace(self, weights=weights)

    def relabelled(self, labels: Tensor) -> Self:
        """The same objective with other labels, of the same shape and dtype.

        Raises:
            ValueError: another shape or dtype.
            Unsupported: the examples have none.
        """
        if not self.labelled:
            raise Unsupported(
                "these training examples have no labels that the model learns to predict; a denoiser's condition "
                "is an input: ask what a whole example does, Influence, or its pixels, Perturbation"
            )
        if labels.shape != self.labels.shape or labels.dtype != self.labels.dtype:
            raise ValueError(
                f"labels must be {list(self.labels.shape)} of {self.labels.dtype} as they were, got "
                f"{list(labels.shape)} of {labels.dtype}"
            )
        return replace(self, labels=labels.to(self.labels.device))

    def at(self, params: Parameters) -> Self:
        """The same objective at other parameters, of the same names."""
        return replace(self, params=params)
