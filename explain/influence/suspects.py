"""Where the gradient does not vanish: whether loss, examples or weight decay are those of the user's own training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.influence.linear_maps import Flat
from explain.influence.scores import training_gradient
from explain.types import Objective, Suspect

NOTED = 0.05  # of the effects that are asked about: training left to do that is looked into
VANISHES = 0.05  # of the gradient that is to be accounted for
SOLVED = 0.1  # of that where shares were solved for too, which could come near to anything
ALIKE = 10  # times the smallest gradient: as good an account of the parameters
SMALLEST = 1e-12  # a weight decay below this is none
PER_UNKNOWN = 2  # parameters that there must be for each unknown, so that a fit says something


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


def suspect_another(objective: Objective, norm: float, training: Tensor | None = None) -> None:
    """Warns where the parameters are a minimum of another training than the one asked about; ``norm``: of its gradient.

    For where there is little left to finish: then only what is found is said.
    """
    if other := another_training(objective, training):
        doubt(
            f"the model is not at a minimum of its training loss (gradient norm {norm:.2g}), and is at that of "
            f"another. {other}"
        )


def another_training(
    objective: Objective, training: Tensor | None = None, tried: list[str] | None = None
) -> str | None:
    """Which other training the parameters are a minimum of, and how to say so; None where none is found.

    For each other loss and training set that the model's data allow (``objective.suspects``, a function without
    arguments to `Suspect`), with the shares and the weight decay that fit best, the gradient is taken again: parameters
    tell what they are a minimum of. ``tried`` collects the names of those that were not it.
    """
    gradient = training_gradient(objective) if training is None else training.double()
    limit = VANISHES * float(gradient.norm())
    suspects: Callable[[], Iterable[Suspect]] | None = getattr(objective, "suspects", None)
    plain = _fitted([objective], [gradient], limit, [1.0])
    others = list(suspects()) if suspects else []
    steep = _steepness(objective) if others else 0.0
    for what, alike in groupby(others, lambda suspect: suspect.what):  # losses, then examples
        if what == "weights" and plain is not None:  # the simpler account goes before
            continue
        fit: list[tuple[float, str, str]] = []
        for suspect in alike:
            try:
                made = suspect.change(objective)
            except ValueError:  # labels that do not fit were not trained on
                continue
            parts = made if isinstance(made, Sequence) else [made]
            steeper = [_steepness(part) / steep if steep else 1.0 for part in parts]
            if (found := _fitted(parts, [training_gradient(part) for part in parts], limit, steeper)) is not None:
                beside = "" if found.decay is None else f" with weight_decay={found.decay:.2g}"
                fit.append((found.size, f"{suspect.name}{suspect.said(found.shares)}{beside}", suspect.remedy))
            if tried is not None:
                tried.append(suspect.name)
        if fit:
            least = min(fit)[0]
            best = [one for one in fit if one[0] <= ALIKE * least]  # small errors: huber is half of mse
            names, remedies = (" or ".join(dict.fromkeys(column)) for column in list(zip(*best, strict=True))[1:])
            return f"Under {names} it is {least:.1g}: if that was the training, {remedies}"
    if plain is not None and plain.decay is not None:
        return (
            f"With weight_decay={plain.decay:.2g} it is {plain.size:.1g}: if that was the training, say so in "
            "explain.wrap"
        )
    return None


def _steepness(objective: Objective) -> float:
    """``mean_i |d loss_i / d outputs_i|``: gradients of a flatter loss are smaller, and have not vanished for that.

    A Brier score or focal loss is flat wherever cross entropy has come far.
    """
    own, total = getattr(objective, "unlinked", objective), 0.0
    for batch in own.batches():
        with torch.no_grad():
            outputs = own.outputs(own.params, batch)
        outputs = outputs.detach().requires_grad_()
        with torch.enable_grad():
            (slopes,) = torch.autograd.grad(own.loss(outputs, batch).sum(), outputs)
        total += float(slopes.double().flatten(1).norm(dim=1).sum())
    return total / own.size


class _Fit(NamedTuple):
    """``size``: of the gradient that is left; ``shares`` of the parts; ``decay``: the weight decay, None: as given."""

    size: float
    shares: tuple[float, ...]
    decay: float | None


def _fitted(
    parts: Sequence[Objective], gradients: Sequence[Tensor], limit: float, steeper: Sequence[float]
) -> _Fit | None:
    """The shares (of sum 1), or shares and weight decay, that leave least of the gradient; None where it stays large.

    Not asked where the unknowns are as many as could explain anything. What may be left is less where the parts, by
    their shares, are flatter than the loss taken: ``steeper`` is their `_steepness` in units of its own.
    """
    theta = Flat(parts[0].params).vector(parts[0].params).double()
    losses = torch.stack([g - p.weight_decay * theta for p, g in zip(parts, gradients, strict=True)])
    if not losses.any():  # met in full, as a hinge is by any clear margin: that tells nothing of the training
        return None
    if not losses.isfinite().all():  # a loss of real labels where some are unknown: nobody trained that
        return None
    turns = (losses[1:] - losses[0]).T
    for decay in (parts[0].weight_decay, None):
        unknown = turns if decay is not None else torch.cat([turns, theta[:, None]], 1)
        if len(parts) > 1 and PER_UNKNOWN * unknown.size(1) > len(theta):
            continue
        left = losses[0] + (decay or 0.0) * theta
        found = unknown.new_zeros(unknown.size(1))
        if unknown.size(1):
            found = torch.linalg.lstsq(unknown, -left[:, None], driver="gelsd").solution[:, 0]
        most = limit if len(parts) == 1 else SOLVED * limit
        size, solved = float((left + unknown @ found).norm()), found.tolist()
        shares = (1 - sum(solved[: len(parts) - 1]), *solved[: len(parts) - 1])
        solved_decay = None if decay is not None else solved[-1]
        scale = min(1.0, sum(share * own for share, own in zip(shares, steeper, strict=True)))
        if size <= scale * most and min(shares) > SMALLEST and (solved_decay is None or solved_decay > SMALLEST):
            return _Fit(size, shares, solved_decay)
    return None
