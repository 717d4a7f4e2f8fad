"""Training images changed too little to be seen, so that the retrained model answers wrongly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from explain.doubts import doubt
from explain.explainer import seeded
from explain.guard import untouched
from explain.influence.explainer import Influence
from explain.influence.inverse import (
    Inverse,
    checked_engine,
    editable,
    inverse_of,
    objective_for,
    positions_of,
    same_inverse,
)
from explain.influence.questions.minimum import refit
from explain.influence.questions.perturbation import Extractor, input_gradients
from explain.influence.scores import measured_gradient
from explain.progress import in_sight
from explain.types import EditableObjective, NonFinite, Objective, Parameters, Target


@dataclass(frozen=True)
class Box:
    """How far a pixel may move: ``|x - original| <= radius * grey`` and ``low <= x <= high``.

    Args:
        grey: one grey level in the unit of the images: ``1 / 255`` for [0, 1], ``2 / 255`` for [-1, 1].
        low: the darkest.
        high: the brightest.
        radius: in grey levels, at most half: just below half, so that an image of whole grey levels is saved as itself.

    Raises:
        ValueError: a radius above half a grey level, or a range without room.

    >>> Box(grey=0.1).clip(torch.tensor([0.9, -1.0]), torch.tensor([0.5, 0.0]))
    tensor([0.5499, 0.0000])
    """

    grey: float = 1 / 255
    low: float = 0.0
    high: float = 1.0
    radius: float = 0.499

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 0.5:
            raise ValueError(f"radius must be above 0 and at most half a grey level, 0.5, got {self.radius}")
        if not (0 < self.grey < math.inf and self.low < self.high):
            raise ValueError(f"grey must be above 0 and low below high, got {self}")

    def clip(self, x: Tensor, original: Tensor) -> Tensor:
        """The nearest image inside."""
        reach = self.radius * self.grey
        return x.clamp(original - reach, original + reach).clamp(self.low, self.high)

    def greys(self, x: Tensor, original: Tensor) -> float:
        """The largest move of a pixel, in grey levels."""
        return float((x.double() - original.double()).abs().max()) / self.grey


@dataclass(frozen=True)
class Attack:
    """How to poison.

    Args:
        step: of each pixel in each iteration, in grey levels.
        iterations: the most there may be.
        box: how far a pixel may move.
        features: ``images [rows, C, H, W] -> inputs`` of the model, such as the frozen layers below a head that was
            wrapped alone: then only the head is trained again. None: images are the model's own inputs.
        retrain: ``objective -> parameters``, the minimum of its training loss, started from its own parameters.
        engine: curvature, damping, solver, training set, seed and progress; see `Influence`.

    Raises:
        ValueError: a step or a number of iterations that is not positive.
        TypeError: the engine is no `Influence`.
    """

    step: float = 0.02
    iterations: int = 100
    box: Box = field(default_factory=Box)
    features: Extractor | None = None
    retrain: Callable[[Any], Parameters] = refit
    engine: Influence = field(default_factory=Influence)

    def __post_init__(self) -> None:
        checked_engine(self.engine)
        if not 0 < self.step < math.inf or self.iterations < 1:
            raise ValueError(f"step and iterations must be above 0, got {self.step} and {self.iterations}")


@dataclass(frozen=True, eq=False)
class Poisoned:
    """What an attack came to; ``T + 1`` rows, the first as it was, then after each retraining.

    Args:
        examples: the training examples that were changed, int64 ``[k]``.
        original: their images ``[k, ...]``.
        images: the same, poisoned.
        params: the parameters trained on them.
        numbers: ``[T + 1, targets]``, what the attack raises.
        outputs: ``[T + 1, targets, outputs]``.
        predicted: classes int64 ``[T + 1, targets]``; of a regressor None.
        pixel_distance: ``|x - original|`` of each image, ``[T + 1, k]``.
        feature_distance: the same of the model's inputs, ``[T + 1, k]``.
        greys: the largest move of a pixel in grey levels, ``[T + 1]``.
        checks: ``same_when_saved``, whether the images rounded to whole grey levels are the originals (None where these
            are no whole levels themselves); what was inverted and its worst true residual.
    """

    examples: Tensor
    original: Tensor
    images: Tensor
    params: Parameters
    numbers: Tensor
    outputs: Tensor
    predicted: Tensor | None
    pixel_distance: Tensor
    feature_distance: Tensor
    greys: Tensor
    checks: dict[str, Any]

    def __repr__(self) -> str:
        asked = self.numbers.size(1)
        flipped = "" if self.predicted is None else f"{int(self.flipped.sum())} of {asked} predictions flipped, "
        moved = f"pixels moved at most {float(self.greys.max()):.3g} grey levels"
        return f"Poisoned: {len(self.examples)} examples, {flipped}{moved}"

    @property
    def flipped(self) -> Tensor:
        """Whether each target's prediction is another in the end, bool ``[targets]``.

        Raises:
            ValueError: the targets have no classes.
        """
        if self.predicted is None:
            raise ValueError("a regressor predicts no classes: read numbers")
        return self.predicted[-1] != self.predicted[0]


def poison(
    targets: Target | Sequence[Target], examples: Any, attack: Attack | None = None, images: Tensor | None = None
) -> Poisoned:
    """Change training images so that the sum of the targets' numbers rises (Koh and Liang 2017, section 5.2).

        x <- clip(x + step sign(d sum_t f_t / d x)),   theta <- argmin J with x in place of the original

    Stops once every prediction has flipped or no pixel has room left. With targets of the payoff "loss" the model is
    led to answer wrongly; of others that number is raised.

    Args:
        targets: one, or several of one model that are attacked together.
        examples: the training images that may change: a position, positions, or a bool mask ``[n]``.
        attack: how.
        images: ``[k, ...]``, the examples' images, where ``attack.features`` makes the model's inputs of them.

    Raises:
        ValueError: no targets, targets of several models, images that are outside of the box or that are not those the
            model was trained on.
        Unsettled: retraining did not reach a minimum.

    Warns:
        UserWarning: the images are not in double precision.

    >>> from torch import nn
    >>> import explain
    >>> line = nn.Linear(1, 1, bias=False).double()  # the least squares slope of (0.5, 1)
    >>> _ = nn.init.constant_(line.weight, 2.0)
    >>> data = torch.tensor([[0.5]]).double(), torch.tensor([[1.0]]).double()
    >>> target = explain.wrap(line, task="regression", train=data).example(torch.ones(1).double())
    >>> found = poison(target, 0, Attack(step=0.1, iterations=2, box=Box(grey=0.1)))
    >>> found.images, found.numbers[:, 0]  # 1 / x
    (tensor([[0.4800]], dtype=torch.float64), tensor([2.0000, 2.0408, 2.0833], dtype=torch.float64))
    """
    attack = attack or Attack()
    several = [targets] if isinstance(targets, Target) else list(targets)
    _check_targets(several)
    with _untouched(several[0], attack):
        run = _Run(several, examples, attack, images)
        for _ in in_sight(range(attack.iterations), desc="poison", progress=attack.engine.progress):
            if run.all_flipped() or not run.iterate():
                break
        return run.result()


def attackability(
    targets: Target | Sequence[Target], attack: Attack | None = None, images: Tensor | None = None
) -> Tensor:
    """How much the targets' numbers would rise by the largest move of each training image, to first order, ``[n]``.

    ``radius * grey * sum_j |d sum_t f_t / d x_ij|``: the examples with most of it are those to poison.

    Args:
        targets: as of `poison`.
        attack: as of `poison`.
        images: ``[n, ...]``, all training images, where ``attack.features`` makes the model's inputs of them.
    """
    attack = attack or Attack()
    several = [targets] if isinstance(targets, Target) else list(targets)
    _check_targets(several)
    with _untouched(several[0], attack):
        objectives = _objectives(several, attack)
        everyone = torch.arange(objectives[0].size)
        x = _images(objectives[0], everyone, attack, images)
        inverse = inverse_of(objectives[0], attack.engine, seeded(attack.engine.seed)[1])
        s = inverse @ _gradient(objectives)
        found = []
        for at in everyone.split(128):
            rises = input_gradients(objectives[0], s, at, x[at], attack.features)
            found.append(rises.flatten(1).double().abs().sum(1).cpu())
    return torch.cat(found) * attack.box.radius * attack.box.grey


class _Run:
    """An attack so far."""

    def __init__(self, targets: list[Target], examples: Any, attack: Attack, images: Tensor | None) -> None:
        self.attack = attack
        self.objectives = _objectives(targets, attack)
        self.start = self.objectives[0]
        self.examples = positions_of(examples, self.start.size)
        self.original = self.x = _images(self.start, self.examples, attack, images)
        if not torch.equal(attack.box.clip(self.x, self.x), self.x):
            raise ValueError(
                f"the images must be from {attack.box.low} to {attack.box.high}, got {float(self.x.min()):.4g} to "
                f"{float(self.x.max()):.4g}: say in Box what their range and one grey level are"
            )
        self.seen = self.first = self.start.inputs[self.examples]
        self.params = self.start.params
        if self.x.dtype != torch.float64:
            doubt(
                f"images and model are {self.x.dtype}: what half a grey level does to the training is lost in its "
                "rounding. Use model.double() and images.double()"
            )
        self.inverse: Inverse | None = None
        self.generator = seeded(attack.engine.seed)[1]
        self.residual = 0.0
        self.history: list[tuple[Tensor, ...]] = []
        self._record()

    def iterate(self) -> bool:
        """One step of every image, and the training again; False, and nothing done, where no pixel has room left."""
        attack = self.attack
        objective = self.start.replaced(self.examples, self.seen).at(self.params)
        if self.inverse is None:
            self.inverse = inverse_of(objective, attack.engine, self.generator)
        else:
            self.inverse = same_inverse(self.inverse, objective)
        s = self.inverse @ _gradient([o.at(self.params) for o in self.objectives])
        rises = input_gradients(objective, s, self.examples, self.x, attack.features)
        moved = attack.box.clip(self.x + attack.step * attack.box.grey * rises.sign(), self.original)
        if torch.equal(moved, self.x):
            return False
        self.x = moved
        self.seen = _features(attack, self.x)
        self.params = attack.retrain(self.start.replaced(self.examples, self.seen).at(self.params))
        self.residual = max(self.residual, self.inverse.residual)
        self._record()
        return True

    def all_flipped(self) -> bool:
        """Whether every prediction is another than at first."""
        outputs = self.history[-1][1]
        if self.start.labels.is_floating_point():
            return False
        return bool((self._classes(outputs) != self._classes(self.history[0][1])).all())

    def _classes(self, outputs: Tensor) -> Tensor:
        """Predicted classes ``[..., n]``: the largest output, or the label that a single one loses less by."""
        if outputs.size(-1) > 1:
            return outputs.argmax(-1)
        rows, labels = outputs.reshape(-1, 1), self.start.labels
        no, yes = (self.start.losses_of(rows, labels.new_full((len(rows), *labels.shape[1:]), y)) for y in (0, 1))
        return (yes < no).long().reshape(outputs.shape[:-1])

    def result(self) -> Poisoned:
        """What it came to.

        Raises:
            RuntimeError: a pixel moved by more than half a grey level.
        """
        numbers, outputs, pixel, feature, greys = (torch.stack(parts) for parts in zip(*self.history, strict=True))
        rounding = 4 * torch.finfo(self.x.dtype).eps * max(abs(self.attack.box.low), abs(self.attack.box.high))
        if float(greys.max()) > 0.5 + rounding / self.attack.box.grey:
            raise RuntimeError(f"a pixel moved by {float(greys.max()):.4g} grey levels, more than half of one")
        checks = {**(self.inverse.checks() if self.inverse else {}), "residual": self.residual}
        checks["dtype"] = str(self.x.dtype).removeprefix("torch.")
        checks["same_when_saved"] = _same_when_saved(self.x, self.original, self.attack.box)
        predicted = None if self.start.labels.is_floating_point() else self._classes(outputs)
        return Poisoned(
            self.examples,
            self.original,
            self.x,
            self.params,
            numbers,
            outputs,
            predicted,
            pixel,
            feature,
            greys,
            checks,
        )

    def _record(self) -> None:
        with torch.no_grad():
            here = [objective.at(self.params) for objective in self.objectives]
            numbers = torch.stack([o.measurement(o.params).double().cpu() for o in here])
            outputs = torch.stack([o.answer(o.params)[0].double().cpu() for o in here])
        if not numbers.isfinite().all():
            raise NonFinite("a target's number is NaN or infinite after training on the poisoned images")
        moved = (self.x - self.original).double().flatten(1).norm(dim=1).cpu()
        away = (self.seen - self.first).double().flatten(1).norm(dim=1).cpu()
        greys = torch.tensor(self.attack.box.greys(self.x, self.original), dtype=torch.float64)
        self.history.append((numbers, outputs, moved, away, greys))


@contextmanager
def _untouched(target: Target, attack: Attack) -> Iterator[None]:
    """Within, neither the model nor the extractor of features is left changed."""
    with ExitStack() as stack:
        stack.enter_context(untouched(target.module, target.trained))
        if isinstance(attack.features, nn.Module):
            stack.enter_context(untouched(attack.features))
        yield


def _check_targets(targets: list[Target]) -> None:
    if not targets:
        raise ValueError("there is no target to attack")
    for target in targets:
        if not isinstance(target, Target):
            raise TypeError(f"targets must be such as explain.wrap(model).example(x), got {type(target).__name__}")
        if target.module is not targets[0].module:
            raise ValueError("targets that are attacked together must be of one model")


def _objectives(targets: list[Target], attack: Attack) -> list[EditableObjective]:
    given: list[Objective] = [objective_for(target, attack.engine) for target in targets]
    return [editable(objective, "poisoning") for objective in given]


def _images(objective: EditableObjective, examples: Tensor, attack: Attack, images: Tensor | None) -> Tensor:
    """The images that are moved, and the proof that the model was trained on them.

    Raises:
        ValueError: it was trained on others.
    """
    own = objective.inputs[examples]
    if (images is None) != (attack.features is None):
        raise ValueError("images= and Attack(features=) belong together: the model's inputs are features(images)")
    if images is None:
        return own
    if len(images) != len(examples):
        raise ValueError(f"{len(examples)} examples need as many images, got {len(images)}")
    made = _features(attack, images)
    if made.shape != own.shape or not torch.allclose(made, own, rtol=1e-3, atol=1e-5):
        raise ValueError(
            f"features(images) must be what the model was trained on, {list(own.shape)}, got {list(made.shape)} of "
            "other shape or values: give the images of these very examples"
        )
    return images.detach()


def _features(attack: Attack, x: Tensor) -> Tensor:
    with torch.no_grad():
        return x if attack.features is None else attack.features(x)


def _gradient(objectives: Sequence[EditableObjective]) -> Tensor:
    """``grad sum_t f_t``, ``[p]``.

    Raises:
        NonFinite: NaN or infinity in it.
    """
    total = torch.stack([measured_gradient(objective)[1] for objective in objectives]).sum(0)
    if not total.isfinite().all():
        raise NonFinite("the gradient of the targets' numbers holds NaN or infinity: check the model and the payoff")
    return total


def _same_when_saved(x: Tensor, original: Tensor, box: Box) -> bool | None:
    levels = (original.double() - box.low) / box.grey
    if float((levels - levels.round()).abs().max()) > 1e-3:
        return None
    return bool((((x.double() - box.low) / box.grey).round() == levels.round()).all())
