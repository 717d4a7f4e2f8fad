"""Where the gradient does not vanish: whether loss, examples or weight decay are those of the user's own training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from torch import Tensor

from explain.influence.linear import Flat
from explain.influence.scores import training_gradient
from explain.types import Objective, Suspect

VANISHES = 0.05  # of the gradient that is to be accounted for
ALIKE = 10  # times the smallest gradient: as good an account of the parameters
SMALLEST = 1e-12  # a weight decay below this is none


def advice(objective: Objective, training: Tensor | None = None) -> str:
    """What to look at where ``|grad J|`` is not small, the likeliest first; training on only where nothing else does.

    Args:
        objective: the loss that was taken for the trained one.
        training: its `training_gradient`.
    """
    tried: list[str] = []
    return another_training(objective, training, tried) or (
        f"First compare loss, examples ({objective.size}) and weight_decay ({objective.weight_decay:g}) with those of "
        f"the training (no weight decay makes it vanish{''.join(f', nor does {name}' for name in tried)}); if they are "
        "the same, train until the gradient vanishes, or read the scores as those of the training so far"
    )


def another_training(
    objective: Objective, training: Tensor | None = None, tried: list[str] | None = None
) -> str | None:
    """Which other training the parameters are a minimum of, and how to say so; None where none is found.

    For each other loss and training set that the model's data allow (``objective.suspects``, a function without
    arguments to `Suspect`), and the weight decay that fits best, ``-<grad L, theta> / |theta|^2``, the gradient is
    taken again: parameters tell what they are a minimum of. ``tried`` collects the names of those that were not it.
    """
    gradient = training_gradient(objective) if training is None else training.double()
    limit = VANISHES * float(gradient.norm())
    suspects: Callable[[], Iterable[Suspect]] | None = getattr(objective, "suspects", None)
    for _, alike in groupby(suspects() if suspects else (), lambda suspect: suspect.what):  # losses, then examples
        fit: list[tuple[float, str, str]] = []
        for suspect in alike:
            try:
                other = suspect.change(objective)
            except ValueError:  # labels that do not fit were not trained on
                continue
            if (found := _weight_decay(other, training_gradient(other), limit)) is not None:
                size, decay = found
                beside = "" if decay is None else f" with weight_decay={decay:.2g}"
                fit.append((size, f"{suspect.name}{beside}", suspect.remedy))
            if tried is not None:
                tried.append(suspect.name)
        if fit:
            least = min(fit)[0]
            best = [one for one in fit if one[0] <= ALIKE * least]  # small errors: huber is half of mse
            names, remedies = (" or ".join(dict.fromkeys(column)) for column in list(zip(*best, strict=True))[1:])
            return f"Under {names} it is {least:.1g}: if that was the training, {remedies}"
    if (found := _weight_decay(objective, gradient, limit)) is not None and found[1] is not None:
        size, decay = found
        return f"With weight_decay={decay:.2g} it is {size:.1g}: if that was the training, say so in explain.wrap"
    return None


def _weight_decay(objective: Objective, gradient: Tensor, limit: float) -> tuple[float, float | None] | None:
    """The norm under the weight decay given (None), or under the one that fits best; None where neither is enough."""
    if float(gradient.norm()) <= limit:
        return float(gradient.norm()), None
    theta = Flat(objective.params).vector(objective.params).double()
    loss = gradient - objective.weight_decay * theta
    decay = -float(loss @ theta) / max(float(theta @ theta), SMALLEST)
    size = float((loss + decay * theta).norm())
    return (size, decay) if decay > SMALLEST and size <= limit else None
