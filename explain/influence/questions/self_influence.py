"""How much each training example is behind its own loss: memorised, atypical and mislabelled ones most."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from explain.doubts import doubt
from explain.explainer import Answer, Explainer
from explain.influence.example_gradients import example_gradients, per_example
from explain.influence.explainer import Influence
from explain.influence.inverse import checked_engine, inverse_of, objective_for
from explain.influence.scores import directional, example_losses, training_gradient
from explain.influence.suspects import NOTED, advice, suspect_another
from explain.progress import in_sight
from explain.types import NonFinite, Target

TOGETHER = 256  # gradients that are solved for at once


@dataclass(frozen=True)
class SelfInfluence(Explainer):
    """``score_i = loss_i(theta_without_i) - loss_i(theta) ~= (1/n) grad loss_i^T A^-1 grad loss_i`` (Koh, Liang 2017).

    How much the example's own loss would rise if it had been left out: 0 or more, in units of the loss. What the
    target's number is does not matter, only its training examples. ``value`` is the mean training loss.

    Not for: which examples matter to one prediction, which is `Influence`'s question.

    Args:
        engine: curvature, damping, solver, training set, seed and progress; see `Influence`.

    The answer has ``parts["self_loss"]``, each example's loss, the plain baseline that finds mislabelled examples about
    as well, and ``checks`` with the worst true residual, the gradient of the trained loss, and by how much finishing
    the training would move the losses, on average.

    Raises:
        TypeError: the engine is no `Influence`.
        NonFinite: NaN or infinity in the training losses.
        Indefinite: the curvature asked for is not positive definite.

    Warns:
        UserWarning: finishing the training would move the losses more than leaving examples out does.

    >>> from torch import nn
    >>> import explain
    >>> mean = nn.Linear(1, 1, bias=False)  # the mean of 0, 0, 3; without the 3 it is 0: (3 - 0)^2 - (3 - 1)^2 = 5
    >>> _ = nn.init.ones_(mean.weight)
    >>> data = torch.ones(3, 1), torch.tensor([[0.0], [0.0], [3.0]])
    >>> target = explain.wrap(mean, task="regression", train=data).example(torch.ones(1))
    >>> SelfInfluence(Influence(seed=0)).explain(target).scores  # first order: 2 (3 - 1)^2 / 3
    tensor([0.6667, 0.6667, 2.6667], dtype=torch.float64)
    """

    engine: Influence = field(default_factory=Influence)

    def __post_init__(self) -> None:
        checked_engine(self.engine)

    @property
    def seed(self) -> int | torch.Generator | None:
        """The engine's."""
        return self.engine.seed

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        objective = objective_for(target, self.engine)
        losses = example_losses(objective)
        if not losses.isfinite().all():
            raise NonFinite("the training losses hold NaN or infinity: check the training data")
        columns = min(TOGETHER, objective.size)
        inverse = inverse_of(objective, self.engine, generator, columns, objective.size / columns)
        scores = torch.zeros_like(losses)
        with in_sight(total=objective.size, desc="examples", progress=self.engine.progress) as bar:
            for positions, rows in example_gradients(objective):
                for at, part in zip(positions.split(TOGETHER), rows.split(TOGETHER), strict=True):
                    scores[at] = inverse.quadratic(part).to(scores) / objective.size
                    bar.update(len(at))
        training = training_gradient(objective)
        moves = directional(objective, inverse @ training).abs()
        checks = {"gradient_norm": float(training.norm()), "still_to_move": float(moves.mean())}
        if checks["still_to_move"] > float(scores.mean()):
            doubt(
                f"the model is not at a minimum of its training loss (gradient norm {checks['gradient_norm']:.2g}): "
                f"finishing the training would move the losses by about {checks['still_to_move']:.2g}, more than "
                f"leaving examples out does ({float(scores.mean()):.2g}). {advice(objective, training)}"
            )
        elif checks["still_to_move"] > NOTED * float(scores.mean()):
            suspect_another(objective, checks["gradient_norm"], training)
        return Answer(
            scores=scores,
            players=objective.players,
            value=float(losses.mean()),
            base=None,
            parts={"self_loss": losses},
            checks={**inverse.checks(), **per_example(objective), **checks, "number": "each example's own loss"},
            calls=inverse.A.products,
        )
