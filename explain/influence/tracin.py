"""TracIn: what each training example did at the steps that were taken with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explain.explainer import Answer, Explainer
from explain.influence.checkpoints import Checkpoint, at_checkpoint, checked_checkpoints
from explain.influence.chosen import TRAINABLE, Choice, checked_choice
from explain.influence.scores import directional, measured_gradient
from explain.influence.together import Together, objectives_of
from explain.progress import in_sight
from explain.types import NonFinite, Target


@dataclass(frozen=True)
class TracIn(Together, Explainer):
    """``score_i = -(1/n) sum_t rates_t grad f(theta_t) . grad loss_i(theta_t)`` over checkpoints (Pruthi et al. 2020).

    How much the steps of gradient descent taken with example ``i`` pushed the number up, to first order: with every
    step of plain full-batch training as a checkpoint and small rates, the scores sum to the whole change of the number
    but for the penalty. One checkpoint and rate 1 is the gradient dot product.

    Not for: what leaving an example out would do after training has gone on for long: only steps at checkpoints
    count.

    Args:
        checkpoints: states of the training, as state dictionaries of the model or paths of safetensors files, which are
            read one at a time; the model as it is when None.
        rates: of each checkpoint: the learning rate times the number of steps that it stands for; or one for all.
        train: as for `Influence`.
        parameters: as for `Influence`.
        seed: written down only; nothing here is random.
        progress: a bar where it takes more than five seconds.

    The answer has ``parts["checkpoints"] [T, n]``, whose sum the scores are, and ``checks`` with the number at each
    checkpoint, ``sum`` of the scores and ``moved``, how far the number really went from the first checkpoint on.

    Raises:
        ValueError: rates that are not positive or not one a checkpoint, checkpoints of another model.
        TypeError: checkpoints that are neither state dictionaries nor paths.
        NonFinite: NaN or infinity in a gradient.

    >>> from torch import nn
    >>> import explain
    >>> mean = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(mean.weight)
    >>> data = torch.ones(2, 1), torch.tensor([[0.0], [1.0]])
    >>> TracIn(rates=0.5, train=data).explain(explain.wrap(mean, task="regression").example(torch.ones(1))).scores
    tensor([0.0000, 0.5000], dtype=torch.float64)
    """

    checkpoints: Sequence[Checkpoint] | None = None
    rates: float | Sequence[float] = 1.0
    train: Any = None
    parameters: Choice = TRAINABLE
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", checked_choice(self.parameters))
        checked_checkpoints(self.checkpoints)
        for rate in self._rates():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
                raise ValueError(f"rates must be above 0 and finite, got {rate!r}")

    def _rates(self) -> list[float]:
        count = 1 if self.checkpoints is None else len(self.checkpoints)
        rates = [self.rates] * count if isinstance(self.rates, (int, float)) else list(self.rates)
        if len(rates) != count:
            raise ValueError(f"{count} checkpoints need as many rates, or one for all, got {len(rates)}")
        return rates

    def _answers(self, targets: Sequence[Target], generator: torch.Generator) -> list[Answer]:
        objectives = objectives_of(targets, self.train, parameters=self.parameters)
        size = objectives[0].size
        parts: list[Tensor] = []
        values: list[list[float]] = []
        states: Sequence[Checkpoint | None] = self.checkpoints or [None]
        pairs = list(zip(states, self._rates(), strict=True))
        for checkpoint, rate in in_sight(pairs, desc="checkpoints", progress=self.progress):
            points = [at_checkpoint(objective, checkpoint) for objective in objectives]
            found, gradients = zip(*(measured_gradient(point) for point in points), strict=True)
            scores = -rate / size * directional(points[0], torch.stack(gradients, 1))
            if not scores.isfinite().all():
                raise NonFinite("a gradient holds NaN or infinity: check the training data and the checkpoints")
            parts.append(scores)
            values.append(list(found))
        each = torch.stack(parts)  # [T, n, k]
        answers = []
        for k, objective in enumerate(objectives):
            with torch.no_grad():
                value = float(objective.measurement(objective.params))
            numbers = [found[k] for found in values]
            checks = {
                "rates": self._rates(),
                "values": numbers,
                "moved": value - numbers[0],
                "sum": float(each[:, :, k].sum()),
            }
            answers.append(
                Answer(
                    scores=each[:, :, k].sum(0),
                    players=objective.players,
                    value=value,
                    base=None,
                    parts={"checkpoints": each[:, :, k]},
                    checks=checks,
                    calls=len(pairs) * (size + 1),
                )
            )
        return answers
