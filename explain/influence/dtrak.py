"""D-TRAK: which training images are behind how well an image is denoised, by gradients of the prediction's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from explain.explainer import Answer
from explain.influence.checkpoints import At
from explain.influence.trak import Basis, Trak
from explain.types import Parameters, Players, Target, Unsupported

SIGNS = {"error": 1.0, "elbo": 1.0, "loss": -1.0}  # of the number, by the payoff that asks about the loss
_INSTEAD = (
    "D-TRAK: the mean square of the outputs stands for the {}, so that only the order of the scores has a meaning"
)


@dataclass(frozen=True)
class DTrak(Trak):
    """``score_i = phi(x)^T (Phi^T Phi + n damping I)^-1 phi(x_i)`` (Zheng, Pang, Du, Jiang, Lin 2024).

        phi(x) = P^T grad mean_k |e_hat(x_k, t_k)|^2 / d,   Phi [n, dimensions], the phi of the training images

    Gradients of the *loss* are small where an image was learned, and mostly noise; those of the size of the prediction
    are neither, and foretold retraining better in every setting that its authors tried, though nobody trains on it.
    Steps and noise of ``x`` are those that the step asks about, those of training images the model's ``draws``; without
    guidance, as training is.

    The question is how well the image is denoised: ``payoff="error"`` of a step (or "elbo", or "loss" of an example
    that is not one of a denoiser). A positive score says that the image pushes that number up.

    Not for: signs or amounts in the number's units, or any question but how well a picture is denoised.

    Args:
        dimensions: of the projection; None, or no fewer than the parameters, for none.
        checkpoints: as for `Trak`; the paper averages over several.
        damping: added to ``Phi^T Phi / n``, so that the paper's lambda is ``n`` times it; "auto" is a thousandth of the
            largest eigenvalue.
        train: as for `Influence`.
        parameters: as for `Influence`.
        shards: as for `Trak`.
        seed: of the projections.
        progress: a bar where it takes more than five seconds.

    Raises:
        ValueError: another payoff, and what `Trak` raises.
        Unsupported: a run, or a model whose outputs for what is explained are not known.

    >>> import torch
    >>> from torch import nn
    >>> import explain
    >>> x, y = torch.eye(3), torch.tensor([0, 1, 0])
    >>> target = explain.wrap(nn.Linear(3, 2), (x, y), task="classification").example(x[0], label=0, payoff="loss")
    >>> DTrak(None, seed=0).explain(target).checks["scores"].split(":")[0]
    'D-TRAK'
    """

    features: str = field(default="norm", init=False)

    of_the_number: ClassVar[bool] = False

    def check(self, targets: Sequence[Target]) -> None:
        """Check that each asks how well something is predicted.

        Raises:
            ValueError: it does not.
        """
        for target in targets:
            _checked_payoff(target)

    def answers(
        self,
        bases: Sequence[Basis],
        targets: Sequence[Target],
        players: Sequence[Players],
        numbers: Sequence[float],
        columns: Sequence[Tensor],
    ) -> list[Answer]:
        """As those of `Trak`, with the sign of the loss that the size of the outputs stands for."""
        answers = super().answers(bases, targets, players, numbers, columns)
        for answer, target in zip(answers, targets, strict=True):
            payoff = _checked_payoff(target)
            answer["scores"] = -SIGNS[payoff] * answer["scores"]
            answer["checks"]["scores"] = _INSTEAD.format(payoff)
        return answers

    def _question(self, point: At) -> At:
        answer = getattr(point.objective, "answer", None)
        if answer is None:
            raise Unsupported(
                f"D-TRAK needs the outputs for what is explained, which {type(point.objective).__name__} does not "
                "give: ask about a step of a denoiser, or an example of a table or an image"
            )

        def size(params: Parameters) -> Tensor:
            return answer(params).square().flatten(1).mean(1).sum()

        return replace(point, number=size)


def _checked_payoff(target: Target) -> str:
    """The name of the target's payoff.

    Raises:
        ValueError: it does not ask how well something is predicted.
    """
    if type(target).objective is Target.objective:
        target.objective()  # says what to ask instead
    payoff = target.describe().get("payoff")
    if payoff not in SIGNS:
        raise ValueError(
            f"D-TRAK stands for the loss, and this asks for the payoff {payoff!r}: ask model.step(x0, t=[...], "
            "payoff='error'), or use Trak or Influence, which explain any number"
        )
    return payoff
