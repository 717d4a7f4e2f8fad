"""Losses by name, ``(outputs [n, outputs], labels [n, ...]) -> [n]``, and which of them a model was trained with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from explain.outputs import Form, Meaning, label_form

LossName: TypeAlias = Literal["cross_entropy", "bce", "mse", "mae", "huber", "hinge", "poisson"]
Loss: TypeAlias = LossName | Callable[[Tensor, Tensor], Tensor]
Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Link: TypeAlias = Callable[[Tensor], Tensor]
NAMES: tuple[str, ...] = get_args(LossName)
OF_VALUES = ("mse", "mae", "huber", "poisson")
REMEDY = f"explain.wrap(..., loss={' | '.join(map(repr, NAMES))}), or a callable (outputs, labels) -> [examples]"


def itself(outputs: Tensor) -> Tensor:
    """The link of a loss that takes the outputs as they are."""
    return outputs


@dataclass(frozen=True)
class Trained:
    """A loss and the labels as it takes them: ``loss_of(link(outputs), labels) -> [examples]``.

    ``convex``: known to be convex in what it takes; ``assumed``: why it was taken, None where it was given; ``option``:
    how it is asked for; ``link``: to the logits, so that the loss curves alike whoever took their softmax or sigmoid.
    """

    name: str
    loss_of: Function
    labels: Tensor
    convex: bool
    assumed: str | None
    option: str = ""
    link: Link = itself

    def of(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of each example, ``[examples]``, of the model's own outputs."""
        return self.loss_of(self.link(outputs), labels)


def check_loss(given: Loss | None) -> None:
    """Check that this is one of `NAMES`, a callable, or None.

    Raises:
        ValueError: it is not.
    """
    if given is not None and given not in NAMES and not callable(given):
        raise ValueError(f"loss must be one of {', '.join(NAMES)}, a callable or None, got {given!r}")


def check_weight_decay(given: Any) -> None:
    """Check that this is a number of 0 or more.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(given, (int, float)) or isinstance(given, bool) or not 0 <= given < math.inf:
        raise ValueError(f"weight_decay must be a number, 0 or more, got {given!r}")


def trained_loss(given: Loss | None, meaning: Meaning, labels: Tensor) -> Trained:
    """The loss that was given, or the one that outputs and labels leave no doubt about.

    Args:
        given: a name, a callable, or None.
        meaning: what the outputs are.
        labels: ``[n]``, ``[n, 1]`` or ``[n, outputs]``; NaN among the 0 and 1 of several tasks are not trained on.

    Raises:
        ValueError: labels that do not fit the loss or the outputs, or several losses would do: say which.

    >>> model = Meaning("logits", 1)
    >>> trained_loss(None, model, torch.tensor([0.0, 1.0])).name
    'bce'
    """
    check_loss(given)
    if callable(given):
        return Trained(getattr(given, "__name__", "callable"), given, labels, False, None)
    form = label_form(labels, meaning.count)
    name, why = (given, None) if given is not None else _guess(meaning, form, labels)
    prepared = _prepared(name, meaning, labels, form)
    return Trained(name, _function(name, meaning, labels), prepared, True, why, link=_link(name, meaning))


def alternatives(taken: Trained, meaning: Meaning, labels: Tensor) -> list[Trained]:
    """The other losses that these labels could have been trained with."""
    found = []
    logits = Meaning("logits", meaning.count, meaning.exclusive)
    for name in NAMES:
        for read, how in ((meaning, ""), (logits, " on the outputs as if they were logits")):
            if (name == taken.name and read is meaning) or (how and (meaning.kind == "logits" or name in OF_VALUES)):
                continue
            try:
                other = trained_loss(name, read, labels)  # type: ignore[arg-type]
            except ValueError:
                continue
            option = "outputs='logits'" if how else f"loss={name!r}"
            found.append(replace(other, name=f"{name}{how}", assumed=None, option=option))
    return found


def _guess(meaning: Meaning, form: Form, labels: Tensor) -> tuple[str, str]:
    """The loss and why; see `trained_loss` for the errors.

    Raises:
        ValueError: several losses, or none, go with the labels.
    """
    outputs = "one output" if meaning.count == 1 else f"{meaning.count} {meaning.kind}"
    said = _SAID[form]
    if meaning.kind == "values":
        of_classes = form in ("signs", "classes", "one_hot", "multi_hot") or (
            form == "whole" and len(labels.unique()) == 2
        )
        if of_classes and not labels.is_floating_point():
            raise ValueError(
                f"which loss was trained? outputs are values, and labels are {said} of {labels.dtype}: "
                f"{_ADVICE.get(form, '')}{REMEDY}"
            )
        return "mse", f"mse: labels are {said}, outputs values; mae, huber, ... where that was trained"
    if form == "classes" and (meaning.exclusive or meaning.count == 1):
        name = "bce" if meaning.count == 1 else "cross_entropy"
        return name, f"{name}: labels are {said}, the model has {outputs}"
    if form in ("one_hot", "multi_hot") and meaning.count > 1:
        if not meaning.exclusive:
            return "bce", f"bce, each output by itself: labels are {said}"
        if meaning.kind != "logits" and form == "one_hot":
            return "cross_entropy", f"cross_entropy: labels are {said}, outputs {meaning.kind} that exclude one another"
    if form == "soft" and meaning.exclusive and meaning.count > 1:
        return "cross_entropy", f"cross_entropy: each row of labels sums to 1, the model has {outputs}"
    raise ValueError(
        f"which loss was trained? labels {list(labels.shape)} of {labels.dtype} are {said}, the model has {outputs}"
        f"{'' if meaning.exclusive or meaning.count == 1 else ' that do not exclude one another'}: "
        f"{_ADVICE.get(form, '')}{REMEDY}"
    )


_SAID = {
    "none": "empty",
    "classes": "classes",
    "signs": "-1 and 1",
    "one_hot": "rows of 0 with one 1",
    "multi_hot": "rows of 0 and 1",
    "soft": "rows that sum to 1",
    "whole": "whole numbers",
    "reals": "real numbers",
}


_ADVICE: dict[Form, str] = {
    "signs": "as classes they are (labels + 1) // 2; ",
    "classes": "of each output's own loss give the labels as rows of 0 and 1, [n, outputs]; ",
    "whole": "classes are counted from 0; ",
}


def _prepared(name: str, meaning: Meaning, labels: Tensor, form: Form) -> Tensor:
    """Labels as the loss takes them: classes int64 ``[n]``, else real ``[n, outputs]``, ``[n]`` where there is one.

    Raises:
        ValueError: labels that do not go with the loss.
    """
    count, wide = meaning.count, labels.reshape(len(labels), -1)
    flat = wide[:, 0] if wide.size(1) == 1 else None
    if name == "cross_entropy":
        if meaning.kind == "values" or count == 1:
            raise ValueError(
                f"cross_entropy needs the outputs of several classes, the model has {count} {meaning.kind}: take 'bce' "
                "for one output, 'mse' for values"
            )
        if form == "classes" and flat is not None:
            return _classes(flat, count)
        if form == "one_hot":
            return wide.long().argmax(1)
        if form == "soft" and wide.size(1) == count:
            return wide
    elif name in ("bce", "hinge"):
        if meaning.kind == "values":
            raise ValueError(
                f"{name} is a loss of classes, and the outputs are values: take 'mse', or say outputs='logits'"
            )
        if name == "bce" and count > 1 and wide.size(1) == count and form in ("one_hot", "multi_hot", "soft", "reals"):
            _check_fraction(wide)
            return wide if wide.is_floating_point() else wide.float()
        if count == 1 and flat is not None:
            if form == "classes":
                return _classes(flat, 2)
            if name == "hinge" and form == "signs":
                return (flat > 0).long()
            if name == "bce" and form == "reals":
                _check_fraction(flat)
                return flat
    elif wide.size(1) == count:
        return (flat if flat is not None else wide).to(torch.promote_types(labels.dtype, torch.float32))
    if name in OF_VALUES:
        wanted = f"give real labels [n, {count}] for as many outputs"
    elif name == "bce" and count > 1:
        wanted = f"give rows of 0 and 1, [n, {count}], one for each output"
    else:
        classes = f"classes from 0 to {max(count, 2) - 1} are [n], int64 (unlabelled examples left out)"
        wanted = f"{_ADVICE.get(form, '')}{classes}"
    raise ValueError(
        f"{name} of {count} output{'s' * (count > 1)} does not go with labels {list(labels.shape)} of {labels.dtype}, "
        f"{_SAID[form]}: {wanted}, or {REMEDY}"
    )


def _classes(labels: Tensor, classes: int) -> Tensor:
    if labels.is_floating_point() and labels.isnan().any():
        raise ValueError("some training labels are NaN: leave unlabelled examples out of the training set")
    found = labels.long()
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= classes:
        remedy = "leave unlabelled examples (an ignore_index) out of the training set"
        if low > 0 and high == classes:
            remedy = "classes that are counted from 1 are labels - 1"
        raise ValueError(
            f"training labels must be classes [n] from 0 to {classes - 1}, got {list(labels.shape)} from {low} to "
            f"{high}: {remedy}"
        )
    return found


def _check_fraction(labels: Tensor) -> None:
    known = labels[~labels.isnan()] if labels.is_floating_point() else labels
    if bool(((known < 0) | (known > 1)).any()):
        raise ValueError(f"bce needs labels from 0 to 1, got {float(known.min()):.3g} to {float(known.max()):.3g}")


def _function(name: str, meaning: Meaning, labels: Tensor) -> Function:
    """The loss of each example; the mean over outputs where there are several, as torch takes it."""
    if name == "cross_entropy":
        return cross_entropy if _softmaxed(meaning) else own_cross_entropy
    if name == "bce":
        # over several tasks the trained mean is over the labels that there are, not over all n * outputs
        known = float((~labels.isnan()).double().mean()) if labels.is_floating_point() else 1.0
        return lambda logits, y: binary_cross_entropy(logits, y) / known
    if name == "hinge":
        even = 0.0 if meaning.kind == "logits" else 0.5
        return lambda outputs, y: (1 - (2 * y.reshape(-1) - 1) * (outputs[:, 0] - even)).relu()
    return of_values(name)


def of_values(name: str) -> Function:
    """One of `OF_VALUES`, ``(outputs [n, ...], labels) -> [n]``: the mean over the numbers of each example.

    >>> of_values("mae")(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))
    tensor([2.])
    """
    pointwise: Function = {
        "mse": lambda outputs, y: (outputs - y).square(),
        "mae": lambda outputs, y: (outputs - y).abs(),
        "huber": lambda outputs, y: F.huber_loss(outputs, y, reduction="none"),
        "poisson": lambda outputs, y: outputs.exp() - y * outputs,
    }[name]
    return lambda outputs, y: pointwise(outputs, y.reshape(outputs.shape).to(outputs.dtype)).flatten(1).mean(1)


def _softmaxed(meaning: Meaning) -> bool:
    return meaning.kind == "logits" or meaning.exclusive


def _link(name: str, meaning: Meaning) -> Link:
    """From outputs to what the loss of them takes.

    -log p is convex in p, in log p and in the logits, and ``J^T H J`` another matrix in each: it is that of the logits,
    which log p are up to a constant.
    """
    if name not in ("cross_entropy", "bce") or meaning.kind == "logits":
        return itself
    if name == "cross_entropy" and _softmaxed(meaning):
        return _log if meaning.kind == "probabilities" else itself
    return _log_odds if meaning.kind == "probabilities" else _log_odds_of_logs


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def _log_odds(p: Tensor) -> Tensor:
    return _log(p) - _log(1 - p)


def _log_odds_of_logs(log_p: Tensor) -> Tensor:
    return log_p - _log(-log_p.expm1())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``-log p(label)``, or ``-sum_c label_c log p(c)`` for labels ``[n, outputs]``, with ``p = softmax(logits)``."""
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
    return F.cross_entropy(logits, labels, reduction="none")


def own_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The same with ``p = sigmoid(logits)``, each output by itself."""
    logs = -F.softplus(-logits)
    if labels.dim() == 1:
        return -logs.gather(1, labels[:, None])[:, 0]
    return -(labels.to(logits.dtype) * logs).sum(1)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``-y log p - (1 - y) log(1 - p)`` of ``p = sigmoid(logits)``, mean over the outputs; NaN labels count nothing."""
    y = labels.reshape(len(labels), -1).to(logits.dtype)
    if not labels.is_floating_point():
        return F.softplus((1 - 2 * y) * logits).mean(1)
    known = y.nan_to_num()
    each = known * F.softplus(-logits) + (1 - known) * F.softplus(logits)
    return torch.where(y.isnan(), 0.0, each).mean(1)
