"""A training as a recipe: small, deterministic, and of the wrapped model's own training loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from explain.guard import untouched
from explain.influence.checkpoints import Checkpoint, at_checkpoint, checked_checkpoints
from explain.influence.chosen import TRAINABLE, Choice, chosen_objective
from explain.influence.linear_maps import Flat
from explain.influence.through.course import Batch, Course, Step, module_of
from explain.influence.through.optimizers import Adam, Sgd, Update
from explain.influence.through.stage import Stage
from explain.spelling import came
from explain.types import NonFinite, Objective, Parameters, Target, Unsupported

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True, eq=False)
class Training:
    """A training that can be differentiated: ``steps`` of an optimizer down the mean loss of a batch.

    The loss is the one that the model was wrapped with, as `explain.influence` has it: in eval mode, without dropout;
    of a denoiser with its fixed draws of step and noise. Every example has a weight, 1 as a rule, and a batch's mean is
    ``(1/k) sum_i w_i loss_i``. A loop of your own is recorded with `explain.recorded` instead.

    First order in the weights: on digits, scores summed over what is left out correlate with retraining by .98 at 5 %
    of the examples, by .87 at half and by .63 at 80 %, and of half the real change is three times the foretold.

    Args:
        initial: the parameters before the training, as a module, its state dictionary or a safetensors file; copied.
        steps: how many.
        optimizer: "sgd", "momentum", "adam" or "adamw", as in ``torch.optim``.
        lr: the learning rate.
        schedule: what it is multiplied with at each step: "constant", "linear" or "cosine" to zero at the end, or a
            function of the step, from 0 on.
        warmup: steps in which the rate rises to its height.
        momentum: of "momentum".
        betas: of "adam" and "adamw".
        eps: of these.
        weight_decay: that of the wrapped model when None; "adamw" takes it off the parameters.
        clip: largest norm of a step's gradient.
        batch_size: examples a step, all when None.
        seed: of the order in which they are seen, another one in every pass through them.

    Raises:
        ValueError: settings that are none.
        TypeError: initial parameters that are none.

    >>> mean = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(mean.weight)
    >>> training = Training(mean, steps=100, lr=0.1)
    >>> import explain
    >>> data = torch.ones(3, 1), torch.tensor([[0.0], [1.0], [2.0]])
    >>> asked = explain.wrap(mean, task="regression", train=data).example(torch.ones(1))
    >>> training.fit(asked)
    >>> explain.Influence(through=training, seed=0).explain(asked).scores.round(decimals=4)  # (y_i - mean) / n
    tensor([-0.3333,  0.0000,  0.3333], dtype=torch.float64)
    """

    initial: nn.Module | Checkpoint = field(repr=False)
    steps: int
    optimizer: str = "sgd"
    lr: float = 0.1
    schedule: str | Callable[[int], float] = "constant"
    warmup: int = 0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float | None = None
    clip: float | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        initial = self.initial.state_dict() if isinstance(self.initial, nn.Module) else self.initial
        checked_checkpoints([initial])
        if isinstance(initial, Mapping):  # a state dictionary is the model's own tensors, which training writes
            initial = {name: value.detach().clone() for name, value in initial.items()}
        object.__setattr__(self, "initial", initial)
        _check_count("steps", self.steps, 1)
        _check_count("warmup", self.warmup, 0)
        if self.batch_size is not None:
            _check_count("batch_size", self.batch_size, 1)
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be {', '.join(OPTIMIZERS)}, {came(self.optimizer, OPTIMIZERS)}")
        if not callable(self.schedule) and self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule must be {', '.join(SCHEDULES)} or a function of the step, {came(self.schedule, SCHEDULES)}"
            )
        positive = {"lr": self.lr, "eps": self.eps} | ({} if self.clip is None else {"clip": self.clip})
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {value!r}")
        for name, value in {"momentum": self.momentum, "betas": max(self.betas), "a beta": min(self.betas)}.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {value!r}")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or more and finite, got {self.weight_decay!r}")

    def fit(self, target: Target, train: Any = None, parameters: Choice = TRAINABLE) -> None:
        """Train the wrapped model in place: its parameters are then those that the recipe ends with.

        Args:
            target: any number of the model.
            train: what it is trained on, as for `Influence`.
            parameters: which are trained, as for `Influence`.

        Raises:
            NonFinite: the training diverged.
            Unsupported: a block is computed again on the way back (`torch.utils.checkpoint`).
        """
        objective, found = self._end(target, train, None, parameters)
        own = dict(module_of(objective).named_parameters())
        with torch.no_grad():
            for name, value in found.items():
                own[name].copy_(value)

    def trained(
        self, target: Target, train: Any = None, weights: Tensor | None = None, parameters: Choice = TRAINABLE
    ) -> Parameters:
        """The parameters that the recipe ends with, by name; the model stays as it is.

        Args:
            target: any number of the model.
            train: what it is trained on, as for `Influence`.
            weights: of the training examples, ``[n]``, 1 each when None; 0 leaves one out.
            parameters: which are trained, as for `Influence`.

        Raises:
            ValueError: another number of weights.
            NonFinite: the training diverged.
            Unsupported: a block is computed again on the way back (`torch.utils.checkpoint`).
        """
        return self._end(target, train, weights, parameters)[1]

    def course(self, objective: Objective) -> Course:
        """The training as steps of this objective's loss.

        Raises:
            ValueError: initial parameters of another model.
        """
        assert not isinstance(self.initial, nn.Module)
        params = at_checkpoint(objective, self.initial).params
        flat = Flat(params)
        theta = flat.vector(params)
        decay = objective.weight_decay if self.weight_decay is None else self.weight_decay
        order, steps = self._order(objective.size), []
        for t in range(self.steps):
            update = self._update(t, decay)
            positions = next(order).to(theta.device)
            steps.append(Step((Batch(positions, _losses(objective, positions)),), self.clip, (update,)))
        start = torch.cat([theta[None], theta.new_zeros(steps[0].updates[0].slots, len(theta))])
        return Course(flat, (flat.size,), start, steps, objective.size)

    def ended(self, objective: Objective) -> tuple[Tensor, str]:
        """The parameters ``[p]`` that the recipe should end with, and whose they are."""
        flat = Flat(objective.params)
        return flat.vector(objective.params), "the model is now: train it with it, recipe.fit(target)"

    def said(self) -> str:
        """The recipe in a few words."""
        return f"a recipe: {self.steps} steps of {self.optimizer}"

    def _end(
        self, target: Target, train: Any, weights: Tensor | None, parameters: Choice
    ) -> tuple[Objective, Parameters]:
        with untouched(target.module, target.trained):
            objective = chosen_objective(target, train, parameters=parameters)
            if weights is not None and weights.shape != (objective.size,):
                raise ValueError(f"{objective.size} training examples need as many weights, got {list(weights.shape)}")
            course = self.course(objective)
            end = course.end(weights).detach()
            if not end.isfinite().all():
                raise NonFinite(
                    f"the training diverged: NaN or infinity within {self.steps} steps; the model is as it was. A "
                    "smaller lr=, warmup= or clip= helps"
                )
            _check_backward(course, objective, end)
            return objective, course.params(end)

    def _order(self, size: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            if self.batch_size is None or self.batch_size >= size:
                yield torch.arange(size)
            else:
                yield from torch.randperm(size, generator=generator).split(self.batch_size)

    def _update(self, t: int, weight_decay: float) -> Update:
        lr = self.lr * self._factor(t)
        if self.optimizer in ("sgd", "momentum"):
            return Sgd(lr, self.momentum if self.optimizer == "momentum" else 0.0, weight_decay=weight_decay)
        decoupled = self.optimizer == "adamw"
        return Adam(lr, self.betas, self.eps, weight_decay, decoupled)

    def _factor(self, t: int) -> float:
        """What the learning rate is multiplied with at step ``t``."""
        rising = min(1.0, (t + 1) / (self.warmup + 1))
        if callable(self.schedule):
            return rising * float(self.schedule(t))
        done = max(0, t - self.warmup) / max(1, self.steps - self.warmup)
        falling = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return rising * falling[self.schedule]


def _check_backward(course: Course, objective: Objective, theta: Tensor) -> None:
    """Whether a gradient is that of the parameters given, and not of those that the module has when it goes back.

    Raises:
        Unsupported: the module computes again on the way back, when others are in place.
    """
    stage, last = Stage(module_of(objective)), len(course.steps) - 1
    with course.differentiable():
        given = course.slope(theta, last).gradient
        own = {name: p.detach().requires_grad_() for name, p in course.params(theta).items()}
        with stage.played(own, stage.training()):
            placed = course.slope(theta, last).gradient
    if not torch.allclose(given, placed, rtol=1e-3, atol=1e-3 * float(placed.abs().max())):
        raise Unsupported(
            "the gradient of this model hangs on the weights that it has when it goes back: torch.utils.checkpoint "
            "computes again there, with others than the recipe's. Train without checkpoints"
        )


def _losses(objective: Objective, positions: Tensor) -> Callable[[Parameters], Tensor]:
    return lambda params: objective.train_loss(params, positions)


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
