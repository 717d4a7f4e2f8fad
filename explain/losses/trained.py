"""Which loss a model was trained with: the one that is given, or that outputs and labels leave no doubt about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor

from explain.losses.functions import Function, Link, function_of, itself, link_of
from explain.losses.names import NAMES, OF_VALUES, REMEDY, LossName
from explain.losses.prepared_labels import ADVICE, SAID, prepared
from explain.outputs import Form, Meaning, label_form
from explain.spelling import came

Loss: TypeAlias = LossName | Callable[[Tensor, Tensor], Tensor]
AS_THEY_ARE = (*OF_VALUES, "multi_margin")  # whatever the outputs are, these take them so


@dataclass(frozen=True)
class Trained:
    """A loss and the labels as it takes them: ``loss_of(link(outputs), labels) -> [examples]``.

    ``convex``: known to be convex in what it takes; ``assumed``: why it was taken, None where it was given; ``option``:
    how it is asked for; ``link``: to the logits, or to the probabilities of "brier", so that the loss curves alike
    whoever took their softmax or sigmoid.
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
        raise ValueError(f"loss must be one of {', '.join(NAMES)}, a callable or None, {came(given, NAMES)}")


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

    >>> import torch
    >>> model = Meaning("logits", 1)
    >>> trained_loss(None, model, torch.tensor([0.0, 1.0])).name
    'bce'
    """
    check_loss(given)
    if callable(given):
        return Trained(getattr(given, "__name__", "callable"), given, labels, False, None)
    form = label_form(labels, meaning.count)
    name, why = (given, None) if given is not None else _guess(meaning, form, labels)
    taken = prepared(name, meaning, labels, form)
    return Trained(name, function_of(name, meaning, labels), taken, True, why, link=link_of(name, meaning))


def alternatives(taken: Trained, meaning: Meaning, labels: Tensor) -> list[Trained]:
    """The other losses that these labels could have been trained with."""
    found = []
    for name in NAMES:
        for read, how in _readings(name, meaning):
            if name == taken.name and read is meaning:
                continue
            try:
                other = trained_loss(name, read, labels)  # type: ignore[arg-type]
            except ValueError:
                continue
            said = [] if how and name == taken.name else [f"loss={name!r}"]
            option = ", ".join(["outputs='logits'", *said] if how else said)
            found.append(replace(other, name=f"{name}{how}", assumed=None, option=option))
    return found


def _readings(name: str, meaning: Meaning) -> list[tuple[Meaning, str]]:
    """What the outputs are to this loss: what they are, and logits where a softmax or sigmoid may be taken twice."""
    alike = meaning.kind == "logits" or (meaning.kind == "log_probabilities" and not meaning.binary)
    if alike or name in AS_THEY_ARE:
        return [(meaning, "")]
    logits = Meaning("logits", meaning.count, meaning.exclusive)
    return [(meaning, ""), (logits, " on the outputs as if they were logits")]


def _guess(meaning: Meaning, form: Form, labels: Tensor) -> tuple[str, str]:
    """The loss and why; see `trained_loss` for the errors.

    Raises:
        ValueError: several losses, or none, go with the labels.
    """
    outputs = "one output" if meaning.count == 1 else f"{meaning.count} {meaning.kind}"
    said = SAID[form]
    if meaning.kind == "values":
        of_classes = form in ("signs", "classes", "one_hot", "multi_hot") or (
            form == "whole" and len(labels.unique()) == 2
        )
        if of_classes and not labels.is_floating_point():
            raise ValueError(
                f"which loss was trained? outputs are values, and labels are {said} of {labels.dtype}: "
                f"{ADVICE.get(form, '')}{REMEDY}"
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
        f"{ADVICE.get(form, '')}{REMEDY}"
    )
